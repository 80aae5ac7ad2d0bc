"""Decode packets as well as there is time for."""

from __future__ import annotations

import logging
from contextlib import suppress
from enum import IntEnum
from typing import Literal, Protocol

import av
from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.errors import SourceError, without_frames
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.gpu_decoder import GpuDecoder, NotOnGpu
from pipeline.sources.live.frame_numbers import FrameNumbers
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.live.repair import Repair
from pipeline.sources.live.thrift import Need, Thrift
from pipeline.sources.pixel_shape import PixelShape

log = logging.getLogger(__name__)

SkipFrame = Literal["DEFAULT", "NONREF", "NONKEY"]

# Whose decoder can be set up anew from what stands in the stream, and has a loop filter.
_WITH_LOOP_FILTER = {"h264", "hevc", "vp8", "vp9", "mpeg4", "h263"}
_HEAD_BYTES = 8192  # of a packet; parameters and remarks come before the first slice


class DecodeEffort(IntEnum):
    """How well a camera's pictures are decoded; less effort gives fewer or rougher pictures."""

    FULL = 2
    NO_LOOP_FILTER = 1  # block edges stay visible, until the next keyframe more and more
    REFERENCES = 0  # pictures that no other is built on are left out, too


_SKIPS: dict[DecodeEffort, SkipFrame] = {
    DecodeEffort.FULL: "DEFAULT",
    DecodeEffort.NO_LOOP_FILTER: "DEFAULT",
    DecodeEffort.REFERENCES: "NONREF",
}


class Effort:
    """What one thread asks of another's decoder."""

    def __init__(self) -> None:
        self.level = DecodeEffort.FULL


class SignsOfLife(Protocol):
    """Learns that the stream goes on although no picture comes, and by what it is decoded."""

    def spared(self) -> None: ...
    def count(self, anomaly: str) -> None: ...
    def decoded_by(self, decoder: DecodedBy) -> None: ...


