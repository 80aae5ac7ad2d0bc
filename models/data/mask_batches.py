"""The endless, repeatable stream of batches that segmentation networks learn from.

Every picture goes one way: a crop of random place and scale, perhaps mirrored and bent, is looked
up in the picture and in its labels at the same points, so that they cannot part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset

from models.data.augment import vary_image
from models.data.batches import MaskBatch
from models.data.masks import MaskEntry, MaskSet, class_pixels
from models.network import IGNORED

GREY = 114


@dataclass(frozen=True)
class View:
    """How a crop may differ from its picture."""

    scales: tuple[float, float] = (0.5, 2.0)
    """Least and largest enlargement (DeepLab v3, arXiv:1706.05587, sec. 4.1)."""
    mirror: bool = True
    elastic_pixels: float = 0.0
    """Deviation of the bending; 10 in U-Net (arXiv:1505.04597, sec. 3.1), 0 leaves all straight."""
    colour: bool = True


def bend(size_hw: tuple[int, int], deviation_pixels: float, rng: Generator) -> np.ndarray:
    """(H, W, 2) float32 shift x, y of every pixel: U-Net's elastic deformation.

    Random vectors on a coarse 3 by 3 grid, smoothed over the picture by bicubic interpolation
    (Ronneberger et al., arXiv:1505.04597, sec. 3.1).
    """
    coarse = rng.normal(0.0, deviation_pixels, (3, 3, 2)).astype(np.float32)
    return cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def look_up(
    image: np.ndarray, labels: np.ndarray, points_xy: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The picture and its labels at points; outside, grey and unknown.

    Args:
        image: (H, W, 3) uint8; labels: (H, W) uint8.
        points_xy: (h, w, 2) float32 in pixels, 0 the outer edge of the first one.
        scale: pixels of the result per pixel of the picture; below 1 the picture is averaged
            first, or fine texture would turn into noise.
    """
    height, width = labels.shape
    source, points = image, points_xy
    if scale < 1:
        small = max(round(width * scale), 1), max(round(height * scale), 1)
        source = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        points = points_xy * np.array([small[0] / width, small[1] / height], np.float32)
    # cv2 counts from the middle of the first pixel.
    x, y = (np.ascontiguousarray(points[..., i] - 0.5) for i in (0, 1))
    seen = cv2.remap(source, x, y, cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY))
    x, y = (np.ascontiguousarray(np.floor(points_xy[..., i])) for i in (0, 1))
    known = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderValue=(IGNORED,))
    return seen, known


def crop_points(
    picture_hw: tuple[int, int],
    crop_hw: tuple[int, int],
    scale: float,
    rng: Generator,
    around_xy: np.ndarray | None = None,
) -> np.ndarray:
    """(h, w, 2) float32: where each pixel of a random crop lies in the picture.

    A crop that is larger than the picture holds all of it; else it lies within it.

    Args:
        around_xy: a point that the crop shall hold; None leaves the place to chance.
    """
    window = np.array(crop_hw[::-1]) / scale
    room = np.array(picture_hw[::-1]) - window
    corner = rng.random(2) * room
    if around_xy is not None:
        corner = np.clip(
            around_xy - rng.random(2) * window, np.minimum(room, 0), np.maximum(room, 0)
        )
    x = corner[0] + (np.arange(crop_hw[1]) + 0.5) / scale
    y = corner[1] + (np.arange(crop_hw[0]) + 0.5) / scale
    return np.stack(np.meshgrid(x, y), 2).astype(np.float32)


class MaskBatches(Dataset[MaskBatch]):
    """Batch number ``step`` of an endless stream; the same number always gives the same batch.

    Args:
        sets: data sets of the same classes.
        sizes_hw: crop sizes in pixels; each batch draws one (multi-scale training).
        balance: share of the crops that are made to hold a class drawn at random, all classes
            alike; the other crops are drawn without looking.
        share_of_run: number of the process among those that train together: each draws other
            pictures, but all of one size.
    """

    def __init__(
        self,
        sets: Sequence[MaskSet],
        sizes_hw: Sequence[tuple[int, int]],
        batch: int,
        steps: int,
        seed: int = 0,
        view: View = View(),
        balance: float = 0.0,
        share_of_run: int = 0,
    ) -> None:
        self.entries: list[MaskEntry] = [e for s in sets for e in s.entries]
        weights = np.concatenate([np.full(len(s.entries), s.repeat) for s in sets])
        self.chances = weights / weights.sum()
        self.sizes_hw, self.batch, self.steps, self.seed = list(sizes_hw), batch, steps, seed
        self.view, self.balance, self.share_of_run = view, balance, share_of_run
        self.holds = np.zeros((len(self.entries), 0), bool)
        if balance > 0:
            self.holds = class_pixels(self.entries, len(sets[0].class_names)) > 0

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> MaskBatch:
        sizes = np.random.default_rng([self.seed, step])
        size_hw = self.sizes_hw[sizes.integers(len(self.sizes_hw))]
        rng = np.random.default_rng([self.seed, step, self.share_of_run])
        crops = [self.crop(size_hw, rng) for _ in range(self.batch)]
        frames, labels = (np.stack(part) for part in zip(*crops, strict=True))
        return MaskBatch(torch.from_numpy(frames), torch.from_numpy(labels))

    def crop(self, size_hw: tuple[int, int], rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """One augmented crop: (h, w, 3) uint8 RGB and (h, w) uint8 classes."""
        wanted = self.wanted_class(rng)
        chances = self.chances
        if wanted is not None:
            chances = chances * self.holds[:, wanted]
            chances = chances / chances.sum()
        image, labels = self.entries[rng.choice(len(self.entries), p=chances)].read()
        around = None if wanted is None else a_pixel_of(labels, wanted, rng)
        low, high = np.log(self.view.scales)
        scale = float(np.exp(rng.uniform(low, high)))
        return cut(image, labels, size_hw, scale, self.view, rng, around)

    def wanted_class(self, rng: Generator) -> int | None:
        """A class that the next crop shall hold; None most of the time, or always."""
        if rng.random() >= self.balance:
            return None
        return int(rng.choice(np.flatnonzero(self.holds.any(0))))


def a_pixel_of(labels: np.ndarray, class_id: int, rng: Generator) -> np.ndarray:
    """(2,) x, y of the middle of a random pixel of a class that is in the picture."""
    pixels = np.flatnonzero(labels == class_id)
    y, x = np.divmod(pixels[rng.integers(len(pixels))], labels.shape[1])
    return np.array([x + 0.5, y + 0.5])


def cut(
    image: np.ndarray,
    labels: np.ndarray,
    size_hw: tuple[int, int],
    scale: float,
    view: View,
    rng: Generator,
    around_xy: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A crop of one scale, mirrored, bent and coloured as ``view`` allows."""
    points = crop_points((labels.shape[0], labels.shape[1]), size_hw, scale, rng, around_xy)
    if view.elastic_pixels > 0:
        points += bend(size_hw, view.elastic_pixels / scale, rng)
    if view.mirror and rng.random() < 0.5:
        points = points[:, ::-1]
    seen, known = look_up(image, labels, points, scale)
    return (vary_image(seen, rng) if view.colour else seen), known
