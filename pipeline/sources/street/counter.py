"""A frame counter painted into a corner of a picture, readable after lossy video coding.

Three rows of square blocks stand in the bottom left corner. The outer columns are guards (white,
black, white on the left; black, white, black on the right) and give the reader the two levels;
the twelve columns between them hold 24 bits of the frame index and 12 check bits.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

ROWS, COLUMNS = 3, 14
INDEX_BITS, CHECK_BITS = 24, 12
DARK, _LIGHT = 16, 235
_LEAST_CONTRAST = 60.0


def block_pixels(height: int) -> int:
    """Give the side of one block for a picture of that height (4 pixels fit 64 x 64)."""
    return max(4, round(height / 72))


def _pattern(index: int) -> npt.NDArray[np.bool_]:
    """Give the blocks (3, 14) that stand for ``index``; True is white."""
    check = zlib.crc32(b"boxstream" + index.to_bytes(3, "big")) & 0xFFF
    word = (index << CHECK_BITS) | check
    bits = [bool(word >> place & 1) for place in reversed(range(INDEX_BITS + CHECK_BITS))]
    blocks = np.zeros((ROWS, COLUMNS), dtype=np.bool_)
    blocks[:, 1:-1] = np.array(bits).reshape(ROWS, COLUMNS - 2)
    blocks[:, 0] = (True, False, True)
    blocks[:, -1] = (False, True, False)
    return blocks


def paint_frame_counter(image: npt.NDArray[np.uint8], index: int) -> tuple[int, int]:
    """Paint ``index`` into ``image`` (H, W, 3) in place; give the height and width it took.

    Raises:
        ValueError: ``index`` does not fit 24 bits.
    """
    if not 0 <= index < 1 << INDEX_BITS:
        raise ValueError(f"frame index must lie in 0..{(1 << INDEX_BITS) - 1}, got {index}")
    side = block_pixels(image.shape[0])
    levels = np.where(_pattern(index), _LIGHT, DARK).astype(np.uint8)
    painted = levels.repeat(side, axis=0).repeat(side, axis=1)
    image[-painted.shape[0] :, : painted.shape[1]] = painted[:, :, None]
    return painted.shape[0], painted.shape[1]


def read_frame_counter(image: npt.NDArray[np.uint8]) -> int:
    """Read the frame index painted in the bottom left corner.

    Args:
        image: (H, W, 3) RGB or (H, W) luma, uint8. It may have lost or gained a row or a column
            to a codec that wants even sizes.

    Raises:
        ValueError: No counter can be read there.
    """
    luma = image.mean(axis=2) if image.ndim == 3 else image.astype(np.float64)
    expected = block_pixels(luma.shape[0])
    for side in (expected, expected + 1, expected - 1):
        for below in (0, 1, -1, 2):
            index = _read_at(luma, side, below)
            if index is not None:
                return index
    raise ValueError(
        "no frame counter in the bottom left corner; read it before anything is drawn there, "
        "and from a picture that was not scaled"
    )


def _read_at(luma: npt.NDArray[np.float64], side: int, below: int) -> int | None:
    """Read blocks of ``side`` pixels that end ``below`` rows above the bottom (-1: cut off)."""
    bottom = luma.shape[0] - below
    top = bottom - ROWS * side
    if side < 2 or top < 0 or luma.shape[1] < COLUMNS * side:
        return None
    # Only the middle of a block counts: coding blurs its edges.
    rim = max(1, side // 4)
    means = np.empty((ROWS, COLUMNS))
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = top + row * side, column * side
            means[row, column] = luma[y + rim : y + side - rim, x + rim : x + side - rim].mean()
    guards = _pattern(0)[:, [0, -1]]
    light, dark = means[:, [0, -1]][guards], means[:, [0, -1]][~guards]
    if light.min() - dark.max() < _LEAST_CONTRAST:
        return None
    bits = means > (light.mean() + dark.mean()) / 2
    word = int("".join("01"[bit] for bit in bits[:, 1:-1].ravel().astype(int)), 2)
    index = word >> CHECK_BITS
    return index if np.array_equal(bits, _pattern(index)) else None
