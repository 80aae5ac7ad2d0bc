"""What the FFmpeg inside PyAV can read, write and receive, and whether a GPU helps it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import av
from av.codec.hwaccel import hwdevices_available

from pipeline.checkup.anonymous import anonymous
from pipeline.checkup.isolation import Finding
from pipeline.errors import reason

Mode = Literal["r", "w"]  # decodes, encodes

# What is meant -> any of these does it. FFmpeg's own "av1" only drives a GPU.
DECODERS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "av1": ("libdav1d", "libaom-av1", "libgav1"),
    "vp9": ("vp9", "libvpx-vp9"),
    "mpeg4": ("mpeg4",),
    "mjpeg": ("mjpeg",),
}
ENCODERS = ("libx264", "mpeg4")
PROTOCOLS = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt")
ON_THE_GPU: dict[str, Mode] = {
    "h264_cuvid": "r",
    "hevc_cuvid": "r",
    "av1_cuvid": "r",
    "h264_nvenc": "w",
}


def look_at_ffmpeg() -> Finding:
    """Versions, and which of the decoders, encoders and protocols that boxstream uses are there."""
    return {
        "pyav": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "decoders": {
            name: any(has_codec(c, "r") for c in any_of) for name, any_of in DECODERS.items()
        },
        "encoders": {name: has_codec(name, "w") for name in ENCODERS},
        "protocols": {name: has_protocol(name) for name in PROTOCOLS},
        "hardware_types": list(hwdevices_available()),
        "on_the_gpu": {name: has_codec(name, mode) for name, mode in ON_THE_GPU.items()},
    }


def open_on_gpu(names: list[str]) -> Finding:
    """For each of the GPU's codecs None if it opens, else why not; only where a driver is."""
    return {"codecs": {name: _trouble_of_opening(name) for name in names}}


def has_codec(name: str, mode: Mode) -> bool:
    """Whether FFmpeg was built with a decoder or an encoder of that name."""
    try:
        av.codec.Codec(name, mode)
    except ValueError:
        return False
    return True


def has_protocol(scheme: str) -> bool:
    """Whether FFmpeg was built with it. No connection is made: none is allowed to be."""
    try:
        av.open(f"{scheme}://127.0.0.1:9/", options={"protocol_whitelist": "none"}).close()
    except av.ProtocolNotFoundError:
        return False
    except (av.FFmpegError, ValueError):
        return True
    return True


def _trouble_of_opening(name: str) -> str | None:
    mode = ON_THE_GPU[name]
    context: Any = av.codec.CodecContext.create(av.codec.Codec(name, mode), mode)
    if mode == "w":
        context.width, context.height, context.pix_fmt = 640, 360, "yuv420p"
        context.time_base = Fraction(1, 25)
    try:
        context.open()
    except (av.FFmpegError, ValueError) as error:
        return anonymous(reason(error))
    return None
