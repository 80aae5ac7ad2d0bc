"""Read back what `painting.py` painted, after coding, transport and decoding."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.live.kit.painting import (
    CHECK_BITS,
    CLOCK_BITS,
    COLUMNS,
    NUMBER_BITS,
    ROWS,
    block_pixels,
    blocks,
)

_LEAST_CONTRAST = 60.0


class Unreadable(ValueError):
    """There is no strip, or it is damaged."""


@dataclass(frozen=True)
class Painted:
    """What stands in a picture.

    Attributes:
        number: Of the picture, counted by the camera since its process began.
        clock_ms: The camera's `time.monotonic()` when it painted, in ms, modulo 2**32.
    """

    number: int
    clock_ms: int

    @property
    def age_seconds(self) -> float:
        """How long ago the picture was painted."""
        return self.age_at(time.monotonic())

    def age_at(self, now: float) -> float:
        """Seconds from painting until `now` (monotonic); negative would be from the future."""
        behind = (round(now * 1000) - self.clock_ms) % (1 << CLOCK_BITS)
        return (behind - (1 << CLOCK_BITS) if behind >> (CLOCK_BITS - 1) else behind) / 1000


def read_painted(luma: npt.NDArray[np.uint8]) -> Painted:
    """Read the strip of a picture (H, W) of luma or grey, in the size it was sent in.

    Raises:
        Unreadable: Nothing that passes its own check stands there.
    """
    side = block_pixels(luma.shape[0])
    strip = luma[: ROWS * side, : COLUMNS * side]
    if strip.shape != (ROWS * side, COLUMNS * side):
        raise Unreadable(f"a picture of {luma.shape} has no room for a strip")
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
