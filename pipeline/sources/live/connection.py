"""One connection to one camera: open it, read it, decode it, until it breaks or is let go.

Everything here runs on the reader's thread and may block up to its deadline.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Protocol

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.frame import Truth
from pipeline.network.address import Address
from pipeline.network.causes import Cause, Trouble, of_opening, of_reading
from pipeline.placement import SQUARE
from pipeline.settings import LiveSettings
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.live.backlog import Backlog
from pipeline.sources.live.clock import DueTimes
from pipeline.sources.live.decoder import Decoder, Effort
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.live.options import input_options, left_over
from pipeline.sources.live.repair import Repair
from pipeline.sources.live.sender_clock import SenderClock
from pipeline.sources.live.thrift import Thrift

_GENERATE_PTS = 1  # FFmpeg's AVFMT_FLAG_GENPTS, which PyAV sets; it holds packets back
_LISTENS = {"udp", "rtp", "srt"}  # their hosts need not be found: they may be our own
_RTP = {"rtsp", "rtsps"}
_WITHOUT_TIME = {"mpjpeg", "mjpeg", "image2pipe", "jpeg_pipe"}  # FFmpeg invents their timestamps
_FETCHED = {"hls", "dash", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # as fast as one reads
_KEYFRAME_SECONDS = 15.0  # without one a stream may not mark its keyframes
_NOT_A_VIDEO = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails


@dataclass(frozen=True, eq=False)
class Picture:
    """A good picture of a connection.

    Attributes:
        picture: As decoded, or upright already.
        seconds: Its timestamp on the connection's own clock; None without one.
        truth: The true boxes, where they are known.
        is_timed: Whether the connection has a clock at all.
        taken: When the camera took it, in Unix seconds by the camera's own clock; None unless
            the camera tells.
        pixel_hw: The shape of its pixels, see `Frame`.
    """

    picture: av.VideoFrame
    seconds: float | None
    truth: Truth | None = None
    is_timed: bool = True
    taken: float | None = None
    pixel_hw: tuple[int, int] = SQUARE


class Ledger(Protocol):
    """Where a connection says what happens in it; raises `Closed` once it is to stop."""

    def drop(self, cause: str) -> None:
        """A picture was decoded, but is not delivered."""
        ...

    def count(self, anomaly: str) -> None:
        """Something was put right."""
        ...

    def sign_of_life(self) -> None:
        """The stream goes on without giving a picture, as it was told to."""
        ...

    def spared(self) -> None:
        """A picture was not decoded, as it would not be wanted; the stream goes on."""
        ...

    def decoded_by(self, decoder: DecodedBy) -> None:
        """Something else decodes from now on."""
        ...

    def wait_until(self, due: float) -> None:
        """Return at a moment of the monotonic clock."""
        ...


class Connection(Protocol):
    """What a reader reads; entered and left on the reader's thread."""

    def __enter__(self) -> Connection: ...
    def __exit__(self, *ended: object) -> None: ...
    def pictures(self, ledger: Ledger) -> Iterator[Picture]:
        """The good pictures in order; raises `Trouble` when no more can come."""
        ...


