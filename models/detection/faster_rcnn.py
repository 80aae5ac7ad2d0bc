"""Faster R-CNN (Ren et al., NeurIPS 2015, arXiv:1506.01497) with a feature pyramid.

Changed since Fast R-CNN: the regions come from the network itself, by a head on the same features
(sec. 3.1), so there is one forward pass and nothing to wait for on the side.

Changed since torchvision, whose weights fit one to one: the whole way from uint8 frames to boxes
is a graph of static shapes with a free batch. Nothing in it depends on what is in the picture, so
it can be exported, batched and captured, and its ``exact`` output says when a bound was too tight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.anchors import AnchorGrid
from models.backbones.mobilenet import mobilenet_v2_fpn, mobilenet_v3_large_fpn
from models.backbones.pyramid import PyramidBackbone
from models.backbones.resnet import resnet50_fpn
from models.boxes import SizeHW
from models.detection.pooling import PyramidRoIAlign
from models.detection.roi import (
    BoxPredictor,
    Candidates,
    DetectionSettings,
    RoIHeads,
    TwoLayerHead,
    conv_head,
)
from models.detection.rpn import ProposalSettings, RegionProposalNetwork, RPNHead
from models.detection.suppression import fixpoint_nms, greedy_nms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

OutputForm = Literal["candidates", "detections"]
NMSBody = Literal["fixpoint", "nonmaxsuppression"]


class CandidateOutput(NamedTuple):
    """What the graph returns before the last NMS; boxes in pixels of the frame."""

    boxes: Tensor
    """(N, M, 4) float32."""
    scores: Tensor
    """(N, M) float32, descending; 0 in an empty slot."""
    labels: Tensor
    """(N, M) int64, 0 for the first class."""
    exact: Tensor
    """(N,) bool: no bound of the graph was too tight for this frame."""


class DetectionOutput(NamedTuple):
    """What the graph returns after the last NMS; as above, with K slots."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    count: Tensor
    """(N,) int64 filled slots."""
    exact: Tensor


@dataclass(frozen=True)
class Resize:
    """The largest size whose sides stay below these, at the frame's aspect (torchvision's rule)."""

    short_pixels: int
    long_pixels: int

    def __call__(self, frame_hw: SizeHW) -> SizeHW:
        """(height, width) of the network's image for this frame, without padding."""
        scale = min(self.short_pixels / min(frame_hw), self.long_pixels / max(frame_hw))
        return int(frame_hw[0] * scale), int(frame_hw[1] * scale)


class FrameSize(nn.Module):
    """All that depends on the frames' size only: how to fit them, and the anchors."""

    def __init__(self, frame_hw: SizeHW, image_hw: SizeHW, padded_hw: SizeHW) -> None:
        super().__init__()
        self.frame_hw = frame_hw
        self.image_hw = image_hw
        self.padded_hw = padded_hw
        self.num_levels = 0

    def set_anchors(self, anchors: Sequence[Tensor]) -> None:
        """Keeps them as constants of the graph that are no weights."""
        self.num_levels = len(anchors)
        for level, boxes in enumerate(anchors):
            self.register_buffer(f"anchors{level}", boxes, persistent=False)

    @property
    def anchors(self) -> list[Tensor]:
        """Per level (n_l, 4)."""
        return [getattr(self, f"anchors{level}") for level in range(self.num_levels)]

    def fit(self, images: Tensor) -> Tensor:
        """(N, 3, *frame_hw) -> (N, 3, *padded_hw): resized, zeros on the right and below."""
        if self.image_hw != self.frame_hw:
            images = F.interpolate(images, size=self.image_hw, mode="bilinear", align_corners=False)
        below = self.padded_hw[0] - self.image_hw[0]
        right = self.padded_hw[1] - self.image_hw[1]
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def to_frame(self, boxes: Tensor) -> Tensor:
        """(..., 4) in pixels of the image -> pixels of the frame."""
        if self.image_hw == self.frame_hw:
            return boxes
        (frame_h, frame_w), (image_h, image_w) = self.frame_hw, self.image_hw
        return boxes * boxes.new_tensor([frame_w / image_w, frame_h / image_h] * 2)


