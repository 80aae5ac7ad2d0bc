"""Which encoder, how hard it tries, and how many threads it gets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

import av
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from pipeline.errors import ConfigError
from pipeline.settings import VideoSettings
from pipeline.yuv import Colours

# CPU milliseconds for a million pixels, measured on recorded drives at crf 23; only the ratio to
# the machine's cores matters, and only roughly.
_COST_MS = {"veryfast": 9.0, "superfast": 6.0}
_SHARE = 0.1  # of the machine's cores that encoding may take
_FASTEST_LINE = 100.0  # frames/s; a recording is not held back below this by its encoder

# What `ultrafast` leaves out but costs next to nothing: together +25 % time, -20 % bytes, +1 dB.
_ULTRAFAST_EXTRAS = "deblock=0,0:subme=1"

_MPEG4_LARGEST_DENOMINATOR = 65_535  # of its time base


@dataclass(frozen=True)
class Encoding:
    """One way to encode.

    Attributes:
        encoder: FFmpeg's name of it.
        preset: Of x264; None for others.
        extras: More of x264's own parameters, ``name=value`` joined by colons.
        crf: Quality of x264.
        threads: Of the encoder.
        keyframe_every: Frames from one keyframe to the next, at most.
        rate: Frames/s, roughly; frames carry their own time.
    """

    encoder: str
    preset: str | None
    extras: str
    crf: int
    threads: int
    keyframe_every: int
    rate: Fraction

    @classmethod
    def choose(
        cls,
        settings: VideoSettings,
        size_hw: tuple[int, int],
        rate: Fraction | None,
        *,
        live: bool,
        cores: int,
    ) -> Encoding:
        """What the settings ask for; where they say ``auto``, what this machine can carry."""
        encoder = choose_encoder(settings.encoder)
        pace = rate if rate and 1 <= rate <= 240 else Fraction(25)
        preset, extras = str(settings.preset), ""
        if preset == "auto":
            preset = choose_preset(size_hw, float(pace) if live else _FASTEST_LINE, cores)
            extras = _ULTRAFAST_EXTRAS if preset == "ultrafast" else ""
        is_x264 = encoder == "libx264"
        return cls(
            encoder=encoder,
            preset=preset if is_x264 else None,
            extras=extras if is_x264 else "",
            crf=settings.crf,
            threads=max(1, min(8, cores // 2)),  # the other half is for the engine
            keyframe_every=max(1, round(settings.keyframe_seconds * pace)),
            rate=pace,
        )

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
        context.options = {"bf": "0"}
        if self.encoder == "libx264":
            context.options |= {"preset": str(self.preset), "crf": str(self.crf)}
            if self.extras:
                context.options |= {"x264-params": self.extras}
        else:
            context.qmin = context.qmax = self._quantiser

    def clock(self, time_base: Fraction) -> Fraction:
        """The encoder's own time base; MPEG-4 cannot count in very small units."""
        if self.encoder == "mpeg4" and time_base.denominator > _MPEG4_LARGEST_DENOMINATOR:
            return Fraction(1, 60_000)
        return time_base

    @property
    def _quantiser(self) -> int:
        """MPEG-4's 1 (best) to 31, about as good as x264's crf."""
        return max(1, min(31, round(2 ** ((self.crf - 12) / 5))))


def choose_encoder(wanted: str, available: Collection[str] = frozenset(av.codecs_available)) -> str:
    """``auto``: H.264, which every browser plays; MPEG-4 part 2 where x264 is missing."""
    if wanted == "auto":
        return "libx264" if "libx264" in available else "mpeg4"
    if wanted not in available:
        raise ConfigError(
            f"video.encoder: this FFmpeg has no {wanted}; install the av package from the "
            "Python index, which brings one, or set video.encoder to auto"
        )
    return wanted


def choose_preset(size_hw: tuple[int, int], frames_per_second: float, cores: int) -> str:
    """The most thorough x264 preset that leaves the machine free for everything else."""
    budget_ms = _SHARE * cores * 1000 / frames_per_second
    megapixels = size_hw[0] * size_hw[1] / 1e6
    fitting = (name for name, cost in _COST_MS.items() if cost * megapixels <= budget_ms)
    return next(fitting, "ultrafast")


def tag(context: VideoCodecContext, picture: av.VideoFrame) -> None:
    """Write into the stream what its colours mean."""
    colours = Colours.of(picture)
    context.colorspace, context.color_range = colours.matrix, colours.range
    context.color_primaries = picture.color_primaries
    context.color_trc = picture.color_trc
