"""A number and a time as a strip of light and dark blocks that survives any video codec.

The strip stands in the top left corner of a picture: four rows of twenty square blocks. The first
and the last column are guards (chequered, and the left inverted on the right); between them stand
24 bits of the picture's number, 32 bits of a clock in milliseconds, and 16 check bits.

Needs no package: the tests' cameras run on the system's Python. `pipeline.sources.painted` paints
it into pictures and reads it back.
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


def has_room(height: int, width: int) -> bool:
    """Whether a picture of that size can hold a strip."""
    side = block_pixels(height)
    return height >= ROWS * side and width >= COLUMNS * side


def blocks(number: int, clock_ms: int) -> Bits:
    """Four rows of twenty blocks that stand for both; True is light."""
    content = (number % (1 << NUMBER_BITS)) << CLOCK_BITS | clock_ms % (1 << CLOCK_BITS)
    check = zlib.crc32(content.to_bytes(8, "big")) & ((1 << CHECK_BITS) - 1)
    total = NUMBER_BITS + CLOCK_BITS + CHECK_BITS
    word = [bool((content << CHECK_BITS | check) >> place & 1) for place in reversed(range(total))]
    wide = COLUMNS - 2
    rows = [word[row * wide : (row + 1) * wide] for row in range(ROWS)]
    return [[row % 2 == 0, *bits, row % 2 == 1] for row, bits in enumerate(rows)]
