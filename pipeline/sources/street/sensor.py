"""What a camera does to the light of a drawn street: halos, lens, exposure, blur and noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Image
from pipeline.sources.street.light import Colour, Mood


class Light(NamedTuple):
    """A lamp as the camera sees it: where (pixels), how large (pixels) and of what colour."""

    column: float
    row: float
    radius: float
    colour: Colour


class Sensor:
    """Lens, exposure and noise of one camera; all chosen by ``rng``."""

    def __init__(
        self, size_hw: tuple[int, int], mood: Mood, horizon: int, rng: np.random.Generator
    ) -> None:
        self.size_hw, self._lamps = size_hw, mood.lamps
        self._vignette = _draw_vignette(size_hw, mood, horizon, rng)
        self._noise = _noise_bank(rng, size_hw, mood.lamps)
        self._soft = float(rng.uniform(0.0, 0.7))
        self._drift = (
            float(rng.uniform(0.0, 0.09)),
            float(rng.uniform(0.1, 0.4)),
            float(rng.uniform(0, 6.28)),
        )
        self._halo = _draw_halo()

    def shine(self, image: Image, light: Light) -> None:
        """Add a lamp's halo to ``image`` (H, W, 3) in place."""
        side = max(3, min(round(2 * light.radius), self.size_hw[0]))
        left, top = round(light.column - side / 2), round(light.row - side / 2)
        y0, y1 = max(0, top), min(image.shape[0], top + side)
        x0, x1 = max(0, left), min(image.shape[1], left + side)
        if y0 >= y1 or x0 >= x1:
            return
        halo = cv2.resize(self._halo, (side, side), interpolation=cv2.INTER_LINEAR)
        part = halo[y0 - top : y1 - top, x0 - left : x1 - left]
        tinted = [cv2.convertScaleAbs(part, alpha=own * self._lamps) for own in light.colour]
        region = image[y0:y1, x0:x1]
        cv2.add(region, cv2.merge(tinted).reshape(region.shape), region)

    def expose(self, image: Image, index: int, seconds: float) -> Image:
        """Give the frame as the camera records it; ``image`` may be changed."""
        if self._vignette is not None:
            cv2.multiply(image, self._vignette, image, scale=1 / 128)
        shown = cv2.LUT(image, self._tones(seconds))
        if self._soft > 0.25:
            shown = cv2.GaussianBlur(shown, (3, 3), self._soft)
        height, width = self.size_hw
        y, x = (index * 37) % 64, (index * 53) % 64
        more, less = self._noise
        cv2.add(shown, more[y : y + height, x : x + width], shown)
        cv2.subtract(shown, less[y : y + height, x : x + width], shown)
        return np.asarray(shown, np.uint8)

    def _tones(self, seconds: float) -> Image:
        """Give the table (1, 256, 3) of the exposure and white balance at that time."""
        size, rate, phase = self._drift
        gain = 1.0 + size * math.sin(rate * seconds + phase)
        warm = 0.25 * size * math.sin(0.7 * rate * seconds + 2 * phase)
        ramp = np.arange(256, dtype=np.float64) / 255.0
        table = np.empty((1, 256, 3), np.uint8)
        for channel, tint in enumerate((gain * (1 + warm), gain, gain * (1 - warm))):
            # A soft shoulder keeps highlights from clipping at once.
            lit = ramp * tint
            soft = np.where(lit > 0.8, 0.8 + 0.2 * np.tanh((lit - 0.8) / 0.2), lit)
            table[0, :, channel] = np.clip(255 * soft, 0, 255)
        return table


def _draw_vignette(
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


def _draw_halo() -> npt.NDArray[np.uint8]:
    """Give a round glow (96, 96) with a bright core."""
    line = np.linspace(-1, 1, 96)
    away = np.hypot(line[:, None], line[None, :])
    glow = 0.75 * np.exp(-((away / 0.16) ** 2)) + 0.30 * np.exp(-((away / 0.42) ** 2))
    return np.clip(255 * glow * np.clip(1.6 - 1.6 * away, 0, 1), 0, 255).astype(np.uint8)


def _noise_bank(
    rng: np.random.Generator, size_hw: tuple[int, int], lamps: float
) -> tuple[Image, Image]:
    """Give sensor noise to add and to subtract, larger than a frame so that it can be moved."""
    sigma = float(rng.uniform(1.0, 3.5)) * (1.0 + 1.2 * (lamps > 0.9))
    height, width = size_hw[0] + 64, size_hw[1] + 64
    tile = rng.normal(0, sigma, (191, 229, 3)) + rng.normal(0, sigma * 0.7, (191, 229, 1))
    whole = np.tile(np.rint(tile).astype(np.int16), (height // 191 + 1, width // 229 + 1, 1))
    whole = whole[:height, :width]
    return np.maximum(whole, 0).astype(np.uint8), np.maximum(-whole, 0).astype(np.uint8)
