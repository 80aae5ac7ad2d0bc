"""How Faster R-CNN learns: both stages at once, from one forward pass.

"Approximate joint training" (Ren et al., arXiv:1506.01497, sec. 3.2): proposals count as given, so
no gradient flows through their coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.boxes import SizeHW, clip, encode
from models.data import TrainingBatch
from models.detection.losses import roi_losses, rpn_losses, sample_rois
from models.detection.roi import PROPOSAL_WEIGHTS
from models.detection.rpn import ANCHOR_WEIGHTS

if TYPE_CHECKING:
    from models.detection.faster_rcnn import FasterRCNN

LOSSES = ("objectness", "proposal_box", "class", "box")


@dataclass(frozen=True)
class Proposing:
    """How many proposals a training step makes and uses, per picture."""

    pre_nms: int = 400
    """Per pyramid level."""
    post_nms: int = 250
    anchors: int = 256
    rois: int = 96
    iou: float = 0.7
    inside: bool = False
    """Whether anchors that cross the picture's border learn nothing (sec. 3.1.3)."""


def joint_losses(
    model: FasterRCNN, batch: TrainingBatch, proposing: Proposing
) -> dict[str, Tensor]:
    """The four losses of Faster R-CNN, by the names in ``LOSSES``.

    Under autocast only convolutions and matrices are halved; boxes and losses stay float32.
    """
    size_hw = (batch.frames.shape[1], batch.frames.shape[2])
    images = model.normalise(batch.frames).contiguous(memory_format=torch.channels_last)
    features = model.backbone(images)
    maps = model.rpn.flatten(*model.rpn.head(features))
    logits, deltas = ([level.float() for level in kind] for kind in maps)
    anchors = model.anchors(features, size_hw)
    learning = inside(torch.cat(anchors), size_hw) if proposing.inside else slice(None)
    objectness, proposal_box = rpn_losses(
        torch.cat(anchors)[learning],
        torch.cat(logits, 1)[:, learning],
        torch.cat(deltas, 1)[:, learning],
        batch.truths,
        partial(encode, weights=ANCHOR_WEIGHTS),
        proposing.anchors,
    )
    proposals, valid = model.rpn.propose(
        logits, deltas, anchors, size_hw, proposing.pre_nms, proposing.post_nms, proposing.iou
    )
    drawn = sample_rois(
        [boxes[real] for boxes, real in zip(proposals, valid, strict=True)],
        batch.truths,
        partial(encode, weights=PROPOSAL_WEIGHTS),
        proposing.rois,
    )
    bins = model.roi_heads.pool(features, drawn.boxes)
    class_logits, box_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(bins))
    classification, box = roi_losses(class_logits.float(), box_deltas.float(), drawn)
    return dict(zip(LOSSES, (objectness, proposal_box, classification, box), strict=True))


def inside(anchors: Tensor, size_hw: SizeHW) -> Tensor:
    """Which anchors (A, 4) lie within a picture, (A,) bool; all of them where none does."""
    within = (clip(anchors[None], size_hw)[0] == anchors).all(1)
    return within if bool(within.any()) else ~within
