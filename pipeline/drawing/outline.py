"""The outline of a polygon as pixels, ready to be drawn on the planes of a picture.

A zone has the same outline in every frame, so its pixels are looked for once and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.polygon import Point

Pixels = tuple[npt.NDArray[np.intp], ...]
"""Rows and columns."""

_SHIFT = 4  # OpenCV takes corners in 1/16 pixel


@dataclass(frozen=True, eq=False)
class Outline:
    """Pixels to write.

    Attributes:
        line: Of the luma plane, wherever the line covers a part of the pixel.
        cover: (N,) uint16 how much of each it covers, 1 to 255.
        halo: Of the luma plane, next to the line on both sides.
        chroma: Of the chroma planes.
    """

    line: Pixels
    cover: npt.NDArray[np.uint16]
    halo: Pixels
    chroma: Pixels


@lru_cache(maxsize=64)
def outline(corners: tuple[Point, ...], size_hw: tuple[int, int], line: int) -> Outline:
    """The outline of a polygon, kept so far inside the picture that none of its width is lost.

    Args:
        corners: x and y as shares of the picture's width and height.
        size_hw: Of the picture in pixels, both even.
        line: Width of the line in pixels.
    """
    height, width = size_hw
    limits = np.array([[line / 2], [width - line / 2], [line / 2], [height - line / 2]])
    x, y = np.array(corners).T * [[width], [height]]
    x, y = np.clip(x, *limits[:2]) - 0.5, np.clip(y, *limits[2:]) - 0.5  # of pixels' centres
    points = np.rint(np.stack([x, y], axis=1) * (1 << _SHIFT)).astype(np.int32)
    mask = np.zeros(size_hw, np.uint8)
    cv2.polylines(mask, [points], True, (255,), line, cv2.LINE_AA, _SHIFT)
    around = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    covered = np.nonzero(mask)
    quarters = mask.reshape(height // 2, 2, width // 2, 2).max(axis=(1, 3))
    return Outline(
        covered,
        mask[covered].astype(np.uint16),
        np.nonzero((around > 0) & (mask == 0)),
        np.nonzero(quarters > 127),
    )
