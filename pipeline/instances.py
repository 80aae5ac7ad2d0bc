"""Masks of single objects: a small grid of coverage stretched over a box.

A mask's cells cover its box evenly. Whoever cuts the box must cut the mask with it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.frame import Boxes, Detections
from pipeline.placement import Placement

INSIDE = 0.5  # from which value on a mask's pixel belongs to the object
_SAME_PIXELS = 1e-3

Mask = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Patch(NamedTuple):
    """The pixels of one object.

    Attributes:
        top, left: Row and column in the picture.
        inside: (h, w) uint8, 255 where the object is, else 0.
    """

    top: int
    left: int
    inside: Pixels


def onto_clipped(found: Detections, boxes: Boxes, placement: Placement) -> Detections:
    """The same detections, with masks that fit boxes which the frame's edge has cut.

    Args:
        found: In pixels of the frame, clipped to it, with masks that fit the boxes before.
        boxes: (N, 4) the boxes before, in pixels of the network's input.
        placement: Where the frame lies in that.
    """
    assert found.masks is not None
    cut = np.abs(placement.to_input(found.boxes) - boxes).max(axis=1, initial=0) > _SAME_PIXELS
    if not cut.any():
        return found
    masks = found.masks.copy()
    whole, left = boxes.astype(np.float64), placement.to_input(found.boxes).astype(np.float64)
    for i in np.flatnonzero(cut).tolist():
        masks[i] = _cut(masks[i], whole[i], left[i])
    return replace(found, masks=masks)


def patch(mask: Mask, box: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> Patch | None:
    """The pixels of a picture of that size that a mask (h, w) over a box (4,) covers.

    A pixel is decided at its centre, between the centres of the mask's cells. None: there is
    not one whose centre lies in the box.
    """
    x1, y1, x2, y2 = box.tolist()
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
        return None
    left, right = max(0, math.ceil(x1 - 0.5)), min(size_hw[1], math.ceil(x2 - 0.5))
    top, bottom = max(0, math.ceil(y1 - 0.5)), min(size_hw[0], math.ceil(y2 - 0.5))
    if left >= right or top >= bottom:
        return None
    rows, columns = mask.shape
    across, down = columns / (x2 - x1), rows / (y2 - y1)
    # Pixel centre (left + u + 0.5, top + v + 0.5) -> cell coordinates, whose centres are whole.
    to_cell = np.array(
        [
            [across, 0, (left + 0.5 - x1) * across - 0.5],
            [0, down, (top + 0.5 - y1) * down - 0.5],
        ]
    )
    cover = _sampled(mask, to_cell, (right - left, bottom - top))
    return Patch(top, left, (cover >= INSIDE).astype(np.uint8) * np.uint8(255))


def _cut(mask: Mask, whole: npt.NDArray[np.float64], left: npt.NDArray[np.float64]) -> Mask:
    """The mask over the box `whole` as one of the same shape over `left`, a part of that."""
    rows, columns = mask.shape
    size, part = whole[2:] - whole[:2], left[2:] - left[:2]
    scale = part / size
    shift = (left[:2] - whole[:2]) / size * (columns, rows) + 0.5 * scale - 0.5
    to_cell = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return _sampled(mask, to_cell, (columns, rows))


def _sampled(mask: Mask, to_cell: npt.NDArray[np.float64], size_wh: tuple[int, int]) -> Mask:
    """Bilinear between the cells; outside of their centres the outermost go on."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(mask, to_cell, size_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped.astype(np.float32, copy=False)