class FasterRCNN(nn.Module):
    """The parts by name, for training; and their static composition, for everything else."""

    def __init__(
        self,
        backbone: PyramidBackbone,
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
        self.nms = greedy_nms
        scale = 255.0 * torch.tensor(IMAGENET_DEVIATION)[:, None, None]
        mean = 255.0 * torch.tensor(IMAGENET_MEAN)[:, None, None]
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_scale", scale, persistent=False)

    def forward(self, frames: Tensor) -> CandidateOutput | DetectionOutput:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> fixed slots per frame."""
        size = self._prepared(frames)
        images = size.fit(self.normalise(frames))
        features = self.backbone(images)
        proposals = self.rpn(features, size.anchors, size.image_hw, self.nms)
        logits, deltas = self.roi_heads(features, proposals.boxes)
        found, above = self.roi_heads.candidates(logits, deltas, proposals, size.image_hw)
        if self.output_form == "candidates":
            return self._as_candidates(found, above, proposals.exact)
        return self._as_detections(found, above, proposals.exact)

    def _as_candidates(self, found: Candidates, above: Tensor, exact: Tensor) -> CandidateOutput:
        assert self.size is not None
        exact = exact & (above <= found.scores.shape[1])
        return CandidateOutput(self.size.to_frame(found.boxes), found.scores, found.labels, exact)

    def _as_detections(self, found: Candidates, above: Tensor, exact: Tensor) -> DetectionOutput:
        assert self.size is not None
        slots = found.scores.shape[1]
        found, nms_exact = self.roi_heads.detections(found, self.num_classes, self.nms)
        count = (found.scores > 0).sum(1)
        # Full slots need nothing from the pairs left out; they could only have come later.
        complete = (above <= slots) | (count >= found.scores.shape[1])
        boxes = self.size.to_frame(found.boxes)
        return DetectionOutput(
            boxes, found.scores, found.labels, count, exact & nms_exact & complete
        )

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
        image_hw = frame_hw if self.resize is None else self.resize(frame_hw)
        padded_hw = (-(-image_hw[0] // 32) * 32, -(-image_hw[1] // 32) * 32)
        size = FrameSize(frame_hw, image_hw, padded_hw)
        with torch.no_grad():
            features = self.backbone(self.pixel_mean.new_zeros(1, 3, *padded_hw))
        size.set_anchors(self.anchors(features, padded_hw))
        self.size = size
        self.output_form = output_form
        self.nms = NMS_BODIES[nms_body](nms_iterations)
        return self

    def normalise(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, 3, H, W) float of about zero mean and unit deviation."""
        return (
            frames.permute(0, 3, 1, 2).to(self.pixel_mean.dtype) - self.pixel_mean
        ) / self.pixel_scale

    def anchors(self, features: Sequence[Tensor], padded_hw: SizeHW) -> list[Tensor]:
        """Per level (n_l, 4) float32 in pixels of the padded image, on the features' device."""
        maps_hw = [(level.shape[2], level.shape[3]) for level in features]
        return [boxes.to(features[0].device) for boxes in self.anchor_grid(maps_hw, padded_hw)]

    def _prepared(self, frames: Tensor) -> FrameSize:
        if self.size is None or tuple(frames.shape[1:3]) != self.size.frame_hw:
            wanted = None if self.size is None else self.size.frame_hw
            raise ValueError(
                f"prepared for frames of {wanted}, got {tuple(frames.shape[1:3])}; "
                "call prepare(frame_hw) first"
            )
        return self.size


NMS_BODIES = {"fixpoint": fixpoint_nms, "nonmaxsuppression": lambda iterations: greedy_nms}

COCO_CLASSES = 90
"""As torchvision counts them: the numbers of the COCO categories, ten of them unused."""


def _resnet50_fpn(num_classes: int | None, eps: float) -> FasterRCNN:
    return _assemble(
        resnet50_fpn(batch_norm_eps=eps),
        AnchorGrid(((32,), (64,), (128,), (256,), (512,))),
        PyramidRoIAlign(strides=(4, 8, 16, 32)),
        num_classes=num_classes or COCO_CLASSES,
        resize=Resize(800, 1333),
    )


def _resnet50_fpn_v2(num_classes: int | None, eps: float) -> FasterRCNN:
    norm = partial(nn.BatchNorm2d, eps=eps)
    return _assemble(
        resnet50_fpn(batch_norm_eps=eps, pyramid_norm=norm),
        AnchorGrid(((32,), (64,), (128,), (256,), (512,))),
        PyramidRoIAlign(strides=(4, 8, 16, 32)),
        rpn_depth=2,
        box_head=conv_head(256, 7, depth=4, hidden=1024, norm=norm),
        num_classes=num_classes or COCO_CLASSES,
        resize=Resize(800, 1333),
    )


def _mobilenet_v3_large_fpn(num_classes: int | None, eps: float) -> FasterRCNN:
    return _assemble(
        mobilenet_v3_large_fpn(batch_norm_eps=eps),
        AnchorGrid(((32, 64, 128, 256, 512),) * 3),
        # The second map has the first one's stride, and FPN's rule never chooses it.
        PyramidRoIAlign(strides=(32,)),
        proposals=ProposalSettings(min_score=0.05),
        num_classes=num_classes or COCO_CLASSES,
        resize=Resize(800, 1333),
    )


def _mobilenet_v3_large_320_fpn(num_classes: int | None, eps: float) -> FasterRCNN:
    model = _mobilenet_v3_large_fpn(num_classes, eps)
    model.rpn.settings = ProposalSettings(pre_nms=150, post_nms=150, min_score=0.05)
    model.resize = Resize(320, 640)
    return model


def _mobilenet_v2_fpn(num_classes: int | None, eps: float) -> FasterRCNN:
    """Ours, for street scenes at 576 pixels: small boxes, few of them, no resize."""
    return _assemble(
        mobilenet_v2_fpn(channels=128, batch_norm_eps=eps),
        AnchorGrid(((12, 20), (32, 48), (72, 112), (160, 240))),
        # A box of 56 pixels spans the 7 bins with 7 cells of stride 8.
        PyramidRoIAlign(strides=(8, 16, 32), canonical_pixels=56, canonical_level=4),
        box_head=TwoLayerHead(128 * 7 * 7, 512),
        hidden=512,
        proposals=ProposalSettings(pre_nms=250, post_nms=100),
        detections=DetectionSettings(candidates=300),
        num_classes=num_classes or 6,
        resize=None,
    )


def _assemble(
    backbone: PyramidBackbone,
    anchor_grid: AnchorGrid,
    pool: PyramidRoIAlign,
    *,
    num_classes: int,
    resize: Resize | None,
    rpn_depth: int = 1,
    box_head: nn.Module | None = None,
    hidden: int = 1024,
    proposals: ProposalSettings = ProposalSettings(),  # noqa: B008 (frozen)
    detections: DetectionSettings = DetectionSettings(),  # noqa: B008 (frozen)
) -> FasterRCNN:
    head = RPNHead(backbone.out_channels, anchor_grid.per_cell, rpn_depth)
    box_head = box_head or TwoLayerHead(backbone.out_channels * pool.output**2, hidden)
    roi_heads = RoIHeads(pool, box_head, BoxPredictor(hidden, num_classes), detections)
    rpn = RegionProposalNetwork(head, proposals)
    return FasterRCNN(backbone, anchor_grid, rpn, roi_heads, num_classes=num_classes, resize=resize)


ARCHITECTURES = {
    "resnet50_fpn": _resnet50_fpn,
    "resnet50_fpn_v2": _resnet50_fpn_v2,
    "mobilenet_v3_large_fpn": _mobilenet_v3_large_fpn,
    "mobilenet_v3_large_320_fpn": _mobilenet_v3_large_320_fpn,
    "mobilenet_v2_fpn": _mobilenet_v2_fpn,
}
"""By torchvision's names without ``fasterrcnn_``; the last one is ours."""


def faster_rcnn(
    architecture: str, num_classes: int | None = None, *, batch_norm_eps: float = 1e-5
) -> FasterRCNN:
    """A Faster R-CNN with random weights, in training mode.

    num_classes: without the background; None means 90 (COCO), for ``mobilenet_v2_fpn`` 6.
    batch_norm_eps: torchvision's ``resnet50_fpn`` weights for COCO were made with 0.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"unknown architecture {architecture!r}; known: {known}")
    return ARCHITECTURES[architecture](num_classes, batch_norm_eps)
