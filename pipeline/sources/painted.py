"""Paint a clock into pictures and read it back, to measure from glass to sink.

See `pipeline.painted_clock` for what it looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

from pipeline.gpu.pictures import is_on_gpu, luma_corner
from pipeline.painted_clock import (
    CHECK_BITS,
    CLOCK_BITS,
    COLUMNS,
    DARK,
    LIGHT,
    NUMBER_BITS,
    ROWS,
    block_pixels,
    blocks,
)

Luma = npt.NDArray[np.uint8]

_LEAST_CONTRAST = 60.0
_GREY = 128


class Unreadable(ValueError):
    """There is no strip, or it is damaged."""


@dataclass(frozen=True)
class Painted:
    """What stands in a picture.

    Attributes:
        number: Of the picture, modulo 2**24.
        clock_ms: The painter's clock when it painted, in ms, modulo 2**32 (49.7 days).
    """

    number: int
    clock_ms: int

    def age_at(self, now: float) -> float:
        """Seconds from painting until `now` on the same clock; negative: from the future."""
        behind = (round(now * 1000) - self.clock_ms) % (1 << CLOCK_BITS)
        return (behind - (1 << CLOCK_BITS) if behind >> (CLOCK_BITS - 1) else behind) / 1000


def paint(picture: av.VideoFrame, number: int, clock_ms: int) -> None:
    """Paint both over the corner of a yuv420p picture that has room and may be written to."""
    side = block_pixels(picture.height)
    light = np.array(blocks(number, clock_ms)).repeat(side, 0).repeat(side, 1)
    for plane, step in zip(picture.planes, (1, 2, 2), strict=True):
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        corner = pixels[: ROWS * side // step, : COLUMNS * side // step]
        corner[:] = np.where(light, LIGHT, DARK) if step == 1 else _GREY


def read_picture(picture: av.VideoFrame) -> Painted:
    """Read the strip of a picture in any format; `Unreadable` as in `read_painted`."""
    if is_on_gpu(picture):
        side = block_pixels(picture.height)
        return _read(luma_corner(picture, ROWS * side, COLUMNS * side), side)
    shape, luma = picture.format, picture.planes[0]
    if not shape.is_planar or shape.is_rgb or shape.components[0].bits != 8:
        return read_painted(np.asarray(picture.to_ndarray(format="gray"), np.uint8))
    pixels = np.frombuffer(memoryview(luma), np.uint8).reshape(luma.height, luma.line_size)
    return read_painted(pixels[:, : luma.width])


def read_painted(luma: Luma) -> Painted:
    """Read the strip of a picture (H, W) of luma or grey, in the size it was sent in.

    Raises:
        Unreadable: Nothing that passes its own check stands there.
    """
    side = block_pixels(luma.shape[0])
    return _read(luma[: ROWS * side, : COLUMNS * side], side)


def _read(strip: Luma, side: int) -> Painted:
    """From the place where it stands, in blocks of so many pixels."""
    if strip.shape != (ROWS * side, COLUMNS * side):
        raise Unreadable("the picture has no room for a strip")
    inside = slice(side // 4, side - side // 4)  # coding blurs the edges
    means = strip.reshape(ROWS, side, COLUMNS, side)[:, inside, :, inside].mean(axis=(1, 3))
    guards = np.array(blocks(0, 0))[:, [0, -1]]
    light, dark = means[:, [0, -1]][guards], means[:, [0, -1]][~guards]
    if light.min() - dark.max() < _LEAST_CONTRAST:
        raise Unreadable("no strip in the top left corner")
    bits = means > (light.mean() + dark.mean()) / 2
    word = int("".join("01"[bit] for bit in bits[:, 1:-1].ravel().astype(int)), 2)
    number, clock_ms = word >> (CLOCK_BITS + CHECK_BITS), word >> CHECK_BITS & (1 << CLOCK_BITS) - 1
    if not np.array_equal(bits, np.array(blocks(number % (1 << NUMBER_BITS), clock_ms))):
        raise Unreadable("the strip fails its check")
    return Painted(number, clock_ms)
