"""SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016, arXiv:1512.02325).

Changed since Faster R-CNN: no second stage. What the region proposal network does for "object or
not", the same small convolutions do here for every class at once, on six maps from fine to coarse
(sec. 2.1), starting from default boxes instead of proposals. So nothing is pooled and the cost does
not depend on the picture. The many empty boxes are held back by hard negative mining (sec. 2.2).

torchvision's weights (``ssd300_vgg16``, ``ssdlite320_mobilenet_v3_large``) fit one to one. Frames
are stretched to 300x300 (320x320) inside the graph, as the paper does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from models.boxes import SizeHW, at_least_float32, both_sides_at_least, clip, decode, encode
from models.data.batches import TrainingBatch
from models.detection.default_boxes import DefaultBoxes, linear_scales
from models.detection.losses import NEITHER, Truth, share_inside
from models.detection.roi import Candidates, keep_best
from models.detection.slots import best_pairs
from models.detection.ssd_maps import LiteMaps, VGGMaps, lite_layer
from models.network import DETECTION_OUTPUTS, check_eval_mode, prepared_size
from models.pixels import Normalise

VARIANCES = (10.0, 10.0, 5.0, 5.0)
"""Weights of the box coder; the authors' code divides by 0.1 and 0.2."""
NEGATIVES_PER_POSITIVE = 3


@dataclass(frozen=True)
class Settings:
    """Which boxes count as found."""

    min_score: float
    iou: float
    candidates: int = 1000


class Head(nn.Module):
    """One convolution per map: ``columns`` numbers for every default box of its cells."""

    def __init__(self, layers: Sequence[nn.Module], columns: int) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(layers)
        self.columns = columns

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, A, columns): map by map, row, column, then box."""
        rows = [layer(x) for layer, x in zip(self.module_list, maps, strict=True)]
        return torch.cat(
            [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.columns) for x in rows], 1
        )


class SSD(nn.Module):
    """The parts by name, for training; and their static composition, for everything else."""

    task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer = None
    regions = 0
    default_boxes: Tensor

    def __init__(
        self,
        backbone: VGGMaps | LiteMaps,
        head: nn.ModuleDict,
        grid: DefaultBoxes,
        normalise: Normalise,
        *,
        side: int,
        num_classes: int,
        settings: Settings,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone
        self.head = head
        self.side = side
        self.num_classes = num_classes
        self.settings = settings
        with torch.no_grad():
            training = backbone.training
            maps = backbone.eval()(torch.zeros(1, 3, side, side))
            backbone.train(training)
        boxes = grid([(x.shape[2], x.shape[3]) for x in maps], (side, side))
        self.register_buffer("default_boxes", boxes, persistent=False)
        self.frame_hw: SizeHW | None = None

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> ``outputs``."""
        height, width = prepared_size(frames, self.frame_hw)
        maps = self.backbone(self.fit(self.normalise(frames)))
        logits, deltas = self.head["classification_head"](maps), self.head["regression_head"](maps)
        found, exact = self.candidates(logits, deltas)
        scale = found.boxes.new_tensor([width / self.side, height / self.side] * 2)
        return found.boxes * scale, found.scores, found.labels, exact

    def fit(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, side, side), stretched."""
        size = (self.side, self.side)
        if images.shape[2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

    def candidates(self, logits: Tensor, deltas: Tensor) -> tuple[Candidates, Tensor]:
        """The best (box, class) pairs, decoded; and (N,) whether there were slots for all.

        logits (N, A, C + 1), background first; deltas (N, A, 4).
        """
        scores = F.softmax(at_least_float32(logits), -1)[..., 1:]
        settings = self.settings
        best = best_pairs(scores, settings.min_score, settings.candidates)
        chosen = deltas.gather(1, best.places[..., None].expand(-1, -1, 4))
        start = F.embedding(best.places, self.default_boxes)
        boxes = clip(decode(chosen, start, VARIANCES), (self.side, self.side))
        good = (best.scores > settings.min_score) & both_sides_at_least(boxes, 1e-2)
        found = Candidates(boxes, best.scores, best.labels)
        return keep_best(found, good, good.shape[1]), best.exact

    def prepare(self, frame_hw: SizeHW) -> SSD:
        """Fixes the frame size; returns the model itself. Raises ValueError in training mode."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """``class`` and ``box`` (sec. 2.2, eq. 1 with alpha 1), over the matched boxes."""
        maps = self.backbone(self.fit(self.normalise(batch.frames)))
        logits, deltas = self.head["classification_head"](maps), self.head["regression_head"](maps)
        height, width = batch.frames.shape[1:3]
        to_side = [self.side / width, self.side / height] * 2
        scale = torch.tensor(to_side, device=batch.frames.device)
        truths = [
            Truth(truth.boxes * scale, truth.class_ids, truth.ignored * scale)
            for truth in batch.truths
        ]
        classification, box = multibox_loss(
            self.default_boxes, logits.float(), deltas.float(), truths
        )
        return {"class": classification, "box": box}


def multibox_loss(
    default_boxes: Tensor, logits: Tensor, deltas: Tensor, truths: Sequence[Truth]
) -> tuple[Tensor, Tensor]:
    """SSD eq. 1-3, both divided by the number of matched boxes in the batch.

    Args:
        default_boxes: (A, 4) in the pixels of the truths.
        logits: (N, A, C + 1), background first.
        deltas: (N, A, 4).
    """
    labels, errors = [], []
    for own, truth in zip(deltas, truths, strict=True):
        index, matched = match_default_boxes(default_boxes, truth.boxes)
        label = torch.zeros(len(default_boxes), dtype=torch.int64, device=logits.device)
        label[share_inside(default_boxes, truth.ignored) > 0.5] = NEITHER
        label[matched] = truth.class_ids[index[matched]] + 1
        labels.append(label)
        targets = encode(truth.boxes[index[matched]], default_boxes[matched], VARIANCES)
        errors.append(F.smooth_l1_loss(own[matched], targets, reduction="sum"))
    label = torch.stack(labels)
    count = (label > 0).sum().clamp(min=1)
    return _mined_cross_entropy(logits, label) / count, torch.stack(errors).sum() / count


def match_default_boxes(
    default_boxes: Tensor, boxes: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Each true box takes the default box of best overlap, then every one above the threshold.

    default_boxes (A, 4), boxes (G, 4) -> index (A,) int64 of the true box, matched (A,) bool.
    """
    if not len(boxes):
        none = torch.zeros(len(default_boxes), dtype=torch.int64, device=default_boxes.device)
        return none, none.bool()
    overlap = box_iou(boxes, default_boxes)
    best, index = overlap.max(0)
    matched = best >= threshold
    taken = overlap.argmax(1)
    index[taken] = torch.arange(len(boxes), device=boxes.device)
    matched[taken] = True
    return index, matched


