"""PNG pictures whose pixels are numbers of a palette: class maps that can also be looked at.

OpenCV reads these, but cannot write them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.frame import RGB

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _PALETTE = 8, 3
_FILTER_NONE = 0
_FAST = 1  # of zlib's levels; maps are large areas, which any level packs well


def palette_png(numbers: npt.NDArray[np.uint8], palette: Sequence[RGB]) -> bytes:
    """An (H, W) uint8 picture of palette numbers as a file's bytes (PNG 1.2, sec. 11.2).

    Args:
        numbers: What is stored, and read back unchanged.
        palette: The colour of each number, at most 256; numbers without one are allowed by few
            readers, so black is added for them.
    """
    height, width = numbers.shape
    colours = [*palette, *[(0, 0, 0)] * (int(numbers.max(initial=0)) + 1 - len(palette))]
    lines = np.empty((height, width + 1), np.uint8)
    lines[:, 0] = _FILTER_NONE
    lines[:, 1:] = numbers
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _PALETTE, 0, 0, 0)),
            _chunk(b"PLTE", bytes(part for colour in colours for part in colour)),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), _FAST)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
