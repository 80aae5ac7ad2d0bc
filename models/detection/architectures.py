"""The Faster R-CNNs that can be built by name."""

from __future__ import annotations

from functools import partial

from torch import nn

from models.anchors import AnchorGrid
from models.backbones.mobilenet import mobilenet_v2_fpn, mobilenet_v3_large_fpn
from models.backbones.pyramid import PyramidBackbone
from models.backbones.resnet import resnet50_fpn
from models.detection.faster_rcnn import FasterRCNN
from models.detection.frame_size import Resize
from models.detection.pooling import PyramidRoIAlign
from models.detection.roi import (
    BoxPredictor,
    DetectionSettings,
    RoIHeads,
    TwoLayerHead,
    conv_head,
)
from models.detection.rpn import ProposalSettings, RegionProposalNetwork, RPNHead

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