def _mined_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Sum over the objects and, in each picture, three times as many of the worst backgrounds."""
    each = F.cross_entropy(
        logits.flatten(0, 1), label.flatten(), ignore_index=NEITHER, reduction="none"
    ).reshape(label.shape)
    objects = label > 0
    hardness = torch.where(label == 0, each.detach(), -1.0)
    rank = hardness.argsort(1, descending=True).argsort(1)
    wanted = NEGATIVES_PER_POSITIVE * objects.sum(1, keepdim=True)
    return each[objects].sum() + each[(rank < wanted) & (label == 0)].sum()


def ssd300_vgg16(num_classes: int = 90) -> SSD:
    """SSD300 on VGG-16 with random weights, in training mode; 90 classes are COCO's numbers."""
    grid = DefaultBoxes(
        (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
        ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        (8, 16, 32, 64, 100, 300),
    )
    maps = VGGMaps()

    def layer(inputs: int, outputs: int) -> nn.Module:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        nn.init.xavier_uniform_(convolution.weight)
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        return convolution

    # The authors' VGG takes 0..255 less the mean.
    pixels = Normalise((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
    return SSD(
        maps,
        _head(maps.out_channels, grid, num_classes, layer),
        grid,
        pixels,
        side=300,
        num_classes=num_classes,
        settings=Settings(min_score=0.01, iou=0.45),
    )


def ssdlite320_mobilenet_v3_large(
    num_classes: int = 90, *, reduced: bool = True, side: int = 320
) -> SSD:
    """SSDlite (arXiv:1801.04381, sec. 6.2): depthwise heads, MobileNetV3; random weights.

    side: of the square that frames are stretched to, in pixels; torchvision's weights know 320.
    """
    grid = DefaultBoxes(linear_scales(0.2, 0.95, 6), ((2, 3),) * 6)
    maps = LiteMaps(reduced)

    def layer(inputs: int, outputs: int) -> nn.Module:
        depthwise = lite_layer(inputs, inputs, kernel_size=3, groups=inputs)
        block = nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))
        for part in block.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.03)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        return block

    return SSD(
        maps,
        _head(maps.out_channels, grid, num_classes, layer),
        grid,
        Normalise((0.5,) * 3, (0.5,) * 3),
        side=side,
        num_classes=num_classes,
        settings=Settings(min_score=0.001, iou=0.55),
    )


def _head(
    channels: Sequence[int],
    grid: DefaultBoxes,
    num_classes: int,
    layer: Callable[[int, int], nn.Module],
) -> nn.ModuleDict:
    """Both heads, by torchvision's names."""

    def layers(columns: int) -> list[nn.Module]:
        return [layer(c, columns * per) for c, per in zip(channels, grid.per_cell, strict=True)]

    return nn.ModuleDict(
        {
            "classification_head": Head(layers(num_classes + 1), num_classes + 1),
            "regression_head": Head(layers(4), 4),
        }
    )
