"""One stream's decoder on a GPU, watched: as soon as it is not the right one, it says so.

The chip does not tell of damage inside a picture: it shows what it made of it. Damage that stands
outside (packets that are marked, pictures before the first keyframe) is told as in software.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from statistics import median
from typing import NamedTuple, Protocol

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.errors import SourceError, reason
from pipeline.ffmpeg_log import first_of, heard_on_this_thread
from pipeline.gpu.pictures import ON_GPU, in_memory, is_on_gpu, is_readable_there

log = logging.getLogger(__name__)

_WARM_UP, _MEASURED = 8, 24  # packets of a trial: the first ones wait for the decoder to be made
_SILENT = 48  # packets without a picture; no decoder holds so many
_GIVES_UP = "hwaccel initialisation"  # is in what FFmpeg says last before software takes over


class NotOnGpu(Exception):
    """A stream, or the rest of it, is to be decoded in software; the message says why.

    Attributes:
        is_failure: Whether the GPU's decoder has failed, instead of not being the right one.
    """

    def __init__(self, why: str, *, is_failure: bool = False) -> None:
        super().__init__(why)
        self.is_failure = is_failure


class Context(Protocol):
    """What is needed of FFmpeg's decoder."""

    @property
    def pix_fmt(self) -> str | None: ...
    @property
    def sample_aspect_ratio(self) -> Fraction | None: ...
    def decode(self, packet: Packet[VideoStream] | None = None) -> list[av.VideoFrame]: ...


class Verdict(NamedTuple):
    """Whether the GPU has a picture sooner than one core, and the figures."""

    pays: bool
    words: str


class Trial:
    """The first packets of a stream, decoded once more in software.

    One number stands against one: how long a picture takes on the GPU by the clock (waiting and
    copying included) against the processor time of one core. Where the GPU wins it costs the
    cores less, whatever it does while waiting, and holds up the line no longer than one thread
    would. Small pictures may lose: every call of the driver costs the same for them.

    Args:
        in_software: Makes a decoder of the same stream for the CPU, with one thread.
    """

    def __init__(self, in_software: Callable[[], Context]) -> None:
        self._in_software = in_software
        self._packets: list[Packet[VideoStream]] = []
        self._seconds: list[float] = []

    def add(self, packet: Packet[VideoStream], seconds: float) -> Verdict | None:
        """Learn how long the GPU took; the verdict when there were enough packets."""
        self._packets.append(packet)
        self._seconds.append(seconds)
        return self._judged() if len(self._packets) >= _WARM_UP + _MEASURED else None

    def _judged(self) -> Verdict:
        try:
            context = self._in_software()
        except av.FFmpegError as error:  # the file has gone; what is open stays so
            return Verdict(True, f"not measured ({reason(error)})")
        seconds = list[float]()
        for packet in self._packets:
            begin = time.thread_time()
            with suppress(av.FFmpegError):  # a damaged packet takes its time, too
                context.decode(packet)
            seconds.append(time.thread_time() - begin)
        there, here = (median(each[_WARM_UP:]) for each in (self._seconds, seconds))
        return Verdict(
            there < here,
            f"a picture takes {there * 1e3:.2f} ms there, {here * 1e3:.2f} ms on a core",
        )


class GpuDecoder:
    """One stream's decoder on the GPU, for as long as it is the right one.

    Args:
        context: FFmpeg's decoder, bound to a GPU.
        trial: To be held on the first packets; None: it stays, whatever it costs.
        told: Called with the verdict.
        words: What is known of the choice so far.
        why_copied: Why pictures are brought to main memory that an engine on the GPU could use.
        is_wanted: The user has asked for it, so that leaving it is worth a warning.

    Attributes:
        why_leave: Why software should take over where it can, which is at a keyframe; None while
            all is well. Until then `decode` goes on.
    """

    def __init__(
        self,
        context: VideoCodecContext,
        trial: Trial | None = None,
        told: Callable[[Verdict], object] = lambda _verdict: None,
        words: str = "as asked for",
        why_copied: str = "",
        is_wanted: bool = False,
    ) -> None:
        self.context = context
        self.why_leave: NotOnGpu | None = None
        self._words, self._why_copied, self._stay = words, why_copied, False
        self._trial, self._told = trial, told
        self._is_wanted = is_wanted
        self._silent, self._has_begun = 0, False
        self._refusal = ""  # of the chip, in FFmpeg's words

    @property
    def words(self) -> str:
        """What is known of the choice, and of where its pictures go."""
        if self._stay:
            return f"{self._words}; pictures stay there for the engine"
        if self._why_copied:
            return f"{self._words}; pictures are copied to main memory, because {self._why_copied}"
        return self._words

    def decode(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        """The pictures that a packet completes; an empty packet flushes.

        They lie in main memory, or on the GPU if the context leaves them there.

        Raises:
            av.InvalidDataError: The packet is damaged, or the GPU's decoder says so of a stream
                that it does not understand.
            NotOnGpu: The decoder has failed, and gives no more.
        """
        begin = time.perf_counter()
        try:
            pictures = self._decoded(packet if packet.size else None)
            pictures = [self._placed(picture) for picture in pictures]
        except av.EOFError:  # flushed already
            return []
        except av.InvalidDataError:
            raise
        except (av.FFmpegError, SourceError) as error:
            raise NotOnGpu(f"its decoder failed ({reason(error)})", is_failure=True) from None
        self._look_at(pictures)
        if self._trial is not None and packet.size:
            self._judge(self._trial.add(packet, time.perf_counter() - begin))
        return pictures

    def rest(self) -> list[av.VideoFrame]:
        """The pictures that are still in it, of a stream that goes on elsewhere."""
        return [self._placed(picture) for picture in self.context.decode(None)]

    def _decoded(self, packet: Packet[VideoStream] | None) -> list[av.VideoFrame]:
        """What FFmpeg decodes; until the first picture, listening to why it leaves the chip."""
        if self._has_begun:
            return self.context.decode(packet)
        with heard_on_this_thread() as lines:
            pictures = self.context.decode(packet)
        if any(_GIVES_UP in text for _, _, text in lines):
            self._refusal = f" ({first_of(lines)})"
        self._has_begun = bool(pictures)
        return pictures

    def _placed(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture where those behind can read it."""
        if not is_on_gpu(picture):
            return picture
        if not is_readable_there(picture):
            layout = picture.sw_format.name if picture.sw_format else "?"
            size = f"{picture.width}x{picture.height}"
            self._why_copied = f"{layout} of {size} is not read on the GPU"
            return in_memory(picture)
        self._stay = True
        return picture

    def _look_at(self, pictures: list[av.VideoFrame]) -> None:
        is_thinned = self.context.skip_frame != "DEFAULT"  # it was told to leave pictures out
        self._silent = 0 if pictures or is_thinned else self._silent + 1
        if self._silent > _SILENT:
            raise NotOnGpu("its decoder gives no pictures", is_failure=True)
        # FFmpeg itself goes on in software where the chip refuses, also in mid-stream.
        if pictures and self.why_leave is None and self.context.pix_fmt != ON_GPU:
            what = f"{self.context.profile or 'this profile'}, {self.context.pix_fmt}"
            size = f"{self.context.width}x{self.context.height}"
            self.why_leave = NotOnGpu(f"it does not take {what}, {size}{self._refusal}")
            self._trial = None
            if self._is_wanted:
                log.warning("decoder: cuda: %s; it goes on in software", self.why_leave)

    def _judge(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        self._trial, self._words = None, verdict.words
        self._told(verdict)
        if not verdict.pays:
            self.why_leave = NotOnGpu(verdict.words)
