"""Words as masks of coverage, ready to be laid over a plane of a picture.

Labels repeat (six classes, a hundred scores), so their masks are kept; drawing one is then a
look into a table of 256 shades for each pixel of a small rectangle.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]
"""(rows, columns) uint8 coverage: 0 outside the letters, 255 inside."""

_WEIGHT = 560  # between regular and semibold: small letters stay apart, and stay visible
_face = cv2.FontFace("sans")
_one_at_a_time = threading.Lock()  # a font face caches its letters and is shared by all threads


@lru_cache(maxsize=1024)
def rasterise(text: str, size: int) -> Mask:
    """One line of text with letters about `size` pixels from the ascender to the descender.

    The mask is as high for every text of one size, has an even number of rows and columns, and
    carries a margin on all sides. It is read-only, for it is kept.
    """
    height, margin = line_height(size), max(2, size // 4)
    with _one_at_a_time:
        _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _face, size, _WEIGHT)
        columns = width + 2 * margin
        mask = np.zeros((height, columns + columns % 2), np.uint8)
        baseline = (height + round(size * 0.68)) // 2
        cv2.putText(mask, text, (margin, baseline), (255,), _face, size, _WEIGHT)
    mask.flags.writeable = False
    return mask


def line_height(size: int) -> int:
    """Rows of a mask of that size; even."""
    return 2 * round(size * 0.68)


def plate(text: str, size: int, paper: int, ink: int) -> Mask:
    """The text in luma `ink` on luma `paper`."""
    return _shades(paper, ink)[rasterise(text, size)]


@lru_cache(maxsize=64)
def _shades(paper: int, ink: int) -> Mask:
    """(256,) luma for each coverage."""
    cover = np.arange(256)
    return (paper + ((ink - paper) * cover + 127) // 255).astype(np.uint8)
