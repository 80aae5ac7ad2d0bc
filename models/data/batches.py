"""The endless, repeatable stream of batches that detectors learn from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.data.augment import Labelled, collage, vary
from models.data.labelled import Entry, Share
from models.detection.losses import Truth


def repeat_factors(entries: list[Entry], balance: float) -> np.ndarray:
    """How much more often to draw pictures of rare classes: (N,) float64, at least 1.

    A picture counts ``sqrt(balance / share of pictures with its rarest class)`` times (LVIS,
    arXiv:1908.03195, sec. 4.2); 0 leaves all equal.
    """
    classes = [set(e.class_ids.tolist()) for e in entries]
    share = {c: sum(c in own for own in classes) / len(entries) for c in set().union(*classes)}
    rarest = np.array([min((share[c] for c in own), default=1.0) for own in classes])
    return np.maximum(1.0, np.sqrt(balance / rarest))


@dataclass(frozen=True)
class TrainingBatch:
    """What one optimiser step learns from."""

    frames: Tensor
    """(N, H, W, 3) uint8 RGB."""
    truths: list[Truth]
    regions: list[Tensor] | None = None
    """Per picture (R, 4) float32 proposals in pixels of the frame; None where nobody asked."""

    def to(self, device: torch.device) -> TrainingBatch:
        """The same on another device."""
        regions = None if self.regions is None else [r.to(device) for r in self.regions]
        return TrainingBatch(
            self.frames.to(device), [truth.to(device) for truth in self.truths], regions
        )


@dataclass(frozen=True)
class MaskBatch:
    """What one optimiser step of a segmentation network learns from."""

    frames: Tensor
    """(N, H, W, 3) uint8 RGB."""
    labels: Tensor
    """(N, H, W) uint8 class of each pixel; 255 (``models.network.IGNORED``): unknown."""

    def to(self, device: torch.device) -> MaskBatch:
        """The same on another device."""
        return MaskBatch(self.frames.to(device), self.labels.to(device))


CELLS = (1, 2, 4)
CELL_WEIGHTS = (0.45, 0.25, 0.3)
"""How often a canvas holds so many pictures."""
PICTURES_A_CANVAS = sum(n * share for n, share in zip(CELLS, CELL_WEIGHTS, strict=True))
"""On average."""


class TrainingBatches(Dataset[TrainingBatch]):
    """Batch number ``step`` of an endless stream; the same number always gives the same batch.

    This makes an interrupted training go on exactly where it stopped: the step is the whole state.

    Args:
        shares: data sets with their weights; batches have regions if all entries have.
        sizes_hw: canvas sizes in pixels; each batch draws one (multi-scale training).
        balance: see :func:`repeat_factors`.
        share_of_run: number of the process among those that train together: each draws other
            pictures, but all of one size, so that none waits for another.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        sizes_hw: Sequence[tuple[int, int]],
        batch: int,
        steps: int,
        seed: int = 0,
        balance: float = 0.0,
        share_of_run: int = 0,
    ) -> None:
        self.entries = [e for s in shares for e in s.entries]
        self.with_regions = all(e.regions is not None for e in self.entries)
        weights = np.concatenate([s.repeat * repeat_factors(s.entries, balance) for s in shares])
        self.chances = weights / weights.sum()
        self.sizes_hw, self.batch, self.steps, self.seed = list(sizes_hw), batch, steps, seed
        self.share_of_run = share_of_run

    def with_proposals(self, regions: Sequence[np.ndarray]) -> TrainingBatches:
        """The same stream with new proposals (R, 4) in pixels of the pictures, one for each."""
        fresh = copy.copy(self)
        pairs = zip(self.entries, regions, strict=True)
        fresh.entries = [replace(entry, regions=own) for entry, own in pairs]
        fresh.with_regions = True
        return fresh

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> TrainingBatch:
        sizes = np.random.default_rng([self.seed, step])
        size_hw = self.sizes_hw[sizes.integers(len(self.sizes_hw))]
        rng = np.random.default_rng([self.seed, step, self.share_of_run])
        canvases = [self.canvas(size_hw, rng) for _ in range(self.batch)]
        regions = [torch.from_numpy(c.regions) for c in canvases] if self.with_regions else None
        return TrainingBatch(
            torch.from_numpy(np.stack([c.image for c in canvases])),
            [truth_of(c) for c in canvases],
            regions,
        )

    def canvas(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Labelled:
        """One augmented canvas."""
        count = int(rng.choice(CELLS, p=CELL_WEIGHTS))
        drawn = rng.choice(len(self.entries), count, p=self.chances)
        return vary(collage([self.entries[i].read() for i in drawn], size_hw, rng), rng)


def truth_of(item: Labelled) -> Truth:
    """The labels of a canvas as tensors."""
    return Truth(
        torch.from_numpy(item.boxes),
        torch.from_numpy(item.class_ids),
        torch.from_numpy(item.ignored),
        None if item.masks is None else torch.from_numpy(item.masks),
    )
