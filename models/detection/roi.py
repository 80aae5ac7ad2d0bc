"""The second stage of Fast R-CNN (Girshick, ICCV 2015, arXiv:1504.08083): pool, score, refine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.pyramid import Norm, conv
from models.boxes import SizeHW, at_least_float32, both_sides_at_least, clip, decode
from models.detection.pooling import PyramidRoIAlign
from models.detection.region_pooling import RoIMaxPool
from models.detection.rpn import Proposals
from models.detection.suppression import Suppress

Pool = PyramidRoIAlign | RoIMaxPool

PROPOSAL_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the box coder between proposals and detections: about one over the deltas' deviation."""


@dataclass(frozen=True)
class DetectionSettings:
    """Which boxes count as found."""

    min_score: float = 0.05
    iou: float = 0.5
    candidates: int = 1000
    """Slots for (proposal, class) pairs that enter the last NMS."""
    detections: int = 100
    """Slots for boxes that leave it."""
    min_side_pixels: float = 1e-2


class Candidates(NamedTuple):
    """(proposal, class) pairs, best first. An empty slot has score, label and box 0."""

    boxes: Tensor
    """(N, M, 4) float32, pixels of the padded image, clipped to the image."""
    scores: Tensor
    """(N, M) float32 in [0, 1], descending."""
    labels: Tensor
    """(N, M) int64; the background is not counted: 0 is the first class."""


class TwoLayerHead(nn.Module):
    """Two fully connected layers (FPN's head)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(inputs, hidden)
        self.fc7 = nn.Linear(hidden, hidden)

    def forward(self, bins: Tensor) -> Tensor:
        """(R, C, 7, 7) -> (R, hidden)."""
        return F.relu(self.fc7(F.relu(self.fc6(bins.flatten(1)))))


def conv_head(channels: int, bins: int, depth: int, hidden: int, norm: Norm) -> nn.Sequential:
    """``depth`` 3x3 convolutions and one fully connected layer (arXiv:1803.08494, sec. 5)."""
    layers = [conv(channels, channels, 3, norm, relu=True) for _ in range(depth)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.get_parameter("0.weight"), mode="fan_out")
    fully_connected = nn.Linear(channels * bins * bins, hidden)
    return nn.Sequential(*layers, nn.Flatten(), fully_connected, nn.ReLU(inplace=True))


class BoxPredictor(nn.Module):
    """Scores of all classes and the background (first), and one box for each of them."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, num_classes + 1)
        self.bbox_pred = nn.Linear(inputs, (num_classes + 1) * 4)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(R, inputs) -> logits (R, C + 1), deltas (R, (C + 1) * 4)."""
        return self.cls_score(hidden), self.bbox_pred(hidden)


class RoIHeads(nn.Module):
    """Pooling, head and predictor, and the way from their numbers to candidates and detections."""

    def __init__(
        self,
        pool: Pool,
        box_head: nn.Module,
        box_predictor: BoxPredictor,
        settings: DetectionSettings,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.settings = settings

    def forward(self, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At test time. boxes (N, R, 4) -> logits (N, R, C + 1), deltas (N, R, C + 1, 4).

        And (N,) bool: the boxes were sound (see pooling.py).
        """
        bins, sound = self.pool.atlas(features, boxes)
        logits, deltas = self.box_predictor(self.box_head(bins.to(features[0].dtype)))
        shape = (*boxes.shape[:2], -1)
        return at_least_float32(logits).reshape(shape), deltas.reshape(*shape, 4), sound

    def candidates(
        self, logits: Tensor, deltas: Tensor, proposals: Proposals, image_hw: SizeHW
    ) -> tuple[Candidates, Tensor]:
        """The best (proposal, class) pairs, decoded; and the number above ``min_score``, (N,).

        Only these are decoded. NMS in the order of scores never looks back, so what is left out
        could only have come after all of them.
        """
        _, count, outputs = logits.shape
        classes = outputs - 1
        scores = F.softmax(logits, -1)[..., 1:]
        scores = torch.where(proposals.valid[..., None], scores, 0.0).flatten(1)
        above = (scores > self.settings.min_score).sum(1)
        scores, pair = scores.topk(min(self.settings.candidates, count * classes), 1)
        proposal = torch.div(pair, classes, rounding_mode="floor")
        label = pair - proposal * classes
        output = pair + proposal + 1  # each proposal has a box more than pairs: the background's
        chosen = deltas.flatten(1, 2).gather(1, output[..., None].expand(-1, -1, 4))
        start = proposals.boxes.gather(1, proposal[..., None].expand(-1, -1, 4))
        boxes = clip(decode(chosen, start, PROPOSAL_WEIGHTS), image_hw)
        found = scores > self.settings.min_score
        found = found & both_sides_at_least(boxes, self.settings.min_side_pixels)
        everything = Candidates(boxes, scores, label)
        return keep_best(everything, found, scores.shape[1]), above

    def detections(
        self, candidates: Candidates, num_classes: int, nms: Suppress
    ) -> tuple[Candidates, Tensor]:
        """What class-wise NMS leaves of the candidates; and whether it came to its end, (N,)."""
        boxes, scores, labels = candidates
        keep, exact = nms(boxes, scores > 0, labels, num_classes, self.settings.iou)
        slots = min(self.settings.detections, scores.shape[1])
        return keep_best(candidates, keep, slots), exact


def count_kept(found: Candidates, above: Tensor, kept: Candidates) -> tuple[Tensor, Tensor]:
    """(N,) int64 boxes that suppression kept, and (N,) bool: no pair was missed for want of slots.

    above: (N,) pairs above ``min_score``, of which ``found`` has slots for the best.
    """
    count = (kept.scores > 0).sum(1)
    # Full slots need nothing from the pairs left out; they could only have come later.
    return count, (above <= found.scores.shape[1]) | (count >= kept.scores.shape[1])


def keep_best(candidates: Candidates, keep: Tensor, slots: int) -> Candidates:
    """The first ``slots`` of those with ``keep`` (N, M) to the front; the rest is emptied."""
    scores, order = torch.where(keep, candidates.scores, 0.0).topk(slots, 1)
    filled = scores > 0
    boxes = candidates.boxes.gather(1, order[..., None].expand(-1, -1, 4))
    labels = candidates.labels.gather(1, order)
    return Candidates(
        torch.where(filled[..., None], boxes, 0.0), scores, torch.where(filled, labels, 0)
    )
