"""Hypercolumns for Object Segmentation and Fine-grained Localization (Hariharan et al., CVPR 2015,
arXiv:1411.5752).

Changed since FCN: a pixel is described by the features of all layers above it, stacked into one
column, and not by scores of a few layers. Two uses are here:

- ``Hypercolumns``: every pixel of the frame is classified from its column.
- ``BoxRefiner``: a detector's boxes get masks (the paper's use). What a pixel is depends on where
  in the box it lies, so K x K classifiers stand on a grid over the box, and each pixel hears its
  neighbours among them (sec. 3.2).

Nobody builds the columns: a linear classifier of a column is a sum of 1x1 convolutions, one for
each layer's part of it, and enlarging commutes with them (sec. 3.3). So each map is classified
where it is coarse, and what is enlarged has few channels.

Where we deviate: layers are those of any trunk, which runs once over the frame and not once for
each box; masks know no classes, as a detector has told the class; the interpolated grid is what
learns (theirs learns each classifier for itself and interpolates at test time).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.build import backbone as trunk
from models.backbones.features import FeatureMaps
from models.boxes import SizeHW
from models.segmentation.convolutions import classifier
from models.segmentation.semantic import SemanticNetwork, enlarge

STRIDES = (4, 8, 16, 32)
GRID = 5
MASK_CELLS = 50


class Hypercolumns(SemanticNetwork):
    """A classifier of each pixel's column, as fine as the finest map."""

    def __init__(
        self, backbone: FeatureMaps, parts: ColumnParts, rest: nn.Module, num_classes: int
    ) -> None:
        """
        Args:
            parts: the first linear layer on the column, in parts.
            rest: what follows it: nothing, or a hidden layer's other half.
        """
        super().__init__(num_classes)
        self.backbone = backbone
        self.parts = parts
        self.rest = rest

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, H/s, W/s) with the finest stride s."""
        features = self.backbone(images)
        finest = features[min(features)]
        parts = self.parts(features)
        return self.rest(sum_enlarged(parts, (finest.shape[2], finest.shape[3])))


class ColumnParts(nn.Module):
    """One linear layer on the column, cut into the parts that belong to each map (sec. 3.3)."""

    def __init__(self, channels: Mapping[int, int], outputs: int) -> None:
        """channels: of each map, by its stride."""
        super().__init__()
        self.of_stride = nn.ModuleDict(
            {str(stride): classifier(depth, outputs) for stride, depth in channels.items()}
        )

    def forward(self, features: Mapping[int, Tensor]) -> list[Tensor]:
        """Maps by stride -> as many maps of ``outputs`` channels."""
        return [part(features[int(stride)]) for stride, part in self.of_stride.items()]

    def whole(self) -> tuple[Tensor, Tensor]:
        """The layer in one piece: weight (outputs, all channels) and bias (outputs,)."""
        parts = self.of_stride.values()
        weights = torch.cat([part.get_parameter("weight") for part in parts], 1)
        biases = torch.stack([part.get_parameter("bias") for part in parts])
        return weights.flatten(1), biases.sum(0)


def columns(features: Mapping[int, Tensor], size_hw: SizeHW) -> Tensor:
    """The columns themselves, (N, sum of channels, *size_hw): to look at, and to test against."""
    return torch.cat([enlarge(maps, size_hw) for maps in features.values()], 1)


def sum_enlarged(parts: Sequence[Tensor], size_hw: SizeHW) -> Tensor:
    """Maps of several sizes, (N, C, h, w) -> (N, C, *size_hw)."""
    total, *others = (enlarge(part, size_hw) for part in parts)
    for other in others:
        total = total + other
    return total


class BoxRefiner(nn.Module):
    """Boxes and features in, a mask for each box out; put on top of a detector.

    Attributes:
        grid: K, classifiers along each side of a box.
        cells: of a mask along each side.
    """

    shares: Tensor

    def __init__(
        self, channels: Mapping[int, int], *, grid: int = GRID, cells: int = MASK_CELLS
    ) -> None:
        """channels: of the trunk's maps, by stride."""
        super().__init__()
        self.grid = grid
        self.cells = cells
        self.parts = ColumnParts(channels, grid * grid)
        self.register_buffer("shares", grid_shares(grid, cells), persistent=False)

    def forward(self, features: Mapping[int, Tensor], boxes: Tensor, frame_hw: SizeHW) -> Tensor:
        """Chance of each cell of each box to be on the object.

        Args:
            features: maps (N, C, h, w) by stride, of the whole frame.
            boxes: (N, R, 4) float32 ``x1, y1, x2, y2`` in pixels of the frame.

        Returns:
            (N, R, cells, cells) float32 in [0, 1], each stretched over its box.
        """
        batch, count = boxes.shape[:2]
        where = sample_places(boxes, frame_hw, self.cells)
        parts = [_sampled(part.float(), where) for part in self.parts(features)]
        logits = sum_enlarged(parts, (count * self.cells, self.cells))
        chances = logits.view(batch, self.grid**2, count, self.cells, self.cells).sigmoid()
        return (chances * self.shares[:, None]).sum(1)

    def loss(
        self, features: Mapping[int, Tensor], boxes: Tensor, masks: Tensor, frame_hw: SizeHW
    ) -> Tensor:
        """Mean cross-entropy of the boxes' cells, a scalar.

        masks: (N, R, H, W), of each box the pixels of its object, 1 on it and 0 beside it.
        """
        chances = self(features, boxes, frame_hw)
        with torch.no_grad():
            where = sample_places(boxes, frame_hw, self.cells)
            batch, count = boxes.shape[:2]
            of_box = where.view(batch * count, self.cells, self.cells, 2)
            on_frame = masks.float().view(batch * count, 1, *masks.shape[2:])
            truth = _sampled(on_frame, of_box).view_as(chances).round()
        safe = chances.clamp(1e-6, 1 - 1e-6)  # autocast refuses the ready-made loss
        return -torch.where(truth > 0.5, safe, 1 - safe).log().mean()


