"""Mask R-CNN (He et al., ICCV 2017, arXiv:1703.06870).

Changed since Faster R-CNN: a third head draws a 28x28 mask of every class into each box (sec. 3).
Classes do not compete for a pixel: each mask is a sigmoid of its own, and the box's class picks
one (eq. "L_mask", sec. 3). RoIAlign, which the boxes use here already, came with this paper.

At test time the mask head runs on the boxes that suppression left (sec. 3.1), so suppression is in
the graph, and one graph of static shapes leads from uint8 frames to masks, as in faster_rcnn.py.
torchvision's weights (``maskrcnn_resnet50_fpn``, ``_v2``) fit one to one.

Deviations: in training those of faster_rcnn.py, 96 regions a picture instead of 512 (sec. 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from models.anchors import AnchorGrid
from models.backbones.features import SingleMap
from models.backbones.pyramid import Norm, PyramidBackbone, conv
from models.boxes import SizeHW, at_least_float32
from models.data.batches import TrainingBatch
from models.detection.architectures import faster_rcnn
from models.detection.frame_size import FrameSize, Resize, frame_size, prepared_for
from models.detection.joint_training import Proposing, joint_pass
from models.detection.losses import RoiSample, Truth
from models.detection.roi import Candidates, Pool, RoIHeads, count_kept
from models.detection.rpn import RegionProposalNetwork
from models.detection.suppression import Suppress, greedy_nms
from models.network import INSTANCE_OUTPUTS, check_eval_mode
from models.pixels import Normalise

MASK_SIDE = 28
"""Cells of a mask along each side; it is pooled at half of that."""


class MaskPredictor(nn.Module):
    """A transposed convolution doubles the size, a 1x1 draws one mask per class (fig. 4)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.mask_fcn_logits = nn.Conv2d(channels, num_classes + 1, 1)
        for layer in (self.conv5_mask, self.mask_fcn_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, channels, 14, 14) -> logits (R, C + 1, 28, 28); the background's is never used."""
        return self.mask_fcn_logits(F.relu(self.conv5_mask(hidden)))


def mask_head(channels: int, depth: int = 4, norm: Norm | None = None) -> nn.Sequential:
    """``depth`` 3x3 convolutions on 14x14 bins (fig. 4, right)."""
    layers = [conv(channels, channels, 3, norm, relu=True) for _ in range(depth)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.get_parameter("0.weight"), mode="fan_out")
        if norm is None:
            nn.init.zeros_(layer.get_parameter("0.bias"))
    return nn.Sequential(*layers)


class MaskHeads(RoIHeads):
    """Faster R-CNN's second stage with the third head beside it, by torchvision's names."""

    def __init__(
        self, boxes: RoIHeads, pool: Pool, head: nn.Module, predictor: MaskPredictor
    ) -> None:
        super().__init__(boxes.pool, boxes.box_head, boxes.box_predictor, boxes.settings)
        self.mask_pool = pool
        self.mask_head = head
        self.mask_predictor = predictor

    def mask_logits(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """For training: boxes (N, R, 4) -> (N * R, C + 1, 28, 28)."""
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_pool(features, boxes)))
        return logits

    def masks(self, features: Sequence[Tensor], found: Candidates) -> tuple[Tensor, Tensor]:
        """The mask of each box's own class, (N, S, 28, 28) in [0, 1]; and whether boxes were sound.

        An empty slot has the mask of an empty box.
        """
        bins, sound = self.mask_pool.atlas(features, found.boxes)
        logits = self.mask_predictor(self.mask_head(bins.to(features[0].dtype)))
        own = (found.labels.reshape(-1) + 1)[:, None, None, None]
        chosen = logits.gather(1, own.expand(-1, 1, MASK_SIDE, MASK_SIDE))
        shape = (*found.scores.shape, MASK_SIDE, MASK_SIDE)
        return at_least_float32(chosen).sigmoid().reshape(shape), sound


