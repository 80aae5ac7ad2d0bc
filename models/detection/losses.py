"""What Faster R-CNN learns from: matching, sampling and the multi-task losses.

Both stages share one recipe (Ren et al., arXiv:1506.01497, sec. 3.1.2; Girshick, arXiv:1504.08083,
sec. 2.3): every anchor or proposal is matched to a true box by overlap, a balanced sample is drawn,
and the sample pays a cross-entropy for its class and, when positive, a smooth L1 for its box.

Here and there ``-1`` means "neither object nor background": overlaps in the grey zone between the
two thresholds, and places inside a region that the annotations declare unknown (COCO's
``iscrowd``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

NEITHER = -1


@dataclass(frozen=True)
class Truth:
    """What is in one training picture, in pixels of the network's input."""

    boxes: Tensor
    """(G, 4) float32 ``x1, y1, x2, y2``."""
    class_ids: Tensor
    """(G,) int64, 0-based, without background."""
    ignored: Tensor
    """(I, 4) float32 regions in which nothing is known."""
    masks: Tensor | None = None
    """(G, H, W) uint8, 1 where the object is; None where only boxes are known."""

    def to(self, device: torch.device) -> Truth:
        """The same on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        boxes, class_ids = self.boxes.to(device), self.class_ids.to(device)
        return Truth(boxes, class_ids, self.ignored.to(device), masks)


@dataclass(frozen=True)
class Thresholds:
    """Overlaps that separate object, grey zone and background."""

    object: float
    background: float
    rescue: bool
    """Also call the best anchors of every true box objects, however small their overlap."""


RPN_THRESHOLDS = Thresholds(object=0.7, background=0.3, rescue=True)
"""Faster R-CNN sec. 3.1.2; ``rescue`` is its condition (i)."""
ROI_THRESHOLDS = Thresholds(object=0.5, background=0.5, rescue=False)
"""Fast R-CNN sec. 2.3. Its lower bound 0.1 (hard negatives) is 0 here, as in Faster R-CNN's own
code."""


def share_inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """Largest part of each box (N, 4) that lies in any one region (R, 4): (N,) in 0..1."""
    if not len(regions):
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)
    return (shared / area[:, None]).amax(1)


def match(boxes: Tensor, truth: Truth, thresholds: Thresholds) -> tuple[Tensor, Tensor]:
    """Give every anchor or proposal a true box and a verdict.

    Args:
        boxes: (N, 4) anchors or proposals.

    Returns:
        index (N,) int64 of the best true box (0 where there is none), and
        verdict (N,) int64: 1 object, 0 background, -1 neither.
    """
    verdict = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    index = torch.zeros_like(verdict)
    if len(truth.boxes):
        iou = box_iou(truth.boxes, boxes)
        best, index = iou.max(0)
        verdict[best >= thresholds.background] = NEITHER
        verdict[best >= thresholds.object] = 1
        if thresholds.rescue:
            most = iou.amax(1, keepdim=True)
            verdict[((iou == most) & (most > 0)).any(0)] = 1
    unknown = share_inside(boxes, truth.ignored) > 0.5
    verdict[unknown & (verdict == 0)] = NEITHER
    return index, verdict


def sample(verdict: Tensor, size: int, object_share: float) -> tuple[Tensor, Tensor]:
    """Draw at most ``size`` places, at most ``object_share`` of them objects, the rest background.

    Returns:
        indices of the drawn objects and of the drawn background, both int64.
    """
    objects, background = (verdict == 1).nonzero()[:, 0], (verdict == 0).nonzero()[:, 0]
    wanted = min(len(objects), int(size * object_share))
    # Drawn on the CPU, so that a seed means the same on every device.
    objects = objects[torch.randperm(len(objects))[:wanted].to(objects.device)]
    background = background[torch.randperm(len(background))[: size - wanted].to(objects.device)]
    return objects, background


def smooth_l1(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Fast R-CNN eq. 3, summed; quadratic below ``beta``, linear above."""
    return F.smooth_l1_loss(predicted, target, beta=beta, reduction="sum")


Encode = Callable[[Tensor, Tensor], Tensor]
"""``encode(true boxes, anchors) -> deltas``, all (N, 4): Faster R-CNN eq. 2."""


