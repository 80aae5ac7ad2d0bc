"""Small video files made on the spot, with a number painted into every frame."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

COUNTER_BITS = 8
_QUICK = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error:pools=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def write_clip(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    fps: Fraction | int = 25,
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    keyframe_every: int = 6,
    timestamps: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int | None = None,
    pixel_aspect: Fraction | None = None,
    audio_delay: float | None = None,
    with_video: bool = True,
    options: dict[str, str] | None = None,
    movflags: str = "",
) -> Path:
    """Write `frames` pictures of `numbered_picture` to `path`; return it.

    Args:
        size: Width and height.
        timestamps: Of the frames in units of `time_base`; default: 0, 1, 2... at `fps`.
        rotation: Degrees, counter-clockwise, written as the display matrix.
        pixel_aspect: Width of a pixel for its height, as the encoder is told.
        audio_delay: Adds a tone of the same length that begins this many seconds after 0.
        with_video: False leaves only the tone.
        options: For the encoder.
        movflags: For MP4, such as ``faststart``.
    """
    time_base = time_base or 1 / Fraction(fps)
    container_options = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", format=container, options=container_options) as output:
        sound = None if audio_delay is None else output.add_stream("aac", rate=48000)
        if with_video:
            stream = output.add_stream(codec, rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            stream.options = {"g": str(keyframe_every)} | _QUICK.get(codec, {}) | (options or {})
            stream.codec_context.thread_count = 1  # on a busy machine threads only wait
            stream.codec_context.time_base = time_base
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for index in range(frames):
                picture = as_frame(numbered_picture(index, size), pix_fmt)
                picture.pts = timestamps[index] if timestamps else index
                picture.time_base = time_base
                output.mux(stream.encode(picture))
            output.mux(stream.encode(None))
        if sound is not None:
            _write_tone(output, sound, Fraction(frames) / fps, audio_delay or 0.0)
    return path


def numbered_picture(number: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB: eight bands that hold `number` in binary, and colour below."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(40, 200, width).astype(np.uint8)
    picture[..., 1] = np.linspace(60, 180, height).astype(np.uint8)[:, None]
    picture[..., 2] = 30 + 10 * (number % 16)
    edges = np.linspace(0, width, COUNTER_BITS + 1).astype(int)
    for bit, (left, right) in enumerate(pairwise(edges)):
        picture[: height // 2, left:right] = 255 if number >> bit & 1 else 0
    return picture


def read_number(picture: av.VideoFrame) -> int:
    """The number that `numbered_picture` painted."""
    grey = picture.to_ndarray(format="gray")
    height, width = grey.shape
    edges = np.linspace(0, width, COUNTER_BITS + 1).astype(int)
    middles = (edges[:-1] + edges[1:]) // 2
    return sum(int(grey[height // 4, x] > 127) << bit for bit, x in enumerate(middles))


def as_frame(rgb: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    """An RGB picture in any pixel format."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    return frame if pix_fmt == "rgb24" else frame.reformat(format=pix_fmt, threads=1)


def _write_tone(
    output: av.container.OutputContainer, stream: av.AudioStream, seconds: Fraction, delay: float
) -> None:
    rate, block = 48000, 1024
    for start in range(0, max(block, int(seconds * rate)), block):
        wave = np.sin(np.arange(start, start + block) * 0.3)[None].astype(np.float32) * 0.2
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, start + int(delay * rate)
        frame.time_base = Fraction(1, rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
