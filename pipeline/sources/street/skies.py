"""The painted sky of a drawn street, with clouds and a far skyline."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Camera, Image
from pipeline.sources.street.layout import Layout
from pipeline.sources.street.light import Mood
from pipeline.sources.street.pixel_classes import SKY, TREE
from pipeline.sources.street.texture import cloud


class Sky:
    """A wide picture of sky and skyline, of which a frame shows the part it looks at."""

    def __init__(self, picture: Image, horizon: int, ridge: npt.NDArray[np.int64]) -> None:
        self.picture = picture
        self.horizon = horizon
        self.ridge = ridge
        """(columns of ``picture``,) its row from which on there is land."""

    def draw(self, image: Image, camera: Camera, turn: float) -> None:
        """Fill ``image`` (H, W, 3) down to just below the horizon; ``turn`` in pixels."""
        width = image.shape[1]
        rows, left = self._look(image.shape[:2], camera, turn)
        if not len(rows):
            return
        low, high = int(rows[0]), int(rows[-1]) + 1
        if high - low == len(rows):
            image[: len(rows)] = self.picture[low:high, left : left + width]
        else:
            image[: len(rows)] = self.picture[rows, left : left + width]

    def draw_classes(self, classes: Image, camera: Camera, turn: float) -> None:
        """Fill the rows of ``classes`` (H, W) that `draw` fills: sky, below it woods."""
        rows, left = self._look(classes.shape, camera, turn)
        land = rows[:, None] >= self.ridge[left : left + classes.shape[1]]
        classes[: len(rows)] = np.where(land, TREE, SKY)

    def _look(
        self, size_hw: tuple[int, ...], camera: Camera, turn: float
    ) -> tuple[npt.NDArray[np.int64], int]:
        """Give the picture's rows that a frame shows from its top on, and its first column."""
        height, width = size_hw
        middle = (self.picture.shape[1] - width) / 2
        left = round(min(2 * middle, max(0.0, middle + turn)))
        bottom = min(height, round(camera.horizon + abs(camera.roll) * width) + 2)
        shift = self.horizon - round(camera.horizon)
        rows = np.arange(max(0, bottom)) + shift
        return np.clip(rows, 0, self.picture.shape[0] - 1), left


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
    ridge = _skyline(sky, ground, mood, rng, size_hw[0] / shrink)
    big = cv2.resize(
        np.clip(sky, 0, 255).astype(np.uint8), (width, horizon + 8), interpolation=cv2.INTER_LINEAR
    )
    full = np.empty((height + horizon + 8, width, 3), np.uint8)
    full[: horizon + 8] = big
    full[horizon + 8 :] = np.clip(np.array(mood.haze) * 0.75, 0, 255)
    own = np.arange(width) * columns // width
    return Sky(full, horizon, np.rint(ridge[own] * ((horizon + 8) / rows)).astype(np.int64))


def _skyline(
    sky: npt.NDArray[np.float32], ground: int, mood: Mood, rng: np.random.Generator, height: float
) -> npt.NDArray[np.int64]:
    """Paint hills, then woods, along the horizon, dimmed by haze; give their upmost row
    (columns,)."""
    columns = sky.shape[1]
    haze = np.array(mood.haze, np.float32)
    ridge_row = np.full(columns, ground, np.int64)
    for share, size, rough in ((0.75, 0.06, 5), (0.55, 0.03, 40)):
        ridge = cloud(rng, 4, columns, rough)[0] * 0.5 + 0.6
        tall = np.clip(ridge, 0.1, None) * size * height * float(rng.uniform(0.4, 1.4))
        base = np.array(mood.shade((0.25, 0.30, 0.18), None), np.float32)
        colour = base + (haze - base) * share
        for x in range(columns):
            top = max(0, ground - round(float(tall[x])))
            sky[top:ground, x] = colour
            ridge_row[x] = min(ridge_row[x], top)
    sky[ground:] = haze * 0.8
    return ridge_row