def grid_shares(grid: int, cells: int) -> Tensor:
    """(grid², cells, cells): how much a cell of the mask hears of each classifier (sec. 3.2).

    Bilinear between the centres of the grid; sums to 1 in every cell.
    """
    each_alone = torch.eye(grid * grid).view(1, grid * grid, grid, grid)
    return enlarge(each_alone, (cells, cells))[0]


def sample_places(boxes: Tensor, frame_hw: SizeHW, cells: int) -> Tensor:
    """Centres of the cells of boxes (N, R, 4): (N, R * cells, cells, 2) ``x, y``.

    From -1 to 1 across the frame, as ``F.grid_sample`` has it: the same for maps of every stride.
    """
    step = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    x1, y1, x2, y2 = (side[..., None] for side in boxes.unbind(-1))
    x, y = x1 + (x2 - x1) * step, y1 + (y2 - y1) * step
    batch, count = boxes.shape[:2]
    shape = (batch, count, cells, cells)
    across = (2 * x / frame_hw[1] - 1)[:, :, None, :].expand(shape)
    down = (2 * y / frame_hw[0] - 1)[:, :, :, None].expand(shape)
    return torch.stack([across, down], -1).reshape(batch, count * cells, cells, 2)


def _sampled(maps: Tensor, where: Tensor) -> Tensor:
    """(N, C, h, w) at places (N, a, b, 2) -> (N, C, a, b)."""
    return F.grid_sample(maps, where, mode="bilinear", padding_mode="border", align_corners=False)


def hypercolumns(
    backbone: str | FeatureMaps = "mobilenet_v2",
    num_classes: int = 21,
    *,
    strides: Sequence[int] = STRIDES,
    hidden: int | None = None,
) -> Hypercolumns:
    """The dense form with random weights, in training mode.

    hidden: units of a layer between column and classes; None: a linear classifier, as the paper's.
    """
    features = trunk(backbone, strides)
    parts = ColumnParts(features.channels, hidden or num_classes)
    rest: nn.Module = nn.Identity()
    if hidden:
        for part in parts.of_stride.values():
            nn.init.kaiming_normal_(part.get_parameter("weight"), nonlinearity="relu")
        rest = nn.Sequential(nn.BatchNorm2d(hidden), nn.ReLU(), classifier(hidden, num_classes))
    return Hypercolumns(features, parts, rest, num_classes)
