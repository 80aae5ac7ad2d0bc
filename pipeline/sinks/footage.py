"""Encoded pictures with what is known of them, and files that they are put into."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from pipeline.cores import usable_cores
from pipeline.errors import SinkError, reason
from pipeline.frame import Detections, Result
from pipeline.settings import VideoSettings
from pipeline.sinks.encoder import Encoder, picture_of
from pipeline.sinks.encoder_choice import choose_encoder
from pipeline.sinks.encoding import Encoding
from pipeline.sinks.nvenc import NVENC
from pipeline.sinks.protocol import SinkTarget

log = logging.getLogger(__name__)

Calendar = Callable[[float], float]
"""Turns an arrival (monotonic seconds) into a date (seconds since 1970)."""


def calendar(arrival: float) -> float:
    """The date of an arrival, as the system's clock has it now."""
    return time.time() - (time.monotonic() - arrival)


@dataclass(frozen=True, eq=False)
class Moment:
    """What is known of a picture while it is being encoded.

    Attributes:
        seconds: Presentation time on the source's clock.
        date: When it arrived, in seconds since 1970.
        index: Number of the frame.
        detections: What was found in it.
        begins: Whether it was asked for as a picture from which playing can begin.
    """

    seconds: float
    date: float
    index: int
    detections: Detections
    begins: bool


@dataclass(frozen=True, eq=False)
class Footage:
    """One encoded picture, its moment, and the encoder whose settings it is decoded by."""

    packet: av.Packet[VideoStream]
    moment: Moment
    encoder: Encoder


class FootageEncoder:
    """Encode results; when the size or the pixels' shape changes, so does the encoder.

    It also changes for good when one on a GPU fails; the few pictures inside that are lost.

    Args:
        target: Where the results come from.
        settings: How to encode.
        keyframe_seconds: Longest time from keyframe to keyframe, whatever the frame rate.
        at_once: See `Encoding`.
        dates: Turns arrivals into dates.

    Raises:
        ConfigError: There is no such encoder here.
    """

    def __init__(
        self,
        target: SinkTarget,
        settings: VideoSettings,
        keyframe_seconds: float,
        *,
        at_once: bool = False,
        dates: Calendar = calendar,
    ) -> None:
        self._target, self._settings = target, settings
        self._keyframe_seconds, self._at_once, self._dates = keyframe_seconds, at_once, dates
        self._encoder: Encoder | None = None
        self._encoding: Encoding | None = None  # the last one
        self._refused: str | None = None  # why what is preferred is not to be used any more
        self._inside: deque[Moment] = deque()
        self._last_keyframe = 0.0
        self._prefers_gpu = choose_encoder(settings.encoder) == NVENC

    @property
    def takes_gpu_pictures(self) -> bool:
        """Whether the next picture may lie on a GPU."""
        if self._encoder is not None:
            return self._encoder.takes_gpu_pictures
        return self._prefers_gpu and self._refused is None

    def encode(self, result: Result, *, begin: bool = False) -> list[Footage]:
        """Encode one result; return what falls out.

        Args:
            begin: Make this a picture from which playing can begin, and mark it.

        Raises:
            SinkError: The encoder cannot do it.
        """
        try:
            try:
                return self._encode(result, begin)
            except av.FFmpegError as error:
                if not self._goes_on_after(error):
                    raise
            return self._encode(result, begin)
        except av.FFmpegError as error:
            height, width = result.frame.size_hw
            raise SinkError(
                f"cannot encode a picture of {width}x{height}: {error.strerror}"
            ) from error

    def flush(self) -> list[Footage]:
        """What is still inside; the next result begins anew."""
        if self._encoder is None:
            return []
        rest = list(self._footage(self._encoder.flush()))
        self._encoder = None
        return rest

    def facts(self) -> dict[str, Any]:
        """For the report: how it was encoded last; empty before the first picture."""
        return self._encoding.facts() if self._encoding else {}

    def close(self) -> None:
        """Let go of the encoder, which holds many pictures, with what is still inside."""
        self._encoder = None
        self._inside.clear()

    def _encode(self, result: Result, begin: bool) -> list[Footage]:
        picture, before = picture_of(result, self.takes_gpu_pictures), list[Footage]()
        pixel_hw = result.frame.pixel_hw
        if self._encoder is None or not self._encoder.fits(picture, pixel_hw):
            before = self.flush()
            self._encoder = self._begin(result, picture)
            self._encoding = self._encoder.encoding
        seconds = result.frame.pts_seconds
        is_due = seconds - self._last_keyframe >= self._keyframe_seconds
        if begin or is_due:
            self._last_keyframe = seconds
        self._inside.append(
            Moment(
                seconds,
                self._dates(result.frame.arrival),
                result.frame.index,
                result.detections,
                begin,
            )
        )
        packets = self._encoder.encode(picture, pixel_hw, keyframe=begin or is_due)
        return before + list(self._footage(packets))

    def _goes_on_after(self, error: av.FFmpegError) -> bool:
        """Whether another encoder can take over; what was inside this one is lost."""
        failed = self._encoder.encoding if self._encoder is not None else None
        if failed is None or failed.otherwise is None:
            return False
        self._refused = f"{failed.encoder} failed ({reason(error)})"
        log.warning("%s; encoding with %s", self._refused, failed.otherwise.encoder)
        self.close()
        return True

    def _begin(self, result: Result, picture: av.VideoFrame) -> Encoder:
        encoding = Encoding.choose(
            self._settings,
            (picture.height, picture.width),
            self._target.rate,
            live=self._target.live,
            cores=usable_cores(),
            at_once=self._at_once,
            pixel_hw=result.frame.pixel_hw,
        )
        self._last_keyframe = result.frame.pts_seconds
        if self._refused and encoding.otherwise:
            why = self._refused
            encoding = replace(encoding.otherwise, why=why, refused=why)
        return Encoder(picture, result.frame.time_base, encoding)

    def _footage(self, packets: list[av.Packet[VideoStream]]) -> Iterator[Footage]:
        assert self._encoder is not None
        for packet in packets:
            yield Footage(packet, self._inside.popleft(), self._encoder)


def mux(
    container: OutputContainer, stream: VideoStream, packet: av.Packet[VideoStream], shift: int = 0
) -> None:
    """Write a packet, `shift` units earlier, to a stream that was made from its encoder's."""
    packet.pts = (packet.pts or 0) - shift
    packet.dts = packet.pts  # there are no B-frames
    packet.stream = stream
    container.mux(packet)
