"""Noise that keeps painted surfaces from looking flat."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Image


def cloud(rng: np.random.Generator, height: int, width: int, cells: int) -> npt.NDArray[np.float32]:
    """Give smooth noise (height, width) in about [-1, 1]: three octaves of ``cells`` lumps."""
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        rows = max(2, cells * 2**octave * height // max(height, width))
        columns = max(2, cells * 2**octave * width // max(height, width))
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total * np.float32(0.6)


def grain(picture: Image, rng: np.random.Generator, size: float) -> None:
    """Roughen a picture in place with a repeated tile of grain."""
    tile = rng.normal(0, size, (96, 128, 1)).astype(np.int16)
    rows, columns = picture.shape[0] // 96 + 1, picture.shape[1] // 128 + 1
    whole = np.tile(tile, (rows, columns, 1))[: picture.shape[0], : picture.shape[1]]
    np.copyto(picture, np.clip(picture + whole, 0, 255).astype(np.uint8))
