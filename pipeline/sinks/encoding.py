"""One way to encode: which encoder, how hard it tries, and how many threads it gets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from pipeline.gpu.pictures import ON_GPU
from pipeline.placement import SQUARE
from pipeline.settings import VideoSettings
from pipeline.sinks.encoder_choice import (
    choose_encoder,
    choose_preset,
    software_encoder,
    why_encoder,
)
from pipeline.sinks.nvenc import NVENC, choose_nvenc_preset, options
from pipeline.yuv import Colours

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
        pixel_hw: The shape of the pixels, see `Frame`.
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
    pixel_hw: tuple[int, int] = SQUARE
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
        pixel_hw: tuple[int, int] = SQUARE,
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
            pixel_hw=pixel_hw,
            at_once=at_once,
        )
        if encoder != NVENC:
            return chosen
        preset = choose_nvenc_preset(settings.preset, size_hw, aim)
        return replace(chosen, encoder=NVENC, preset=preset, extras="", otherwise=chosen)

    def configure(
        self,
        context: VideoCodecContext,
        size_hw: tuple[int, int],
        time_base: Fraction,
        *,
        on_gpu: bool = False,
    ) -> None:
        """Prepare FFmpeg's encoder. No B-frames: a frame that was written is soon on the disk."""
        context.height, context.width = size_hw
        if self.pixel_hw != SQUARE:  # of square ones nothing is said
            height, width = self.pixel_hw
            context.sample_aspect_ratio = Fraction(width, height)
        context.pix_fmt = "yuv420p"
        if on_gpu:
            context.pix_fmt, context.sw_format = ON_GPU, "nv12"
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