class CameraConnection:
    """A connection through FFmpeg.

    Args:
        address: Where the camera is.
        live: How it is read.
        decoder_threads: For the codec; they help only where pictures are cut into slices, but
            then they delay nothing.
        effort: How well it is decoded, from moment to moment.
        gpu: Opens decoders on a GPU; None leaves it to software.
    """

    def __init__(
        self,
        address: Address,
        live: LiveSettings,
        decoder_threads: int,
        effort: Effort,
        gpu: GpuDecoding | None = None,
    ) -> None:
        self._address, self._live = address, live
        self._decoder_threads, self._effort, self._gpu = decoder_threads, effort, gpu
        self._hearing = Hearing(losses=address.scheme in _RTP)

    def __enter__(self) -> CameraConnection:
        """Connect.

        Raises:
            Trouble: That is not possible, or takes too long.
        """
        with ExitStack() as stack:
            stack.enter_context(self._hearing)
            self._options = input_options(self._address.scheme, self._live)
            self._container = self._opened()
            stack.callback(self._container.close)
            self._stream = _video(self._container)
            self._stack = stack.pop_all()
        self._container.flags &= ~_GENERATE_PTS
        return self

    def __exit__(self, *ended: object) -> None:
        """Disconnect."""
        self._stack.close()

    def pictures(self, ledger: Ledger) -> Iterator[Picture]:
        """The good pictures; see `Repair` for what becomes of damaged ones.

        Raises:
            Trouble: The connection broke, or the server ended it.
        """
        for name in _left_over(self._address.scheme, tuple(self._options)):
            ledger.count(f"ffmpeg_ignores_{name}")
        repair = Repair(self._live.damaged, ledger)
        due = DueTimes(may_be_behind=1.0) if self._container.format.name in _FETCHED else None
        time_base = self._stream.time_base or Fraction(1, 90_000)
        is_timed = self._container.format.name not in _WITHOUT_TIME
        # Every so many pictures: all of them count.
        max_fps = self._live.max_fps if self._live.stride == 1 else None
        thrift = Thrift(max_fps, is_timed=is_timed)
        decoder = Decoder(
            self._stream,
            self._decoder_threads,
            self._effort,
            self._hearing,
            thrift,
            self._gpu,
            self._address.shown,
        )
        sender = SenderClock()
        packets = thrift.watched(self._packets(ledger))
        if not due:
            backlog = Backlog(self._live.late_seconds, is_timed=is_timed)
            packets = backlog.worth_decoding(packets, ledger, decoder.begin_anew)
        for packet in packets:
            sender.hear(packet)
            for picture in decoder.decode(packet, repair, ledger):
                seconds = None if picture.pts is None else float(picture.pts * time_base)
                if due and seconds is not None:
                    ledger.wait_until(due.of(seconds, time.monotonic()))
                yield Picture(
                    picture,
                    seconds if is_timed else None,
                    is_timed=is_timed,
                    taken=sender.time_of_day(seconds),
                    pixel_hw=decoder.pixel_hw(picture),
                )
        raise Trouble(Cause.ENDED, "the server ended the stream")

    def _opened(self) -> InputContainer:
        begin, deadline = time.monotonic(), self._live.open_seconds
        self._resolve()
        try:
            try:
                return self._open_within(deadline - (time.monotonic() - begin))
            except av.HTTPOtherClientError:
                if self._options.pop("allowed_media_types", None) is None:
                    raise
                # A camera without video refuses to play nothing; ask what else it has.
                return self._open_within(deadline - (time.monotonic() - begin))
        except (av.FFmpegError, ValueError) as error:
            seconds = time.monotonic() - begin
            trouble = of_opening(error, self._address.scheme, seconds, deadline)
        raise trouble  # out here, so that the error with the secret in it is no part of it

    def _open_within(self, seconds: float) -> InputContainer:
        return av.open(
            self._address.opened.reveal(),
            "r",
            format="v4l2" if self._address.scheme == "v4l2" else None,
            options=self._options,
            metadata_errors="replace",
            timeout=(max(0.1, seconds), self._live.stall_seconds),
        )

    def _resolve(self) -> None:
        """Look the host up first, because FFmpeg does not tell this failure from others."""
        if self._address.host is None or self._address.scheme in _LISTENS:
            return
        try:
            socket.getaddrinfo(self._address.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # names that cannot be written in the DNS's own letters
            trouble = Trouble(Cause.DNS, f"there is no host {self._address.host!r}")
        else:
            return
        raise trouble

    def _packets(self, ledger: Ledger) -> Iterator[Packet[VideoStream]]:
        """The packets from the first keyframe on."""
        begin, started = time.monotonic(), False
        for packet in self._demuxed():
            if not started and packet.size:
                if not packet.is_keyframe and time.monotonic() - begin < _KEYFRAME_SECONDS:
                    ledger.count("before_keyframe")
                    ledger.sign_of_life()
                    self._hearing.of_loss()  # nothing was lost that anyone could have had
                    continue
                started = True
            yield packet

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        try:
            yield from self._container.demux(self._stream)
        except (av.FFmpegError, IndexError) as error:
            trouble = of_reading(error, self._live.stall_seconds)
        else:
            return
        raise trouble


def _video(container: InputContainer) -> VideoStream:
    """The stream to show: the largest that can be decoded, the first of several."""
    videos = [s for s in container.streams.video if not s.disposition & _NOT_A_VIDEO]
    if not videos:
        kinds = sorted({stream.type or "data" for stream in container.streams})
        raise Trouble(Cause.NO_VIDEO, f"no video comes, only {' and '.join(kinds) or 'nothing'}")
    decodable = [s for s in videos if isinstance(s.codec_context, VideoCodecContext)]
    if not decodable:
        raise Trouble(
            Cause.UNSUPPORTED_CODEC,
            f"this FFmpeg ({av.ffmpeg_version_info}) has no decoder for its video; "
            "set the camera to H.264 or H.265",
        )
    return max(decodable, key=lambda s: (s.width * s.height, -s.index))


@cache
def _left_over(scheme: str, names: tuple[str, ...]) -> list[str]:
    if scheme in ("udp", "v4l2"):  # listens, or takes any text
        return []
    return left_over(scheme, dict.fromkeys(names, ""))