def rpn_losses(
    anchors: Tensor,
    objectness: Tensor,
    deltas: Tensor,
    truths: list[Truth],
    encode: Encode,
    size: int = 256,
) -> tuple[Tensor, Tensor]:
    """Faster R-CNN eq. 1 over a batch: objectness loss and box loss, both divided by the sample's
    size.

    Args:
        anchors: (A, 4), the same for every picture of the batch.
        objectness: (N, A) logits.
        deltas: (N, A, 4) predicted.
        size: anchors drawn per picture.
    """
    rows, labels, positive, targets = [], [], [], []
    count = len(anchors)
    for i, truth in enumerate(truths):
        index, verdict = match(anchors, truth, RPN_THRESHOLDS)
        objects, background = sample(verdict, size, 0.5)
        rows += [objects + i * count, background + i * count]
        labels += [deltas.new_ones(len(objects)), deltas.new_zeros(len(background))]
        positive.append(objects + i * count)
        if len(objects):
            targets.append(encode(truth.boxes[index[objects]], anchors[objects]))
    row, label, hit = torch.cat(rows), torch.cat(labels), torch.cat(positive)
    drawn = objectness.reshape(-1)[row]
    # Where all is to be ignored nothing is drawn, of which a mean would be no number.
    classification = F.binary_cross_entropy_with_logits(drawn, label, reduction="sum")
    classification = classification / max(len(row), 1)
    wanted = torch.cat(targets) if targets else deltas.new_zeros((0, 4))
    box = smooth_l1(deltas.reshape(-1, 4)[hit], wanted, beta=1 / 9) / max(len(row), 1)
    return classification, box


@dataclass(frozen=True)
class RoiSample:
    """The proposals of a batch drawn for training the second stage, equally many per picture."""

    boxes: Tensor
    """(N, R, 4) proposals; those that only fill up are one pixel in size."""
    labels: Tensor
    """(N, R) int64: 0 background, class id + 1 an object, -1 filled up."""
    targets: Tensor
    """(N, R, 4) deltas to the matched true box; meaningless where the label is not an object."""
    matches: Tensor
    """(N, R) int64 index of the matched true box; meaningless where the label is not an object."""


@torch.no_grad()
def sample_rois(
    proposals: list[Tensor],
    truths: list[Truth],
    encode: Encode,
    size: int = 128,
    object_share: float = 0.25,
) -> RoiSample:
    """Draw proposals as Fast R-CNN sec. 2.3 does; true boxes are proposals too, so objects never
    lack.

    Args:
        proposals: per picture (P_i, 4).
    """
    rows = []
    for proposed, truth in zip(proposals, truths, strict=True):
        boxes = torch.cat([proposed, truth.boxes])
        index, verdict = match(boxes, truth, ROI_THRESHOLDS)
        objects, background = sample(verdict, size, object_share)
        rows.append(sample_row(boxes, truth, index, objects, background, size, encode))
    return RoiSample(*(torch.stack(column) for column in zip(*rows, strict=True)))


def sample_row(
    boxes: Tensor,
    truth: Truth,
    index: Tensor,
    objects: Tensor,
    background: Tensor,
    size: int,
    encode: Encode,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One picture's row of :class:`RoiSample`, objects first.

    Args:
        boxes: (P, 4).
        index: (P,) of the true box of each.
        objects, background: which of ``boxes`` were drawn, together at most ``size``.
    """
    slots = boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).repeat(size, 1)
    labels = torch.full((size,), NEITHER, device=boxes.device)
    targets, matches = torch.zeros_like(slots), torch.zeros_like(labels)
    hits, used = len(objects), len(objects) + len(background)
    slots[:used] = boxes[torch.cat([objects, background])]
    labels[:used] = 0
    if hits:
        labels[:hits] = truth.class_ids[index[objects]] + 1
        matches[:hits] = index[objects]
        targets[:hits] = encode(truth.boxes[index[objects]], boxes[objects])
    return slots, labels, targets, matches


def roi_losses(logits: Tensor, deltas: Tensor, drawn: RoiSample) -> tuple[Tensor, Tensor]:
    """Fast R-CNN eq. 1: cross-entropy over classes, and smooth L1 on the true class's box.

    The knee of smooth L1 is at 1/9, as torchvision has it, where eq. 3 has 1.

    Args:
        logits: (N * R, classes + 1), background first.
        deltas: (N * R, 4 * (classes + 1)), four for every class.
    """
    labels = drawn.labels.flatten()
    classification = class_loss(logits, labels)
    objects = (labels > 0).nonzero()[:, 0]
    own = deltas.reshape(len(deltas), -1, 4)[objects, labels[objects]]
    targets = drawn.targets.reshape(-1, 4)[objects]
    box = smooth_l1(own, targets, beta=1 / 9) / (labels >= 0).sum().clamp(min=1)
    return classification, box


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over what is labelled; 0 where nothing is, in ignored regions only.

    Args:
        logits: (N, classes + 1), background first.
        labels: (N,) int64, -1 what is not labelled.
    """
    entropy = F.cross_entropy(logits, labels, ignore_index=NEITHER, reduction="sum")
    return entropy / (labels != NEITHER).sum().clamp(min=1)
