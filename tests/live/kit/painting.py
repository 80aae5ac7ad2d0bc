"""Paint a number and a time into a raw picture: the camera's side, without any package.

A strip of square blocks stands in the top left corner: four rows of twenty. The first two columns
are guards (chequered, and the rest on the left inverted on the right), between them stand 24 bits
of the picture's number, 32 bits of `time.monotonic()` in milliseconds, and 16 check bits. On one
machine that clock is the same for all programs, so the age of a picture can be told from its
pixels alone. `reading.py` is the other side.
"""

from __future__ import annotations

import zlib

ROWS, COLUMNS = 4, 20
NUMBER_BITS, CLOCK_BITS, CHECK_BITS = 24, 32, 16
DARK, LIGHT = 16, 235
Bits = list[list[bool]]


def block_pixels(height: int) -> int:
    """The side of a block for a picture of that height; even, so that chroma fits."""
    return max(6, 2 * round(height / 90))


def blocks(number: int, clock_ms: int) -> Bits:
    """Four rows of twenty blocks that stand for both; True is light."""
    content = (number % (1 << NUMBER_BITS)) << CLOCK_BITS | clock_ms % (1 << CLOCK_BITS)
    check = zlib.crc32(content.to_bytes(8, "big")) & ((1 << CHECK_BITS) - 1)
    total = NUMBER_BITS + CLOCK_BITS + CHECK_BITS
    word = [bool((content << CHECK_BITS | check) >> place & 1) for place in reversed(range(total))]
    wide = COLUMNS - 2
    rows = [word[row * wide : (row + 1) * wide] for row in range(ROWS)]
    return [[row % 2 == 0, *bits, row % 2 == 1] for row, bits in enumerate(rows)]


class Painter:
    """Moving pictures in I420, cheap enough for many cameras on one core.

    Args:
        width, height: Even, and at least 120 x 24, which the strip takes.
    """

    def __init__(self, width: int, height: int) -> None:
        if width % 2 or height % 2 or width < COLUMNS * block_pixels(height):
            raise ValueError(f"cannot paint a strip into {width}x{height}")
        self.width, self.height = width, height
        # Taller than the picture: a window that moves down it is a scene that moves up.
        self._tall = bytes(
            40 + (x * 3 // 2 + 37 * ((x // 16 + y // 16) % 2) + y // 2) % 160
            for y in range(2 * height)
            for x in range(width)
        )
        quarter = width * height // 4
        self._chroma = bytes([120]) * quarter + bytes([136]) * quarter

    def picture(self, number: int, clock_ms: int) -> bytes:
        """The planes Y, U, V of one picture, one after the other."""
        top = number * 2 % self.height * self.width
        luma = bytearray(self._tall[top : top + self.width * self.height])
        side = block_pixels(self.height)
        for row, bits in enumerate(blocks(number, clock_ms)):
            line = b"".join(bytes([LIGHT if bit else DARK]) * side for bit in bits)
            for y in range(row * side, (row + 1) * side):
                luma[y * self.width : y * self.width + len(line)] = line
        return bytes(luma) + self._chroma
