"""Which encoder, why, and how hard it tries."""

from __future__ import annotations

from collections.abc import Collection

import av

from pipeline.errors import ConfigError
from pipeline.sinks.nvenc import NVENC, remedy_of_nvenc, trouble_of_nvenc

# CPU milliseconds for a million pixels, measured on recorded drives at crf 23; only the ratio to
# the machine's cores matters, and only roughly.
_COST_MS = {"veryfast": 9.0, "superfast": 6.0}
_SHARE = 0.1  # of the machine's cores that encoding may take


def choose_encoder(wanted: str, available: Collection[str] = frozenset(av.codecs_available)) -> str:
    """``auto``: H.264, which every browser plays, on a GPU where one opens.

    Args:
        wanted: What the settings say.
        available: What FFmpeg was built with.

    Raises:
        ConfigError: What is wanted is not there.
    """
    if wanted == "auto":
        on_gpu = NVENC in available and not trouble_of_nvenc()
        return NVENC if on_gpu else software_encoder(available)
    if wanted not in available:
        raise ConfigError(
            f"video.encoder: this FFmpeg has no {wanted}; install the av package from the "
            "Python index, which brings one, or set video.encoder to auto"
        )
    if wanted == NVENC and (why := trouble_of_nvenc()):
        raise ConfigError(
            f"video.encoder: {NVENC} was asked for, but {why}; {remedy_of_nvenc(why)}"
        )
    return wanted


def software_encoder(available: Collection[str] = frozenset(av.codecs_available)) -> str:
    """H.264; MPEG-4 part 2 where x264 is missing."""
    return "libx264" if "libx264" in available else "mpeg4"


def why_encoder(wanted: str) -> str:
    """The reason for what `choose_encoder` says."""
    if wanted != "auto":
        return "as asked for"
    return trouble_of_nvenc() or "NVENC opens, and leaves the cores to others"


def choose_preset(size_hw: tuple[int, int], frames_per_second: float, cores: int) -> str:
    """The most thorough x264 preset that leaves the machine free for everything else."""
    budget_ms = _SHARE * cores * 1000 / frames_per_second
    megapixels = size_hw[0] * size_hw[1] / 1e6
    fitting = (name for name, cost in _COST_MS.items() if cost * megapixels <= budget_ms)
    return next(fitting, "ultrafast")
