"""Which encoder, how hard it tries, and how many threads it gets; pictures in, packets out."""

from __future__ import annotations

import io
import logging
from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from pipeline.errors import reason
from pipeline.frame import Result
from pipeline.settings import VideoSettings
from pipeline.sinks.encoder_choice import (
    choose_encoder,
    choose_preset,
    software_encoder,
    why_encoder,
)
from pipeline.sinks.nvenc import NVENC, choose_nvenc_preset, options
from pipeline.yuv import Colours, fitted, own_yuv420p, stamped

log = logging.getLogger(__name__)

_FASTEST_LINE = 100.0  # frames/s; a recording is not held back below this by its encoder

# What `ultrafast` leaves out but costs next to nothing: together +25 % time, -20 % bytes, +1 dB.
_ULTRAFAST_EXTRAS = "deblock=0,0:subme=1"

_MPEG4_LARGEST_DENOMINATOR = 65_535  # of its time base


@dataclass(frozen=True)
class Encoding:
    """One way to encode.

    Attributes:
        encoder: FFmpeg's name of it.
        why: Why that one.
        preset: Of x264 or NVENC; None for others.
        extras: More of x264's own parameters, ``name=value`` joined by colons.
        crf: Quality of x264, or as good.
        threads: Of the encoder.
        keyframe_every: Frames from one keyframe to the next, at most.
        rate: Frames/s, roughly; frames carry their own time.
        at_once: No picture waits inside the encoder, and every keyframe says all that whoever
            joins there needs to know.
        otherwise: What to take where this one does not open.
        refused: Why the one before this did not open, if there was one.
    """

    encoder: str
    why: str
    preset: str | None
    extras: str
    crf: int
    threads: int
    keyframe_every: int
    rate: Fraction
    at_once: bool = False
    otherwise: Encoding | None = None
    refused: str | None = None

    @classmethod
    def choose(
        cls,
        settings: VideoSettings,
        size_hw: tuple[int, int],
        rate: Fraction | None,
        *,
        live: bool,
        cores: int,
        at_once: bool = False,
    ) -> Encoding:
        """What the settings ask for; where they say ``auto``, what this machine can carry."""
        encoder = choose_encoder(settings.encoder)
        pace = rate if rate and 1 <= rate <= 240 else Fraction(25)
        aim = float(pace) if live else _FASTEST_LINE
        preset, extras = str(settings.preset), ""
        if preset == "auto":
            preset = choose_preset(size_hw, aim, cores)
            extras = _ULTRAFAST_EXTRAS if preset == "ultrafast" else ""
        software = encoder if encoder != NVENC else software_encoder()
        is_x264 = software == "libx264"
        chosen = cls(
            encoder=software,
            why=why_encoder(settings.encoder),
            preset=preset if is_x264 else None,
            extras=extras if is_x264 else "",
            crf=settings.crf,
            threads=max(1, min(8, cores // 2)),  # the other half is for the engine
            keyframe_every=max(1, round(settings.keyframe_seconds * pace)),
            rate=pace,
            at_once=at_once,
        )
        if encoder != NVENC:
            return chosen
        preset = choose_nvenc_preset(settings.preset, size_hw, aim)
        return replace(chosen, encoder=NVENC, preset=preset, extras="", otherwise=chosen)

    def configure(
        self, context: VideoCodecContext, size_hw: tuple[int, int], time_base: Fraction
    ) -> None:
        """Prepare FFmpeg's encoder. No B-frames: a frame that was written is soon on the disk."""
        context.height, context.width = size_hw
        context.pix_fmt = "yuv420p"
        context.time_base = self.clock(time_base)
        context.thread_count = self.threads
        context.gop_size = self.keyframe_every
        context.flags |= Flags.frame_duration  # else the last picture's length is guessed
        if not self.at_once:
            context.flags |= Flags.global_header  # what files hold once, at their beginning
        context.options = {"bf": "0"}
        if self.encoder == NVENC:
            context.options = options(str(self.preset), self.crf, at_once=self.at_once)
        elif self.encoder == "libx264":
            # A keyframe that was asked for must be one that nothing refers across.
            context.options |= {"preset": str(self.preset), "crf": str(self.crf), "forced-idr": "1"}
            context.options |= {"tune": "zerolatency"} if self.at_once else {}
            if self.extras:
                context.options |= {"x264-params": self.extras}
        else:
            context.qmin = context.qmax = self._quantiser

    def facts(self) -> dict[str, Any]:
        """For the report: encoder and why, preset and crf where it has them."""
        facts: dict[str, Any] = {"encoder": self.encoder, "encoder_why": self.why}
        facts |= {"encoder_refused": self.refused} if self.refused else {}
        return facts | ({"preset": self.preset, "crf": self.crf} if self.preset else {})

    def clock(self, time_base: Fraction) -> Fraction:
        """The encoder's own time base; MPEG-4 cannot count in very small units."""
        if self.encoder == "mpeg4" and time_base.denominator > _MPEG4_LARGEST_DENOMINATOR:
            return Fraction(1, 60_000)
        return time_base

    @property
    def _quantiser(self) -> int:
        """MPEG-4's 1 (best) to 31, about as good as x264's crf."""
        return max(1, min(31, round(2 ** ((self.crf - 12) / 5))))


def tag(context: VideoCodecContext, picture: av.VideoFrame) -> None:
    """Write into the stream what its colours mean."""
    colours = Colours.of(picture)
    context.colorspace, context.color_range = colours.matrix, colours.range
    context.color_primaries = picture.color_primaries
    context.color_trc = picture.color_trc


def picture_of(result: Result) -> av.VideoFrame:
    """What is to be seen of a result: the drawing, or a copy of the frame; yuv420p, even size."""
    if result.annotated is not None:
        return result.annotated
    return stamped(own_yuv420p(result.frame.in_memory), result.frame.pts, result.frame.time_base)


def start(
    encoding: Encoding, picture: av.VideoFrame, time_base: Fraction
) -> tuple[OutputContainer, VideoStream]:
    """Open FFmpeg's encoder for pictures like the given one; `av.FFmpegError` if it refuses."""
    # PyAV copies the facts of a stream from another stream only: this one leads nowhere.
    nowhere = av.open(io.BytesIO(), "w", format="null")
    stream = cast(VideoStream, nowhere.add_stream(encoding.encoder, encoding.rate))
    encoding.configure(stream.codec_context, (picture.height, picture.width), time_base)
    tag(stream.codec_context, picture)
    stream.time_base = time_base
    nowhere.start_encoding()
    return nowhere, stream


def _begun(
    encoding: Encoding, picture: av.VideoFrame, time_base: Fraction
) -> tuple[OutputContainer, VideoStream, Encoding]:
    """The encoder, or the one to take otherwise, and which it is."""
    try:
        return *start(encoding, picture, time_base), encoding
    except av.FFmpegError as error:
        if encoding.otherwise is None:
            raise
        size = f"{picture.width}x{picture.height}"
        why = f"{encoding.encoder} does not open for {size} now ({reason(error)})"
    # Most likely more sessions are open than the card allows.
    log.warning("%s; encoding with %s", why, encoding.otherwise.encoder)
    return _begun(replace(encoding.otherwise, why=why, refused=why), picture, time_base)


class Encoder:
    """Pictures in, packets out; where those go is decided packet by packet.

    The first picture decides size and colours; later ones are fitted to it. There is one packet
    for each picture, in order: no encoding here has B-frames.

    Attributes:
        encoding: How it is encoded, after all.

    Args:
        picture: The first picture; it is not encoded yet.
        time_base: Seconds per unit of the packets' times.
        encoding: How to encode.
    """

    def __init__(self, picture: av.VideoFrame, time_base: Fraction, encoding: Encoding) -> None:
        self.size_hw = (picture.height, picture.width)
        self.colours = Colours.of(picture)
        self.time_base = time_base
        self.resized = 0
        self._times: deque[int] = deque()  # of pictures inside an encoder with a coarser clock
        self._last_pts: int | None = None
        self._nowhere, self._stream, self.encoding = _begun(encoding, picture, time_base)
        self._clock = self.encoding.clock(time_base)

    @property
    def template(self) -> VideoStream:
        """For `OutputContainer.add_stream_from_template`."""
        return self._stream

    def fits(self, picture: av.VideoFrame) -> bool:
        """Tell whether the picture can be encoded as large as it is."""
        return (picture.height, picture.width) == self.size_hw

    def encode(
        self, picture: av.VideoFrame, *, keyframe: bool = False
    ) -> list[av.Packet[VideoStream]]:
        """Encode a picture, which is not written to; return what falls out.

        Args:
            keyframe: Make this a picture from which playing can begin.
        """
        if not self.fits(picture):
            self.resized += 1
        if not self.fits(picture) or Colours.of(picture) != self.colours:
            picture = fitted(picture, self.size_hw, self.colours)
        timed = self._timed(picture, keyframe)
        return self._restored(self._stream.encode(timed))

    def flush(self) -> list[av.Packet[VideoStream]]:
        """What is still inside; nothing can be encoded afterwards."""
        return self._restored(self._stream.encode(None))

    def _timed(self, picture: av.VideoFrame, keyframe: bool) -> av.VideoFrame:
        """The picture on our clock, later than the last one."""
        pts, time_base = picture.pts, picture.time_base
        assert pts is not None and time_base is not None, "pictures come with their time"
        placed = pts if time_base == self.time_base else round(pts * time_base / self.time_base)
        if self._last_pts is not None and placed <= self._last_pts:
            placed = self._last_pts + 1
        self._last_pts = placed
        if self._clock != self.time_base:
            self._times.append(placed)
            placed = round(placed * self.time_base / self._clock)
        if (placed, self._clock) == (pts, time_base) and not keyframe:
            return picture
        own = stamped(own_yuv420p(picture), placed, self._clock)
        own.pict_type = PictureType.I if keyframe else PictureType.NONE
        return own

    def _restored(self, packets: list[av.Packet[VideoStream]]) -> list[av.Packet[VideoStream]]:
        """The packets with the exact times of their pictures."""
        for packet in packets:
            if self._times:
                packet.pts = packet.dts = self._times.popleft()
                packet.duration = round((packet.duration or 0) * self._clock / self.time_base)
                packet.time_base = self.time_base
        return packets
