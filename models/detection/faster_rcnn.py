"""Faster R-CNN (Ren et al., NeurIPS 2015, arXiv:1506.01497) with a feature pyramid.

Changed since Fast R-CNN: the regions come from the network itself, by a head on the same features
(sec. 3.1), so there is one forward pass and nothing to wait for on the side.

Changed since torchvision, whose weights fit one to one: the whole way from uint8 frames to boxes
is a graph of static shapes with a free batch. Nothing in it depends on what is in the picture, so
it can be exported, batched and captured, and its ``exact`` output says when a bound was too tight.

Deviations:
- A step learns from few regions, for processors' sake: of each picture 400 a level enter the
  proposals' suppression, 250 come out, and 96 are drawn (``Proposing``). FPN (arXiv:1612.03144,
  sec. 5.2) and Mask R-CNN (sec. 3.1) draw 512, FPN from 2000. That holds for every architecture
  with a pyramid, ``resnet50_fpn`` and those with masks included.
- The knee of smooth L1 is at 1/9 in both stages, as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from models.anchors import AnchorGrid
from models.backbones.features import SingleMap
from models.backbones.pyramid import PyramidBackbone
from models.boxes import SizeHW
from models.data.batches import TrainingBatch
from models.detection.frame_size import (
    FrameSize,
    Resize,
    frame_size,
    prepared_for,
)
from models.detection.joint_training import LEARNING, Learning, Proposing
from models.detection.roi import Candidates, RoIHeads, count_kept
from models.detection.rpn import RegionProposalNetwork
from models.detection.suppression import Suppress, fixpoint_nms, greedy_nms
from models.network import Task, check_eval_mode
from models.pixels import Normalise

OutputForm = Literal["candidates", "detections"]
NMSBody = Literal["fixpoint", "nonmaxsuppression"]


OUTPUTS: dict[OutputForm, tuple[str, ...]] = {
    "candidates": ("boxes", "scores", "labels", "exact"),
    "detections": ("boxes", "scores", "labels", "count", "exact"),
}
"""What the graph returns, before and after the last NMS, S slots per frame, best first:

boxes (N, S, 4) float32 in pixels of the frame; scores (N, S) float32, 0 in an empty slot;
labels (N, S) int64, 0 for the first class; count (N,) int64 filled slots;
exact (N,) bool: no bound of the graph was too tight for this frame.
"""


class FasterRCNN(nn.Module):
    """The parts by name, for training; and their static composition, for everything else.

    Attributes: see :class:`models.network.Network`, and
        proposing: how many proposals a training step makes.
        learning: which stages a training step is for.
    """

    task: Task = "detection"
    proposer: str | None = None
    regions = 0

    def __init__(
        self,
        backbone: PyramidBackbone | SingleMap,
        anchor_grid: AnchorGrid,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        *,
        num_classes: int,
        resize: Resize | None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.anchor_grid = anchor_grid
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.num_classes = num_classes
        self.resize = resize
        self.size: FrameSize | None = None
        self.output_form: OutputForm = "detections"
        self.proposing = Proposing()
        self.learning: Learning = "jointly"
        self.nms: Suppress = greedy_nms
        self.normalise = Normalise()

    @property
    def outputs(self) -> tuple[str, ...]:
        """What :meth:`forward` returns, in order."""
        return OUTPUTS[self.output_form]

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """What both stages, or the one that ``learning`` names, learn from.

        Frames have sides that are multiples of 32.
        """
        return LEARNING[self.learning](self, batch, self.proposing)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> fixed slots per frame."""
        size = prepared_for(self.size, frames)
        images = size.fit(self.normalise(frames))
        features = self.backbone(images)
        proposals = self.rpn(features, size.anchors, size.image_hw, self.nms)
        logits, deltas, sound = self.roi_heads(features, proposals.boxes)
        found, above = self.roi_heads.candidates(logits, deltas, proposals, size.image_hw)
        finish = self._candidates if self.output_form == "candidates" else self._detections
        return finish(found, above, proposals.exact & sound)

    def _candidates(self, found: Candidates, above: Tensor, exact: Tensor) -> tuple[Tensor, ...]:
        assert self.size is not None
        exact = exact & (above <= found.scores.shape[1])
        return self.size.to_frame(found.boxes), found.scores, found.labels, exact

    def _detections(self, found: Candidates, above: Tensor, exact: Tensor) -> tuple[Tensor, ...]:
        assert self.size is not None
        kept, nms_exact = self.roi_heads.detections(found, self.num_classes, self.nms)
        count, complete = count_kept(found, above, kept)
        boxes = self.size.to_frame(kept.boxes)
        return boxes, kept.scores, kept.labels, count, exact & nms_exact & complete

    def prepare(
        self,
        frame_hw: SizeHW,
        *,
        output_form: OutputForm = "detections",
        nms_body: NMSBody = "nonmaxsuppression",
        nms_iterations: int = 16,
    ) -> FasterRCNN:
        """Fixes the frame size and the form of the graph; returns the model itself.

        nms_iterations: of the fixpoint (see suppression.py), which both NMS stages share.
        """
        check_eval_mode(self)
        self.size = frame_size(frame_hw, self.resize, self.backbone, self.anchor_grid)
        self.output_form = output_form
        self.nms = NMS_BODIES[nms_body](nms_iterations)
        return self


NMS_BODIES: dict[NMSBody, Callable[[int], Suppress]] = {
    "fixpoint": fixpoint_nms,
    "nonmaxsuppression": lambda iterations: greedy_nms,
}
