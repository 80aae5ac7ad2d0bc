"""The picture plane of a camera, and the pixels on which a model is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.solids import NEAR_METRES

SHIFT = 3  # OpenCV takes corners in 1/8 pixel, which also hides the last bits of sin and cos


class Window(NamedTuple):
    """A rectangle of the picture plane in tangents (x/z to the right, down positive)."""

    left: float
    top: float
    right: float
    bottom: float


def clip_near(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cut a polygon (n, 3) at the near plane (Sutherland and Hodgman, one plane)."""
    kept: list[npt.NDArray[np.float64]] = []
    previous = points[-1]
    for point in points:
        if (point[2] > NEAR_METRES) != (previous[2] > NEAR_METRES):
            share = (NEAR_METRES - previous[2]) / (point[2] - previous[2])
            kept.append(previous + share * (point - previous))
        if point[2] > NEAR_METRES:
            kept.append(point)
        previous = point
    return np.array(kept).reshape(-1, 3)


def tangents(points: npt.NDArray[np.float64], eye_height: float) -> npt.NDArray[np.float64]:
    """Give where points (n, 3) in the camera's frame lie in the picture plane, (n, 2)."""
    depth = np.maximum(points[:, 2], NEAR_METRES)
    return np.stack([points[:, 0] / depth, (eye_height - points[:, 1]) / depth], axis=1)


class Canvas:
    """The pixels of a sprite while it is drawn, ``fine`` times larger than the result."""

    def __init__(self, window: Window, pixels_per_tangent: float, fine: int) -> None:
        self.scale = pixels_per_tangent * fine
        self.fine = fine
        self.left = math.floor(window.left * pixels_per_tangent) - 1
        self.top = math.floor(window.top * pixels_per_tangent) - 1
        width = math.ceil(window.right * pixels_per_tangent) + 1 - self.left
        height = math.ceil(window.bottom * pixels_per_tangent) + 1 - self.top
        self.colour = np.zeros((height * fine, width * fine, 3), np.uint8)
        # 0 where nothing is drawn, else 1 + label.
        self.owners = np.zeros((height * fine, width * fine), np.uint8)

    def corners(self, flat: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Give points (..., 2) of the picture plane as OpenCV takes corners: see `SHIFT`."""
        offset = np.array([self.left * self.fine + 0.5, self.top * self.fine + 0.5])
        pixels = np.clip(flat * self.scale - offset, -20000, 20000)
        return np.asarray(np.rint(pixels * (1 << SHIFT)), np.int32)

    def fill(self, polygon: npt.NDArray[np.int32], colour: Sequence[float], label: int) -> None:
        """Fill a polygon with one colour; its pixels then belong to the object `label`."""
        cv2.fillPoly(self.colour, [polygon], colour, cv2.LINE_8, SHIFT)
        cv2.fillPoly(self.owners, [polygon], (label + 1,), cv2.LINE_8, SHIFT)

    def line(
        self, points: npt.NDArray[np.int32], colour: Sequence[float], label: int, thickness: int
    ) -> None:
        """Draw a line of so many fine pixels' width through points."""
        cv2.polylines(self.colour, [points], False, colour, thickness, cv2.LINE_8, SHIFT)
        cv2.polylines(self.owners, [points], False, (label + 1,), thickness, cv2.LINE_8, SHIFT)
