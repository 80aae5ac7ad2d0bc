"""What a camera does to the light of a drawn street: lens, exposure, blur, noise, halos.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.sources.street_backdrop import Image
from pipeline.sources.street_light import Mood


def vignette(
    size_hw: tuple[int, int], mood: Mood, horizon: int, rng: np.random.Generator
) -> Image | None:
    """Give what to multiply a frame by, 128 = unchanged, or None: lens shading and head lamps."""
    height, width = size_hw
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    gain = 1.0 - float(rng.uniform(0.0, 0.16)) * (rows * rows + columns * columns) / 2
    if mood.lamps > 0.9:
        ahead = horizon / height * 2 - 1
        pool = np.exp(-((columns / 0.62) ** 2) - ((rows - ahead - 0.30) / 0.34) ** 2)
        gain = gain * (1.0 + pool * np.float32(rng.uniform(0.5, 1.0)))
    elif rng.random() < 0.5:
        return None
    return np.ascontiguousarray(
        np.repeat((np.clip(gain * 128, 0, 255)).astype(np.uint8)[:, :, None], 3, axis=2)
    )


def draw_halo() -> npt.NDArray[np.uint8]:
    """Give a round glow (96, 96) with a bright core."""
    line = np.linspace(-1, 1, 96)
    away = np.hypot(line[:, None], line[None, :])
    glow = 0.75 * np.exp(-((away / 0.16) ** 2)) + 0.30 * np.exp(-((away / 0.42) ** 2))
    return np.clip(255 * glow * np.clip(1.6 - 1.6 * away, 0, 1), 0, 255).astype(np.uint8)


def noise_bank(
    rng: np.random.Generator, size_hw: tuple[int, int], lamps: float
) -> tuple[Image, Image]:
    """Give sensor noise to add and to subtract, larger than a frame so that it can be moved."""
    sigma = float(rng.uniform(1.0, 3.5)) * (1.0 + 1.2 * (lamps > 0.9))
    height, width = size_hw[0] + 64, size_hw[1] + 64
    tile = rng.normal(0, sigma, (191, 229, 3)) + rng.normal(0, sigma * 0.7, (191, 229, 1))
    whole = np.tile(np.rint(tile).astype(np.int16), (height // 191 + 1, width // 229 + 1, 1))
    whole = whole[:height, :width]
    return np.maximum(whole, 0).astype(np.uint8), np.maximum(-whole, 0).astype(np.uint8)