class MaskRCNN(nn.Module):
    """The parts by name, for training; and their static composition, for everything else."""

    task = "instance"
    outputs = INSTANCE_OUTPUTS
    proposer = None
    regions = 0

    def __init__(
        self,
        backbone: PyramidBackbone | SingleMap,
        anchor_grid: AnchorGrid,
        rpn: RegionProposalNetwork,
        roi_heads: MaskHeads,
        *,
        num_classes: int,
        resize: Resize | None,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.backbone = backbone
        self.anchor_grid = anchor_grid
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.num_classes = num_classes
        self.resize = resize
        self.size: FrameSize | None = None
        self.proposing = Proposing()
        self.nms: Suppress = greedy_nms

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Faster R-CNN's four and ``mask``, from the same drawn boxes (sec. 3).

        Frames have sides that are multiples of 32.
        """
        losses, features, drawn = joint_pass(self, batch, self.proposing)
        objects = leading_objects(drawn)
        logits = self.roi_heads.mask_logits(features, objects.boxes)
        return losses | {"mask": mask_loss(logits.float(), objects, batch.truths)}

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> ``outputs``."""
        size = prepared_for(self.size, frames)
        images = size.fit(self.normalise(frames))
        features = self.backbone(images)
        proposals = self.rpn(features, size.anchors, size.image_hw, self.nms)
        logits, deltas, sound = self.roi_heads(features, proposals.boxes)
        found, above = self.roi_heads.candidates(logits, deltas, proposals, size.image_hw)
        kept, nms_exact = self.roi_heads.detections(found, self.num_classes, self.nms)
        masks, masks_sound = self.roi_heads.masks(features, kept)
        count, complete = count_kept(found, above, kept)
        exact = proposals.exact & sound & nms_exact & masks_sound & complete
        return size.to_frame(kept.boxes), kept.scores, kept.labels, count, exact, masks

    def prepare(self, frame_hw: SizeHW, *, nms: Suppress = greedy_nms) -> MaskRCNN:
        """Fixes the frame size and the form of suppression; returns the model itself.

        Raises ValueError in training mode.
        """
        check_eval_mode(self)
        self.size = frame_size(frame_hw, self.resize, self.backbone, self.anchor_grid)
        self.nms = nms
        return self


def leading_objects(drawn: RoiSample) -> RoiSample:
    """The front of a sample up to the last object: the rest has no mask to learn.

    :func:`models.detection.losses.sample_rois` puts objects first.
    """
    most = max(int((drawn.labels > 0).sum(1).max()), 1)
    kept = (drawn.boxes, drawn.labels, drawn.targets, drawn.matches)
    return RoiSample(*(column[:, :most] for column in kept))


def mask_loss(logits: Tensor, drawn: RoiSample, truths: Sequence[Truth]) -> Tensor:
    """Mean binary cross-entropy over the masks of the true classes (sec. 3).

    Only boxes that are objects learn; pictures without masks teach nothing here.

    Args:
        logits: (N * R, C + 1, M, M) for all drawn boxes.
    """
    terms, sides = [], logits.shape[-1]
    rows = logits.reshape(*drawn.labels.shape, *logits.shape[1:])
    for i, truth in enumerate(truths):
        objects = (drawn.labels[i] > 0).nonzero()[:, 0]
        if truth.masks is None or not len(objects):
            continue
        targets = masks_in_boxes(
            truth.masks, drawn.boxes[i, objects], drawn.matches[i, objects], sides
        )
        own = rows[i, objects, drawn.labels[i, objects]]
        terms.append(F.binary_cross_entropy_with_logits(own, targets, reduction="none").flatten())
    return torch.cat(terms).mean() if terms else logits.sum() * 0


def masks_in_boxes(masks: Tensor, boxes: Tensor, index: Tensor, side: int) -> Tensor:
    """What of the true masks (G, H, W) a box sees: (B, side, side) float32 in [0, 1].

    As in torchvision's, a pixel is where its upper left corner is: targets lie half a pixel further
    to the left and above than masks are drawn.

    boxes: (B, 4) in pixels of the masks; index: (B,) the mask of each.
    """
    rois = torch.cat([index[:, None].to(boxes), boxes], 1)
    return torchvision.ops.roi_align(masks[:, None].to(boxes), rois, side)[:, 0]


def mask_rcnn(
    architecture: str = "resnet50_fpn",
    num_classes: int | None = None,
    *,
    batch_norm_eps: float = 1e-5,
) -> MaskRCNN:
    """A Mask R-CNN with random weights, in training mode, on the parts of a Faster R-CNN.

    Args:
        architecture: a key of ``ARCHITECTURES``; torchvision has masks for ``resnet50_fpn`` and
            ``resnet50_fpn_v2``.
        num_classes: see :func:`models.detection.architectures.faster_rcnn`.
    """
    boxes = faster_rcnn(architecture, num_classes, batch_norm_eps=batch_norm_eps)
    channels = boxes.backbone.out_channels
    norm = partial(nn.BatchNorm2d, eps=batch_norm_eps) if architecture.endswith("_v2") else None
    heads = MaskHeads(
        boxes.roi_heads,
        replace(boxes.roi_heads.pool, output=MASK_SIDE // 2),
        mask_head(channels, norm=norm),
        MaskPredictor(channels, boxes.num_classes),
    )
    return MaskRCNN(
        boxes.backbone,
        boxes.anchor_grid,
        boxes.rpn,
        heads,
        num_classes=boxes.num_classes,
        resize=boxes.resize,
    )


def with_present_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's older files, ``mask_fcn1`` to ``4``, by the names of today."""
    renamed = dict(state)
    for number in range(1, 5):
        for kind in ("weight", "bias"):
            old = f"roi_heads.mask_head.mask_fcn{number}.{kind}"
            if old in renamed:
                renamed[f"roi_heads.mask_head.{number - 1}.0.{kind}"] = renamed.pop(old)
    return renamed
