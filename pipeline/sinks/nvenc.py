"""Encoding on an NVIDIA GPU (NVENC): whether it opens here, and how it is asked for.

Not every card has one: data-centre chips such as A100 and H100 decode only. Others open a few
sessions at a time and refuse the next.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import cast

import av
import av.logging
from av.video.codeccontext import VideoCodecContext

from pipeline.errors import reason
from pipeline.ffmpeg_log import ffmpeg_log, first_of
from pipeline.gpu.driver import ENCODES, trouble_of_library

NVENC = "h264_nvenc"

# What x264's presets are there, roughly: both order what they offer from fast to thorough.
_LIKE_X264 = {
    "ultrafast": "p1",
    "superfast": "p1",
    "veryfast": "p2",
    "faster": "p3",
    "fast": "p3",
    "medium": "p4",
    "slow": "p5",
    "slower": "p6",
    "veryslow": "p7",
}
# Megapixels per second of one stream, up to which a preset is taken. Not measured: chosen low,
# for the oldest chips, and for several streams at once.
_UP_TO = {"p4": 130.0, "p2": 260.0}  # 1080p at 60 frames/s, and twice that

_OLD_DRIVER = "nvenc API version"  # is in what FFmpeg says where the driver is too old for it
_NEEDED_DRIVER = "minimum required Nvidia driver"  # is in what it says next


@cache
def trouble_of_nvenc() -> str | None:
    """Why no picture can be encoded on a GPU here; None if a trial opens. Tried once."""
    if NVENC not in av.codecs_available:
        return "this FFmpeg was built without NVENC"
    with ffmpeg_log(av.logging.ERROR) as lines:
        context = cast(VideoCodecContext, av.CodecContext.create(NVENC, "w"))
        context.width, context.height, context.pix_fmt = 640, 360, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.options = options("p4", 23, at_once=False)
        try:
            context.open()
        except av.FFmpegError as error:
            return _trouble_in(lines) or f"NVENC does not open ({reason(error)})"
    return None


def _trouble_in(lines: list[tuple[int, str, str]]) -> str | None:
    """What FFmpeg said, and what else is known of it; None where it said nothing."""
    said = first_of(lines)
    if ENCODES in said and (why := trouble_of_library(ENCODES)):
        return why
    if _OLD_DRIVER in said:
        said += "".join(f"; {first_of([line])}" for line in lines if _NEEDED_DRIVER in line[2])
    return f"NVENC does not open ({said})" if said else None


def remedy_of_nvenc(trouble: str) -> str:
    """What to do about a `trouble_of_nvenc`, as the end of a sentence."""
    if _OLD_DRIVER in trouble:
        return "install a newer driver (see nvidia-smi), or write auto"
    return (
        "look whether the card has an encoder (A100, H100 and the like have none), start the "
        "container with its video capability (NVIDIA_DRIVER_CAPABILITIES=compute,video,utility), "
        "or write auto"
    )


def choose_nvenc_preset(asked: str, size_hw: tuple[int, int], frames_per_second: float) -> str:
    """``p1`` (fast) to ``p7`` (thorough), for a preset of x264 or ``auto``."""
    if asked != "auto":
        return _LIKE_X264[asked]
    load = size_hw[0] * size_hw[1] / 1e6 * frames_per_second
    return next((name for name, most in _UP_TO.items() if load <= most), "p1")


def options(preset: str, crf: int, *, at_once: bool) -> dict[str, str]:
    """FFmpeg's options, for about the quality that x264 has with `crf`.

    A keyframe that was asked for is one that nothing refers across, and there are no B-frames.

    Args:
        preset: ``p1`` to ``p7``.
        crf: 0 (lossless) to 51.
        at_once: No picture waits inside.
    """
    chosen = {"preset": preset, "bf": "0", "forced-idr": "1"}
    if crf:
        chosen |= {"rc": "vbr", "cq": str(crf)}
        chosen |= {"tune": "ll"} if at_once else {}
    else:
        chosen |= {"tune": "lossless"}
    return chosen | ({"delay": "0", "zerolatency": "1"} if at_once else {})
