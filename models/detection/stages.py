"""What R-CNN and SPPnet do after fine-tuning: features to disk, then SVMs, then regressors
(arXiv:1311.2524, sec. 2.3, appendices B and C).

    features = cache_features(network, batches, folder)
    fit_svms(network, features)              # from here on heads.scores is "svm"
    fit_box_regressors(network, features)

This is the part that Fast R-CNN does away with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.boxes import both_sides_at_least, encode, iou
from models.data.batches import TrainingBatch
from models.detection.linear_svm import HardNegatives, SVMSettings
from models.detection.losses import Truth, share_inside
from models.detection.regions import PIXELS_WIDE, best_overlap
from models.detection.staged_heads import REGRESSION_WEIGHTS, Staged

FEATURE_NORM = 20.0
"""Features are scaled to this mean norm before anything is fitted (as the release does), so that
one set of regularisers suits every trunk. The fitted layers undo it."""
NEGATIVE_BELOW = 0.3
"""Overlap with the true boxes of a class (sec. 2.3; 0.5 costs 5 points of mAP)."""
PAIR_ABOVE = 0.6
"""Overlap from which a region learns to become the true box (appendix C)."""
RIDGE = 1000.0
"""Lambda of appendix C, eq. 5."""


@dataclass(frozen=True)
class PictureFeatures:
    """Of one picture: its regions, the true boxes last."""

    hidden: Tensor
    """(R, width) float32, fc7."""
    overlap: Tensor
    """(R, C) float32 largest IoU with a true box of each class."""
    true_class: Tensor
    """(R,) int64, -1 for a region that came from outside."""
    known: Tensor
    """(R,) bool: less than half lies where the annotations know nothing."""
    pooled: Tensor
    """(P, D) float32, pool5 of those that learn to become a true box ..."""
    deltas: Tensor
    """(P, 4) float32, ... what they should be moved by, ..."""
    pair_class: Tensor
    """(P,) int64, ... and its class."""


class FeatureCache:
    """Pictures' features in a folder: they seldom fit into memory, and are read several times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, features: PictureFeatures) -> None:
        """Write one more picture; features in half precision, since they are many."""
        words = {name: tensor.cpu() for name, tensor in vars(features).items()}
        words |= {name: words[name].half() for name in ("hidden", "pooled")}
        torch.save(words, self.folder / f"{len(self):06}.pt")

    def __len__(self) -> int:
        return len(self._files())

    def __iter__(self) -> Iterator[PictureFeatures]:
        for file in self._files():
            words = torch.load(file, weights_only=True)
            words |= {name: words[name].float() for name in ("hidden", "pooled")}
            yield PictureFeatures(**words)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.pt"))

    @property
    def bytes_on_disk(self) -> int:
        """The paper's VGG features of VOC 2007 took hundreds of gigabytes."""
        return sum(file.stat().st_size for file in self._files())


