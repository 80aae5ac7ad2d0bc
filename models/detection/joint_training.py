"""How Faster R-CNN learns: both stages at once, from one forward pass, or one of them alone.

At once is "approximate joint training" (Ren et al., arXiv:1506.01497, sec. 3.2): proposals count as
given, so no gradient flows through their coordinates. One alone is a step of
:mod:`models.detection.alternating_training`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from models.anchors import AnchorGrid
from models.boxes import SizeHW, clip, encode
from models.data.batches import TrainingBatch
from models.detection.frame_size import anchors_on
from models.detection.losses import RoiSample, roi_losses, rpn_losses, sample_rois
from models.detection.roi import PROPOSAL_WEIGHTS, RoIHeads
from models.detection.rpn import ANCHOR_WEIGHTS, RegionProposalNetwork

Learning = Literal["jointly", "proposals", "detections"]
"""Both stages, or one of them."""
LOSSES = ("objectness", "proposal_box", "class", "box")


@dataclass(frozen=True)
class Proposing:
    """How many proposals a training step makes and uses, per picture.

    The defaults are the pyramids' and are less than their papers', see ``faster_rcnn.py``.
    """

    pre_nms: int = 400
    """Per pyramid level."""
    post_nms: int = 250
    anchors: int = 256
    rois: int = 96
    iou: float = 0.7
    inside: bool = False
    """Whether anchors that cross the picture's border learn nothing (sec. 3.3)."""


class TwoStages(Protocol):
    """What is trained here: the parts that Faster R-CNN and Mask R-CNN have in common, by name."""

    @property
    def normalise(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def backbone(self) -> Callable[[Tensor], Any]: ...
    @property
    def anchor_grid(self) -> AnchorGrid: ...
    @property
    def rpn(self) -> RegionProposalNetwork: ...
    @property
    def roi_heads(self) -> RoIHeads: ...


class JointPass(NamedTuple):
    """What one forward pass of training leaves for further heads to learn from."""

    losses: dict[str, Tensor]
    features: list[Tensor]
    """Per level (N, C, h, w)."""
    drawn: RoiSample
    """The proposals that the second stage learned from."""


def joint_pass(model: TwoStages, batch: TrainingBatch, proposing: Proposing) -> JointPass:
    """Both stages, and what they saw.

    Under autocast only convolutions and matrices are halved; boxes and losses stay float32.
    """
    features = features_of(model, batch.frames)
    first = FirstStage.of(model, features, size_of(batch))
    losses = first.losses(batch, proposing)
    proposals = first.proposals(model, proposing)
    of_second, drawn = second_stage(model, features, proposals, batch, proposing)
    return JointPass(losses | of_second, features, drawn)


def joint_losses(model: TwoStages, batch: TrainingBatch, proposing: Proposing) -> dict[str, Tensor]:
    """The four losses of Faster R-CNN, by the names in ``LOSSES``."""
    return joint_pass(model, batch, proposing).losses


def proposal_losses(
    model: TwoStages, batch: TrainingBatch, proposing: Proposing
) -> dict[str, Tensor]:
    """The first stage's two alone."""
    first = FirstStage.of(model, features_of(model, batch.frames), size_of(batch))
    return first.losses(batch, proposing)


def detection_losses(
    model: TwoStages, batch: TrainingBatch, proposing: Proposing
) -> dict[str, Tensor]:
    """The second stage's two alone, on the batch's own proposals.

    Raises:
        ValueError: the batch brings none.
    """
    if batch.regions is None:
        raise ValueError("the second stage alone learns from proposals, and the batch has none")
    features = features_of(model, batch.frames)
    return second_stage(model, features, batch.regions, batch, proposing)[0]


LEARNING: dict[Learning, Callable[[TwoStages, TrainingBatch, Proposing], dict[str, Tensor]]] = {
    "jointly": joint_losses,
    "proposals": proposal_losses,
    "detections": detection_losses,
}
"""What learns -> its losses."""


def features_of(model: TwoStages, frames: Tensor) -> list[Tensor]:
    """The maps of frames (N, H, W, 3) uint8 RGB."""
    images = model.normalise(frames).contiguous(memory_format=torch.channels_last)
    maps: list[Tensor] = model.backbone(images)
    return maps


def size_of(batch: TrainingBatch) -> SizeHW:
    """Height and width of its pictures."""
    return batch.frames.shape[1], batch.frames.shape[2]


class FirstStage(NamedTuple):
    """What the proposal network says of every anchor, per level, in float32."""

    logits: list[Tensor]
    """(N, n_l)"""
    deltas: list[Tensor]
    """(N, n_l, 4)"""
    anchors: list[Tensor]
    """(n_l, 4)"""
    size_hw: SizeHW
    """Of the pictures."""

    @staticmethod
    def of(model: TwoStages, features: Sequence[Tensor], size_hw: SizeHW) -> FirstStage:
        """Run it on the maps of pictures."""
        maps = model.rpn.flatten(*model.rpn.head(features))
        logits, deltas = ([level.float() for level in kind] for kind in maps)
        return FirstStage(logits, deltas, anchors_on(model.anchor_grid, features, size_hw), size_hw)

    def losses(self, batch: TrainingBatch, proposing: Proposing) -> dict[str, Tensor]:
        """Of objectness and boxes."""
        anchors = torch.cat(self.anchors)
        learning = inside(anchors, self.size_hw) if proposing.inside else slice(None)
        losses = rpn_losses(
            anchors[learning],
            torch.cat(self.logits, 1)[:, learning],
            torch.cat(self.deltas, 1)[:, learning],
            batch.truths,
            partial(encode, weights=ANCHOR_WEIGHTS),
            proposing.anchors,
        )
        return dict(zip(LOSSES[:2], losses, strict=True))

    def proposals(self, model: TwoStages, proposing: Proposing) -> list[Tensor]:
        """The best of each picture, (P_i, 4), best first, without a gradient."""
        boxes, valid = model.rpn.propose(
            *self, proposing.pre_nms, proposing.post_nms, proposing.iou
        )
        return [own[real] for own, real in zip(boxes, valid, strict=True)]


def second_stage(
    model: TwoStages,
    features: Sequence[Tensor],
    proposals: list[Tensor],
    batch: TrainingBatch,
    proposing: Proposing,
) -> tuple[dict[str, Tensor], RoiSample]:
    """Losses of the detector on proposals (P_i, 4) of each picture, and those that were drawn."""
    drawn = sample_rois(
        proposals,
        batch.truths,
        partial(encode, weights=PROPOSAL_WEIGHTS),
        proposing.rois,
    )
    bins = model.roi_heads.pool(features, drawn.boxes)
    class_logits, box_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(bins))
    losses = roi_losses(class_logits.float(), box_deltas.float(), drawn)
    return dict(zip(LOSSES[2:], losses, strict=True)), drawn


def inside(anchors: Tensor, size_hw: SizeHW) -> Tensor:
    """Which anchors (A, 4) lie within a picture, (A,) bool; all of them where none does."""
    within = (clip(anchors[None], size_hw)[0] == anchors).all(1)
    return within if bool(within.any()) else ~within
