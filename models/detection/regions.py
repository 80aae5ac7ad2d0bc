"""What R-CNN, SPPnet and Fast R-CNN do alike with regions that come from outside: draw the ones to
learn from, and turn scores and boxes into slots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.boxes import (
    SizeHW,
    Weights,
    both_sides_at_least,
    clip,
    decode,
    encode,
    iou,
)
from models.data.batches import TrainingBatch
from models.detection.losses import NEITHER, RoiSample, Truth, sample, sample_row, share_inside
from models.detection.roi import Candidates, DetectionSettings, keep_best
from models.detection.slots import best_pairs

REGION_SETTINGS = DetectionSettings(min_score=0.05, iou=0.3, candidates=1000)
"""The papers suppress a box that overlaps a better one of its class by more than 0.3."""

OBJECT_OVERLAP = 0.5
"""From here on a region shows the object that it overlaps (R-CNN sec. 2.3, Fast R-CNN sec. 2.3)."""
PIXELS_WIDE = 1e-3
"""A region is at least this wide and high; thinner ones are empty slots."""


def best_slots(
    scores: Tensor,
    deltas: Tensor,
    regions: Tensor,
    frame_hw: SizeHW,
    weights: Weights,
    settings: DetectionSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best (region, class) pairs as :data:`models.network.DETECTION_OUTPUTS`.

    Args:
        scores: (N, R, C) float32 in [0, 1], without the background.
        deltas: (N, R, C, 4), one box for each class.
        regions: (N, R, 4) in pixels of the frame, clipped to it; rows without area give nothing.
        weights: of the box coder.
    """
    real = both_sides_at_least(regions, PIXELS_WIDE)
    scores = torch.where(real[..., None], scores, 0.0)
    best = best_pairs(scores, settings.min_score, settings.candidates)
    chosen = deltas.flatten(1, 2).gather(1, best.pairs[..., None].expand(-1, -1, 4))
    start = regions.gather(1, best.places[..., None].expand(-1, -1, 4))
    boxes = clip(decode(chosen, start, weights), frame_hw)
    good = best.scores > settings.min_score
    good = good & both_sides_at_least(boxes, settings.min_side_pixels)
    found = keep_best(Candidates(boxes, best.scores, best.labels), good, good.shape[1])
    return found.boxes, found.scores, found.labels, best.exact


@dataclass(frozen=True)
class Sampling:
    """Which regions a step learns from. Two pictures make the papers' 128, 32 of them objects."""

    per_picture: int = 64
    object_share: float = 0.25
    """At most; the rest is background."""
    background: tuple[float, float] = (0.0, 0.5)
    """Overlaps of those, the first included. Fast R-CNN starts at 0.1, which favours hard
    ones; where too few lie above it (a picture without objects has none), the rest is drawn below.
    """


@torch.no_grad()
def draw(batch: TrainingBatch, sampling: Sampling, weights: Weights) -> RoiSample:
    """Regions with what they should become; true boxes are regions too, so objects never lack.

    Raises:
        ValueError: the batch brings no regions.
    """
    if batch.regions is None:
        raise ValueError("this network learns from regions, and the batch has none")
    pairs = zip(batch.regions, batch.truths, strict=True)
    drawn = [_draw_one(proposed, truth, sampling, weights) for proposed, truth in pairs]
    return RoiSample(*(torch.stack(column) for column in zip(*drawn, strict=True)))


def _draw_one(
    proposed: Tensor, truth: Truth, sampling: Sampling, weights: Weights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One picture's row of :class:`RoiSample`."""
    proposed = proposed[both_sides_at_least(proposed, PIXELS_WIDE)]
    boxes = torch.cat([proposed, truth.boxes.to(proposed)])
    overlap, index = best_overlap(boxes, truth)
    verdict = verdicts(boxes, overlap, truth, sampling.background)
    objects, background = sample(verdict, sampling.per_picture, sampling.object_share)
    missing = sampling.per_picture - len(objects) - len(background)
    if missing and sampling.background[0] > 0:
        easy = verdicts(boxes, overlap, truth, (0.0, sampling.background[0])) == 0
        easy = easy.nonzero()[:, 0]
        chosen = torch.randperm(len(easy))[:missing].to(easy.device)
        background = torch.cat([background, easy[chosen]])
    coder = partial(encode, weights=weights)
    return sample_row(boxes, truth, index, objects, background, sampling.per_picture, coder)


def best_overlap(boxes: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """IoU (R,) of each box with its best true box, and that one's number (R,); 0 without any."""
    if not len(truth.boxes):
        nothing = boxes.new_zeros(len(boxes))
        return nothing, nothing.long()
    overlap, index = iou(boxes, truth.boxes).max(1)
    return overlap, index


def verdicts(
    boxes: Tensor, overlap: Tensor, truth: Truth, background: tuple[float, float]
) -> Tensor:
    """(R,) int64: 1 object, 0 background, -1 neither, which is also half inside the unknown."""
    low, high = background
    verdict = torch.full_like(overlap, NEITHER, dtype=torch.int64)
    verdict[(overlap >= low) & (overlap < high) & (share_inside(boxes, truth.ignored) <= 0.5)] = 0
    verdict[overlap >= OBJECT_OVERLAP] = 1
    return verdict
