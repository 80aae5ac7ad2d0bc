"""Labelled pictures in the formats of COCO and VOC, and the endless, repeatable stream of training
batches drawn from them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from models.augment import Labelled, collage, vary
from models.class_names import class_of
from models.detection.losses import Truth
from models.json_files import corners, read_truth
from models.masks import rasterise
from models.pictures import DataError as DataError
from models.pictures import read_picture as read_picture


@dataclass(frozen=True)
class Entry:
    """One labelled picture, not yet read."""

    file: Path
    boxes: np.ndarray
    class_ids: np.ndarray
    ignored: np.ndarray
    regions: np.ndarray | None = None
    """(R, 4) float32 proposals in pixels of the picture; None where nobody asked."""
    segmentations: tuple[Any, ...] | None = None
    """COCO's, one for each box; None where nobody asked, or one is missing."""

    def read(self) -> Labelled:
        """Decode the picture, and draw the masks.

        Raises:
            DataError: the file is missing or no picture.
        """
        item = Labelled(read_picture(self.file), self.boxes, self.class_ids, self.ignored)
        if self.segmentations is not None:
            size_hw = (item.image.shape[0], item.image.shape[1])
            drawn = [rasterise(one, size_hw) for one in self.segmentations]
            item = replace(item, masks=np.array(drawn, np.uint8).reshape(-1, *size_hw))
        return item if self.regions is None else replace(item, regions=self.regions)


def read_coco(
    annotations: Path,
    images: Path,
    class_names: Sequence[str],
    regions: Mapping[str, np.ndarray] | None = None,
    masks: bool = False,
) -> list[Entry]:
    """Entries of a COCO json or of VOC's annotations; see :func:`models.json_files.read_truth`.

    Crowds and classes the model does not know become ignored regions.

    Args:
        regions: (R, 4) float32 proposals in pixels, by the pictures' file names in the
            annotations.
        masks: keep the segmentations of pictures in which every object has one.

    Raises:
        DataError: the file is missing, foreign, has no class of the model, or a picture has no
            proposals.
    """
    content = read_truth(annotations)
    categories = {c["id"]: class_of(c, class_names) for c in content["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = {i["id"]: [] for i in content["images"]}
    if all(c is None for c in categories.values()):
        raise DataError(f"{annotations} has none of the classes {', '.join(class_names)}")
    for a in content["annotations"]:
        by_image[a["image_id"]].append(a)
    entries = []
    for image in content["images"]:
        every = [a for a in by_image[image["id"]] if a["bbox"][2] > 0 and a["bbox"][3] > 0]
        sure = [
            a for a in every if not a.get("iscrowd") and categories[a["category_id"]] is not None
        ]
        rest = [a for a in every if a.get("iscrowd") or categories[a["category_id"]] is None]
        class_ids = np.array([categories[a["category_id"]] for a in sure], np.int64)
        name = image["file_name"]
        if regions is not None and name not in regions:
            raise DataError(f"no proposals for {name}, which {annotations} lists")
        own = None if regions is None else regions[name]
        drawn = tuple(a.get("segmentation") for a in sure) if masks else (None,)
        segmentations = drawn if all(drawn) else None
        entries.append(
            Entry(images / name, corners(sure), class_ids, corners(rest), own, segmentations)
        )
    return entries


@dataclass(frozen=True)
class Share:
    """A data set and how many times over it counts when pictures are drawn."""

    entries: list[Entry]
    repeat: float = 1.0


def parse_share(
    words: str,
    class_names: Sequence[str],
    regions: Mapping[str, np.ndarray] | None = None,
    masks: bool = False,
) -> Share:
    """``ANNOTATIONS:IMAGES_DIR[:REPEAT]`` as the command line gives it; see :func:`read_coco`.

    Raises:
        DataError: the words do not have this form.
    """
    parts = words.split(":")
    if len(parts) not in (2, 3):
        raise DataError(f"expected ANNOTATIONS:IMAGES_DIR[:REPEAT], got {words!r}")
    repeat = float(parts[2]) if len(parts) == 3 else 1.0
    return Share(read_coco(Path(parts[0]), Path(parts[1]), class_names, regions, masks), repeat)


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
