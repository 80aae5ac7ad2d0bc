"""A torchvision detector and our twin of it, with random weights that find something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import Bottleneck

from models.boxes import SizeHW, iou
from models.detection.architectures import faster_rcnn
from models.detection.faster_rcnn import OUTPUTS, FasterRCNN
from models.detection.frame_size import Resize

TORCHVISION = (
    "mobilenet_v3_large_320_fpn",
    "mobilenet_v3_large_fpn",
    "resnet50_fpn",
    "resnet50_fpn_v2",
)

Found = tuple[Tensor, Tensor, Tensor]
"""boxes (K, 4), labels (K,) from 0, scores (K,)"""


@lru_cache(maxsize=1)
def twins(architecture: str, resize: Resize | None = None) -> tuple[nn.Module, FasterRCNN]:
    """torchvision's model and ours, equal weights, eval mode; ``resize`` makes both cheaper."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, f"fasterrcnn_{architecture}")
    theirs = build(weights=None, weights_backbone=None).eval()
    ours = faster_rcnn(architecture).eval()
    if resize is not None:
        theirs.transform.min_size = (resize.short_pixels,)
        theirs.transform.max_size = resize.long_pixels
        ours.resize = resize
        limit_proposals(theirs, ours, 60 if architecture.endswith("v2") else 150)
    weaken_residuals(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    enliven(ours, (360, 640))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours


def small_detector(frame_hw: SizeHW) -> FasterRCNN:
    """Our smallest architecture, the same weights every time, in eval mode."""
    torch.manual_seed(0)
    return enliven(faster_rcnn("mobilenet_v2_fpn").eval(), frame_hw)


def weaken_residuals(model: nn.Module) -> None:
    """What residual blocks add, made small: else a deep random network amplifies rounding."""
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.25)
        elif isinstance(module, InvertedResidual) and module.use_res_connect:
            nn.init.constant_(module.block[-1][1].weight, 0.25)


def limit_proposals(theirs: nn.Module, ours: FasterRCNN, count: int) -> None:
    """Less work for both, and no limit on detections: chance would decide a tie at the cut."""
    theirs.rpn._post_nms_top_n["testing"] = count
    ours.rpn.settings = replace(ours.rpn.settings, post_nms=count)
    theirs.roi_heads.detections_per_img = ours.roi_heads.settings.candidates
    ours.roi_heads.settings = replace(
        ours.roi_heads.settings, detections=ours.roi_heads.settings.candidates
    )


@torch.no_grad()
def enliven(model: FasterRCNN, frame_hw: SizeHW) -> FasterRCNN:
    """Scales the heads so that outputs are spread as in a trained network and many boxes survive.

    Batch norms take their statistics from four images, or activations of a deep random network blow
    up or die.
    """
    model.prepare(frame_hw)
    assert model.size is not None
    images = model.size.fit(model.normalise(frames(4, frame_hw, seed=9)))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # average, and of one batch
        norm.reset_running_stats()
        norm.train()
    model.backbone(images)
    features = _head_statistics(model, images, norms)
    logits, deltas = model.rpn.head(features)
    _spread(model.rpn.head.cls_logits, torch.cat([x.flatten() for x in logits]), 2.0)
    _spread(model.rpn.head.bbox_pred, torch.cat([x.flatten() for x in deltas]), 0.3)
    proposals = model.rpn(features, model.size.anchors, model.size.image_hw, model.nms)
    logits, deltas, _ = model.roi_heads(features, proposals.boxes)
    _spread(model.roi_heads.box_predictor.cls_score, logits, 2.5)
    _spread(model.roi_heads.box_predictor.bbox_pred, deltas, 0.5)
    return model


def _head_statistics(
    model: FasterRCNN, images: Tensor, norms: list[nn.BatchNorm2d]
) -> list[Tensor]:
    for norm in model.backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    features = model.backbone(images)
    assert model.size is not None
    proposals = model.rpn(features, model.size.anchors, model.size.image_hw, model.nms)
    model.roi_heads(features, proposals.boxes)
    for norm in norms:
        norm.eval()
    return features


def _spread(layer: nn.Module, outputs: Tensor, deviation: float) -> None:
    layer.get_parameter("weight").mul_(deviation / outputs.std())


def frames(count: int, frame_hw: SizeHW, seed: int = 1) -> Tensor:
    """(count, H, W, 3) uint8: smooth blobs under noise."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, frame_hw[0] // 12, frame_hw[1] // 12, generator=source)
    smooth = F.interpolate(coarse, size=frame_hw, mode="bicubic")
    noise = torch.rand(count, 3, *frame_hw, generator=source)
    pixels = (0.8 * smooth + 0.2 * noise).clamp(0, 1) * 255
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def by_torchvision(
    model: nn.Module, pixels: Tensor, dtype: torch.dtype = torch.float32
) -> list[Found]:
    """What the original finds in (N, H, W, 3) uint8, with labels counted from 0."""
    with torch.inference_mode():
        outputs = model([frame.permute(2, 0, 1).to(dtype) / 255 for frame in pixels])
    return [(found["boxes"], found["labels"] - 1, found["scores"]) for found in outputs]


def found_in(outputs: Sequence[Tensor], output_form: str, slots: int = 100) -> list[Found]:
    """The filled slots of our graph's outputs, frame by frame; candidates go through NMS first."""
    named = dict(zip(OUTPUTS[output_form], outputs, strict=True))
    found = []
    for boxes, labels, scores in zip(named["boxes"], named["labels"], named["scores"], strict=True):
        filled = scores > 0
        if output_form == "candidates":
            best = torchvision.ops.batched_nms(boxes[filled], scores[filled], labels[filled], 0.5)
            best = best[:slots]
            found.append((boxes[best], labels[best], scores[best]))
        else:
            found.append((boxes[filled], labels[filled], scores[filled]))
    return found


def matched_share(reference: Found, found: Found) -> float:
    """Share of detections with a partner of their own: same label, IoU > 0.99, |score| within 1e-3.

    1.0 only when both sets have the same size and all are paired.
    """
    boxes, labels, scores = reference
    other_boxes, other_labels, other_scores = found
    most = max(len(boxes), len(other_boxes))
    if most == 0:
        return 1.0
    alike = labels[:, None] == other_labels[None]
    alike &= (scores[:, None] - other_scores[None]).abs() < 1e-3
    overlap = torch.where(alike, iou(boxes.double(), other_boxes.double()), 0.0)
    pairs, used = 0, set()
    for row in overlap:
        for partner in row.argsort(descending=True).tolist():
            if row[partner] <= 0.99:
                break
            if partner not in used:
                used.add(partner)
                pairs += 1
                break
    return pairs / most