class Decoder:
    """Decodes one stream; `effort` may change at any time.

    Leaving out pictures takes effect with the next packet. The loop filter can only be chosen
    when a decoder is opened: at the next keyframe another one takes over. A GPU's filter cannot be
    left out, and costs nothing here.

    On a GPU, where that is possible and pays. Software takes over at a keyframe: the next one when
    the GPU's decoder has failed, and what comes before it is lost.

    Args:
        stream: What the packets belong to.
        threads: For the slices of a picture. (Several pictures at once would be delayed by as
            many pictures.)
        effort: What is asked for.
        hearing: Tells of losses that neither packets nor pictures show.
        thrift: Tells which pictures nobody would miss.
        gpu: Opens decoders on a GPU; None leaves it to software.
        name: What the stream is called where something is said of it.
    """

    def __init__(
        self,
        stream: VideoStream,
        threads: int,
        effort: Effort,
        hearing: Hearing,
        thrift: Thrift,
        gpu: GpuDecoding | None = None,
        name: str = "a camera",
    ) -> None:
        self._name = name
        self._stream, self._threads, self._effort = stream, threads, effort
        self._hearing, self._thrift = hearing, thrift
        self._pixel_shape = PixelShape(stream)
        self._filters = True
        self._context = self._prepared(stream.codec_context)
        self._numbers = _numbers_of(self._context)
        self._on_gpu: GpuDecoder | None = None
        self._why: NotOnGpu | None = None  # it is to leave the GPU, or was never there
        self._told: DecodedBy | None = None
        if gpu is not None:
            self._begin_on(gpu)

    def decode(
        self, packet: Packet[VideoStream], repair: Repair, ledger: SignsOfLife
    ) -> list[av.VideoFrame]:
        """The good pictures that a packet completes."""
        need = self._thrift.need(packet, reorders=self._context.has_b_frames)
        if need is Need.NOTHING:
            self._pass_over(packet, ledger)
            return []
        level = self._effort.level
        skips: SkipFrame = "NONKEY" if need is Need.KEYFRAME else _SKIPS[level]
        decoded, failed = self._left_behind(packet), False
        self._follow(level, skips, packet)
        try:
            decoded += self._decoded(packet)
        except av.EOFError:  # flushed already
            return []
        except NotOnGpu as why:
            self._why, failed = without_frames(why), True
        except av.FFmpegError:
            ledger.count("corrupt_packet")
            failed = True
        # All are asked, because each goes on from what it was told before.
        if any((failed, packet.is_corrupt, self._hearing.of_loss(), self._follows_a_gap(packet))):
            repair.lost_something(packet.pts)
        if decoded or failed:
            self._tell(ledger)
        if not decoded and skips != "DEFAULT":
            ledger.spared()
        return [picture for picture in decoded if repair.is_good(picture)]

    def _decoded(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        if self._on_gpu is None:
            return self._context.decode(packet if packet.size else None)
        if self._why is not None and self._why.is_failure:
            raise self._why  # until a keyframe comes
        pictures = self._on_gpu.decode(packet)
        self._why = self._on_gpu.why_leave
        return pictures

    def _begin_on(self, gpu: GpuDecoding) -> None:
        try:
            self._on_gpu = gpu.of_camera(self._stream)
        except NotOnGpu as why:
            self._why = without_frames(why)
        else:
            self._context = self._on_gpu.context

    def _left_behind(self, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
        """Leave the GPU, if that is due and a keyframe comes; return what was still in there."""
        if self._on_gpu is None or self._why is None or not packet.is_keyframe:
            return []
        rest = list[av.VideoFrame]()
        if not self._why.is_failure:
            with suppress(av.FFmpegError, SourceError):  # what it still held is lost with it
                rest = self._on_gpu.rest()
        self._on_gpu, self._context = None, self._prepared(self._stream.codec_context)
        return rest

    def _tell(self, ledger: SignsOfLife) -> None:
        """Say what decodes, when that has changed, and count a failure once."""
        codec = self._context.codec.name
        if self._on_gpu is not None and self._why is None:
            told = DecodedBy(codec, "gpu", self._on_gpu.words)
        else:
            told = DecodedBy(codec, "cpu", str(self._why or "as asked for"))
        if told == self._told:
            return
        self._told = told
        ledger.decoded_by(told)
        if self._why is not None and self._why.is_failure:
            ledger.count("gpu_decoder_failed")
            log.warning("%s: %s; it goes on in software", self._name, self._why)

    def pixel_hw(self, picture: av.VideoFrame) -> tuple[int, int]:
        """The shape of the pixels of a picture that was decoded last; see `PixelShape`."""
        return self._pixel_shape.of(picture, self._context)

    def begin_anew(self) -> None:
        """The next packet does not follow the last one."""
        self._context.flush_buffers()

    def _pass_over(self, packet: Packet[VideoStream], ledger: SignsOfLife) -> None:
        """Nothing is decoded, so nothing is damaged; only the count must not stop."""
        self._hearing.of_loss()
        self._follows_a_gap(packet)
        ledger.spared()

    def _follows_a_gap(self, packet: Packet[VideoStream]) -> bool:
        """Whether a picture is missing before this one, which the decoder would not notice."""
        if self._numbers is None or not packet.size:
            return False
        return self._numbers.is_one_missing_before(bytes(memoryview(packet)[:_HEAD_BYTES]))

    def _follow(self, level: DecodeEffort, skips: SkipFrame, packet: Packet[VideoStream]) -> None:
        filters = level is DecodeEffort.FULL
        if filters is not self._filters and packet.is_keyframe and self._can_change():
            fresh = av.CodecContext.create(self._context.codec, "r")
            assert isinstance(fresh, VideoCodecContext)
            fresh.extradata = self._stream.codec_context.extradata
            if not filters:
                fresh.options = {"skip_loop_filter": "all"}
            self._context, self._filters = self._prepared(fresh), filters
        if self._context.skip_frame != skips:
            self._context.skip_frame = skips

    def _can_change(self) -> bool:
        return self._on_gpu is None and self._context.codec.name in _WITH_LOOP_FILTER

    def _prepared(self, context: VideoCodecContext) -> VideoCodecContext:
        context.thread_type = "SLICE"
        context.thread_count = self._threads
        context.flags |= Flags.output_corrupt  # hand damaged pictures over, so they are counted
        return context


def _numbers_of(context: VideoCodecContext) -> FrameNumbers | None:
    """What counts the pictures of a stream; None where they cannot be counted."""
    extradata = context.extradata or b""
    # From FLV and MP4, lengths stand before the units: one of 256 to 511 looks like a start code.
    if context.codec.name != "h264" or extradata.startswith(b"\x01"):
        return None
    return FrameNumbers(extradata)
