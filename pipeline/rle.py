"""Masks as run lengths, in the form of COCO: down each column, compressed to text.

The runs go column by column from the upper left pixel, and begin with those outside of the mask
(so the first may be 0). In the text each run is a number of 5-bit groups with the lowest first,
from the third run on the difference to the run two before; bit 5 says that more groups follow,
48 is added to make a printable character. `pycocotools.mask.decode` reads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

_GROUP_BITS = 5
_MOST_GROUPS = 13  # of 64 bits


def rle_in(mask: Pixels, top_left: tuple[int, int], size_hw: tuple[int, int]) -> dict[str, Any]:
    """``{"size": [H, W], "counts": text}`` of a mask as large as the picture.

    Args:
        mask: (h, w) part of it, whatever is not 0; outside there is nothing.
        top_left: Row and column of the picture at which `mask` lies.
        size_hw: Of the picture.
    """
    top, left = top_left
    height, width = size_hw
    rows, columns = mask.shape
    # A row outside of the mask under each column ends every run there; where the mask has the
    # picture's whole height, runs of neighbouring columns touch, and are joined below.
    below = np.zeros((columns, rows + 1), np.bool_)
    below[:, :rows] = mask.T != 0
    changes = np.flatnonzero(np.diff(below.ravel(), prepend=False))
    column, row = np.divmod(changes, rows + 1)
    at = (left + column) * height + top + row  # a column that ends at the bottom: the next one's 0
    joined = np.flatnonzero(at[2::2] == at[1:-1:2])
    at = np.delete(at, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    return _entry(at, height, width)


def class_rles(classes: Pixels) -> dict[int, dict[str, Any]]:
    """The mask of each class that an (H, W) map holds, by class id, the lowest first."""
    height, width = classes.shape
    flat = classes.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends, owner = np.append(starts[1:], flat.size), flat[starts]
    by_class = np.argsort(owner, kind="stable")
    present, first = np.unique(owner[by_class], return_index=True)
    borders = np.stack([starts, ends], axis=1)[by_class]
    parts = np.split(borders, first[1:])
    return {
        int(class_id): _entry(part.ravel(), height, width)
        for class_id, part in zip(present, parts, strict=True)
    }


def _entry(borders: Counts, height: int, width: int) -> dict[str, Any]:
    """From the places, rising, at which a mask begins and ends in turn."""
    counts = np.diff(borders, prepend=0, append=height * width)
    if counts[-1] == 0 and len(counts) > 1:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _text(counts)}


def _text(counts: Counts) -> str:
    """COCO's compression of run lengths."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    groups = values[:, None] >> (_GROUP_BITS * np.arange(_MOST_GROUPS))
    # A number ends with the group whose sign bit says what all higher ones would: 0s, or 1s.
    rest = groups >> _GROUP_BITS
    sign = (groups & 0x10) != 0
    last = np.argmax(rest == np.where(sign, -1, 0), axis=1)
    used = np.arange(_MOST_GROUPS) <= last[:, None]
    more = np.arange(_MOST_GROUPS) < last[:, None]
    letters = (groups & 0x1F) + np.where(more, 0x20, 0) + 48
    return bytes(letters[used].astype(np.uint8)).decode("ascii")
