"""Leaves: smooth green blobs broken into ragged, mottled foliage."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt


def _leaf_tiles() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give fixed noise (192, 192): where a leaf's colour is taken from, and how light it is."""
    rng = np.random.default_rng(1871)
    shift = rng.uniform(-1, 1, (192, 192, 2)).astype(np.float32)
    light = rng.uniform(0.72, 1.22, (192, 192)).astype(np.float32)
    return shift, light


_LEAF_SHIFT, _LEAF_LIGHT = _leaf_tiles()


def break_into_leaves(
    colour: npt.NDArray[np.uint8], opacity: npt.NDArray[np.uint8], size: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Break smooth blobs into leaves of ``size`` pixels: ragged outline, mottled light.

    Args:
        colour: (h, w, 3), multiplied by its opacity.
        opacity: (h, w).
        size: Side of a leaf in pixels; below half a pixel nothing changes.
    """
    if size < 0.5:
        return colour, opacity
    height, width = opacity.shape
    cell = max(1.0, size)
    rows, columns = math.ceil(height / cell) + 1, math.ceil(width / cell) + 1
    tiles = (rows // 192 + 1, columns // 192 + 1)
    whole = (math.ceil(columns * cell), math.ceil(rows * cell))
    shift = cv2.resize(
        np.tile(_LEAF_SHIFT, (*tiles, 1))[:rows, :columns], whole, interpolation=cv2.INTER_LINEAR
    )[:height, :width] * np.float32(2.6 * size)
    light = cv2.resize(
        np.tile(_LEAF_LIGHT, tiles)[:rows, :columns], whole, interpolation=cv2.INTER_LINEAR
    )[:height, :width]
    map_x = shift[:, :, 0] + np.arange(width, dtype=np.float32)
    map_y = shift[:, :, 1] + np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(colour, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    mottled = np.clip(moved * light[:, :, None], 0, 255).astype(np.uint8)
    return mottled, np.asarray(
        cv2.remap(opacity, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT),
        np.uint8,
    )