@torch.no_grad()
def cache_features(network: Staged, batches: Iterable[TrainingBatch], folder: Path) -> FeatureCache:
    """Run the network over the regions of every picture; leaves it in eval mode.

    Args:
        batches: each picture once. Augmented ones count as further pictures.
        folder: made if need be; must hold no features yet.

    Raises:
        FileExistsError: it holds some.
        ValueError: a batch without regions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cache = FeatureCache(folder)
    if len(cache):
        raise FileExistsError(f"{folder} holds features already; give an empty folder")
    network.eval()
    for batch in batches:
        if batch.regions is None:
            raise ValueError("SVMs and regressors are fitted on regions, and a batch has none")
        for frame, truth, regions in zip(batch.frames, batch.truths, batch.regions, strict=True):
            cache.add(_of_picture(network, frame, truth, regions))
    return cache


def _of_picture(network: Staged, frame: Tensor, truth: Truth, regions: Tensor) -> PictureFeatures:
    regions = regions[both_sides_at_least(regions, PIXELS_WIDE)]
    boxes = torch.cat([regions, truth.boxes.to(regions)])
    pooled = network.pool5(frame[None], boxes[None])
    hidden = network.hidden(pooled)[0]
    overlap = boxes.new_zeros(len(boxes), network.heads.num_classes)
    for class_id in truth.class_ids.unique().tolist():
        own = truth.boxes[truth.class_ids == class_id]
        overlap[:, class_id] = iou(boxes, own).amax(1)
    best, index = best_overlap(boxes, truth)
    pairs = best > PAIR_ABOVE
    partner = truth.boxes[index[pairs]] if len(truth.boxes) else boxes[pairs]
    pair_class = truth.class_ids[index[pairs]] if len(truth.boxes) else index[pairs]
    return PictureFeatures(
        hidden,
        overlap,
        torch.cat([truth.class_ids.new_full((len(regions),), -1), truth.class_ids]),
        share_inside(boxes, truth.ignored) <= 0.5,
        pooled[0, pairs],
        encode(partner, boxes[pairs], REGRESSION_WEIGHTS),
        pair_class,
    )


@torch.no_grad()
def fit_svms(
    network: Staged,
    cache: FeatureCache,
    settings: SVMSettings = SVMSettings(),  # noqa: B008 (frozen)
    passes: int = 1,
) -> None:
    """One SVM for each class, true boxes against hard negatives; then they give the scores.

    passes: over all pictures; the paper finds that one is enough (sec. 2.3). A class without a
    true box keeps an SVM that says no to everything.
    """
    heads = network.heads
    scale = FEATURE_NORM / _mean_norm(picture.hidden for picture in cache)
    true = [(p.hidden[p.true_class >= 0], p.true_class[p.true_class >= 0]) for p in cache]
    mines = [
        HardNegatives(torch.cat([rows[own == class_id] for rows, own in true]) * scale, settings)
        for class_id in range(heads.num_classes)
    ]
    for _ in range(passes):
        for number, picture in enumerate(cache):
            for class_id, mine in enumerate(mines):
                negative = (picture.overlap[:, class_id] < NEGATIVE_BELOW) & picture.known
                mine.offer(number, picture.hidden[negative] * scale)
    for class_id, mine in enumerate(mines):
        mine.refit()
        learned = len(mine.positives) > 0
        heads.svm.weight[class_id] = mine.weight * scale if learned else 0.0
        heads.svm.bias[class_id] = mine.bias if learned else -2.0
    heads.scores = "svm"


@torch.no_grad()
def fit_box_regressors(network: Staged, cache: FeatureCache, ridge: float = RIDGE) -> None:
    """Class by class, from pool5 to the deltas of eq. 6 to 9; without a pair no box moves.

    Of the features only those of pairs are held in memory.
    """
    layer = network.heads.bbox_pred
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    pairs = [(p.pooled, p.deltas, p.pair_class) for p in cache]
    scale = FEATURE_NORM / _mean_norm(pooled for pooled, _, _ in pairs)
    for class_id in range(network.heads.num_classes):
        rows = torch.cat([pooled[own == class_id] for pooled, _, own in pairs]) * scale
        deltas = torch.cat([moves[own == class_id] for _, moves, own in pairs])
        if len(rows):
            weight, bias = ridge_regression(rows, deltas, ridge)
            layer.weight[4 * class_id : 4 * class_id + 4] = weight * scale
            layer.bias[4 * class_id : 4 * class_id + 4] = bias


def ridge_regression(rows: Tensor, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """(P, D), (P, K) -> weight (K, D), bias (K,): least squares plus ridge |weight|^2.

    The bias costs nothing, so that without evidence a box gets the mean correction.
    """
    middle, mean = rows.double().mean(0), targets.double().mean(0)
    x, y = rows.double() - middle, targets.double() - mean
    if len(x) < x.shape[1]:  # as many equations as pairs, or as features: the fewer
        gram = x @ x.T
        gram.diagonal().add_(ridge)
        weight = torch.linalg.solve(gram, y).T @ x
    else:
        normal = x.T @ x
        normal.diagonal().add_(ridge)
        weight = torch.linalg.solve(normal, x.T @ y).T
    return weight.to(rows), (mean - weight @ middle).to(rows)


def _mean_norm(features: Iterable[Tensor]) -> float:
    """Of all rows; 1 if there are none, or nothing but zeros, which no scale changes."""
    norms = torch.cat([rows.norm(dim=1) for rows in features])
    return float(norms.mean()) or 1.0 if len(norms) else 1.0
