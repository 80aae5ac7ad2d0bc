"""Greedy non-maximum suppression with static shapes, in two exact forms.

Both take K boxes *in order of rank* (best first) per group and return which stay. A rank instead
of a score makes the two forms equal to the last bit: neither has ties to break.

``fixpoint``  K x K overlaps and a few passes over them: no shape in it depends on the data, so it
              runs inside TensorRT and CUDA graphs (Cluster-NMS, arXiv:2005.03572, proves that
              the fixpoint is greedy NMS). A certificate says whether it was reached.
``greedy``    one operator: a loop in torch, ``NonMaxSuppression`` in ONNX. For CPUs, where K x K
              work costs more than a loop once K reaches the thousand.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor

from models.boxes import overlap_more_than

Suppress = Callable[[Tensor, Tensor, Tensor | None, int, float], tuple[Tensor, Tensor]]
"""(boxes (G, K, 4) by rank, valid (G, K) bool, labels (G, K) int64 or None, number of labels,
IoU above which the lower rank goes) -> (keep (G, K) bool, exact (G,) bool).

Boxes of different labels never touch each other; None means one label.
"""


def fixpoint_nms(iterations: int) -> Suppress:
    """The static form. Box chains longer than ``iterations`` links come out with exact = False.

    Iterate t is right for every box whose chain of suppressors is shorter than t, so two equal
    iterates are the answer. Clustered boxes need about a dozen; K always suffices.
    """

    def suppress(
        boxes: Tensor, valid: Tensor, labels: Tensor | None, num_labels: int, iou: float
    ) -> tuple[Tensor, Tensor]:
        rivals = overlap_more_than(boxes, iou)
        if labels is not None:
            rivals = rivals & (labels[:, :, None] == labels[:, None, :])
        count = boxes.shape[1]
        worse = torch.ones(count, count, dtype=torch.bool, device=boxes.device).triu(1)
        blocks = (rivals & worse).float()  # blocks[g, i, j] = 1: i would suppress j
        previous = keep = alive = valid.float()
        for _ in range(iterations):
            # A product with a matrix, but not written as one: OpenVINO in bfloat16 would lower the
            # precision of all that only leads to matrix products, which are the boxes.
            # Over the rows, because a CPU takes the largest of whole rows at once.
            blocked = (blocks * keep[:, :, None]).amax(1)
            previous, keep = keep, alive - alive * blocked
        return keep > 0.5, (keep == previous).all(1)

    return suppress


def greedy_nms(
    boxes: Tensor, valid: Tensor, labels: Tensor | None, num_labels: int, iou: float
) -> tuple[Tensor, Tensor]:
    """The one-operator form; always exact."""
    if labels is None:
        labels = torch.zeros_like(valid, dtype=torch.int64)
    keep = ranked_nms(boxes, valid, labels, num_labels, iou)
    return keep, torch.ones_like(valid[:, 0])


@torch.library.custom_op("boxstream::ranked_nms", mutates_args=())
def ranked_nms(boxes: Tensor, valid: Tensor, labels: Tensor, num_labels: int, iou: float) -> Tensor:
    """Greedy NMS per group and label -> keep (G, K) bool; ONNX: `models.model_file.operators`."""
    keep = torch.zeros_like(valid)
    rank_score = -torch.arange(boxes.shape[1], device=boxes.device).to(boxes)
    for group in range(boxes.shape[0]):
        for label in range(num_labels):
            chosen = torch.nonzero(valid[group] & (labels[group] == label))[:, 0]
            if chosen.numel():
                kept = torchvision.ops.nms(boxes[group, chosen], rank_score[chosen], iou)
                keep[group, chosen[kept]] = True
    return keep


@ranked_nms.register_fake
def _(boxes: Tensor, valid: Tensor, labels: Tensor, num_labels: int, iou: float) -> Tensor:
    return torch.empty_like(valid)
