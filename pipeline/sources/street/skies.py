"""The painted sky of a drawn street, with clouds and a far skyline."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Sky
from pipeline.sources.street.layout import Layout
from pipeline.sources.street.light import Mood
from pipeline.sources.street.texture import cloud


def paint_sky(
    layout: Layout, mood: Mood, rng: np.random.Generator, size_hw: tuple[int, int], horizon: int
) -> Sky:
    """Paint sky, clouds and a far skyline, wide enough to turn the camera a little."""
    height, width = size_hw[0], round(size_hw[1] * 1.3)
    shrink = max(1, width // 480)
    rows, columns = max(8, (horizon + 8) // shrink), width // shrink
    up = np.linspace(1, 0, rows, dtype=np.float32)[:, None, None] ** 0.8
    top, low = np.array(mood.sky_top, np.float32), np.array(mood.sky_low, np.float32)
    sky = np.broadcast_to(low + (top - low) * up, (rows, columns, 3)).copy()
    cover = {"day": rng.uniform(-0.7, 0.5), "overcast": 0.5}.get(mood.name, rng.uniform(-0.4, 0.3))
    flat = cloud(rng, rows * 4, columns, int(rng.integers(5, 12)))
    # Clouds lie flatter the nearer they are to the horizon.
    height_map = (np.linspace(0, 1, rows) ** 1.7 * (rows * 4 - 1)).astype(int)
    noise = flat[height_map]
    white = np.clip((noise + float(cover)) * 2.4, 0, 1)[:, :, None] * (0.35 + 0.65 * up)
    tone = np.clip(low * (1.12 if mood.name == "day" else 0.92), 0, 250)
    sky = sky + (tone * (0.94 + 0.08 * noise[:, :, None]) - sky) * white * 0.85
    ground = max(1, rows - max(1, 8 // shrink))
    _skyline(sky, ground, mood, rng, size_hw[0] / shrink)
    big = cv2.resize(
        np.clip(sky, 0, 255).astype(np.uint8), (width, horizon + 8), interpolation=cv2.INTER_LINEAR
    )
    full = np.empty((height + horizon + 8, width, 3), np.uint8)
    full[: horizon + 8] = big
    full[horizon + 8 :] = np.clip(np.array(mood.haze) * 0.75, 0, 255)
    return Sky(full, horizon)


def _skyline(
    sky: npt.NDArray[np.float32], ground: int, mood: Mood, rng: np.random.Generator, height: float
) -> None:
    """Paint hills, then woods or roofs, along the horizon, dimmed by haze."""
    columns = sky.shape[1]
    haze = np.array(mood.haze, np.float32)
    for share, size, rough in ((0.75, 0.06, 5), (0.55, 0.03, 40)):
        ridge = cloud(rng, 4, columns, rough)[0] * 0.5 + 0.6
        tall = np.clip(ridge, 0.1, None) * size * height * float(rng.uniform(0.4, 1.4))
        base = np.array(mood.shade((0.25, 0.30, 0.18), None), np.float32)
        colour = base + (haze - base) * share
        for x in range(columns):
            sky[max(0, ground - round(float(tall[x]))) : ground, x] = colour
    sky[ground:] = haze * 0.8
