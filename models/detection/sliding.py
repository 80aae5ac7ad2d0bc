"""How a classifier of small pictures slides over large ones: windows, pooling with offsets, fully
connected layers as convolutions, scales.

OverFeat (Sermanet et al., ICLR 2014, arXiv:1312.6229, sec. 3.3 and 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.boxes import SizeHW


@dataclass(frozen=True)
class Windows:
    """Squares at a fixed distance, which fill a picture row by row."""

    pixels: int
    """Side of one."""
    stride: int
    """Pixels from one to the next."""

    def fit(self, size_hw: SizeHW, short_pixels: int) -> SizeHW:
        """The size with about this shorter side that windows cover to the last pixel."""
        scale = short_pixels / min(size_hw)
        return self._whole(size_hw[0] * scale), self._whole(size_hw[1] * scale)

    def _whole(self, side: float) -> int:
        steps = round((side - self.pixels) / self.stride)
        return self.pixels + self.stride * max(steps, 0)

    def __call__(self, image_hw: SizeHW) -> Tensor:
        """(W, 4) float32 in pixels of an image of a size that :meth:`fit` gave, row by row."""
        rows, columns = ((side - self.pixels) // self.stride + 1 for side in image_hw)
        y = torch.arange(rows, dtype=torch.float32) * self.stride
        x = torch.arange(columns, dtype=torch.float32) * self.stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        corner = torch.stack([grid_x, grid_y], -1).reshape(-1, 2)
        return torch.cat([corner, corner + self.pixels], 1)


def offset_max_pool(maps: Tensor, size: int) -> Tensor:
    """Max pooling without overlap at all ``size * size`` offsets (sec. 3.3).

    (N, C, h, w) -> (N, C, h - size + 1, w - size + 1), the offsets' maps interleaved: row y and
    column x come from the map pooled with offset ``(y % size, x % size)``. Neighbours of one
    pooled map therefore lie ``size`` apart, and what reads them is dilated by ``size``.
    """
    return F.max_pool2d(maps, size, stride=1)


def dense_head(
    inputs: int, hidden: Sequence[int], outputs: int, *, cells: int, pool: int, dropout: float
) -> nn.Sequential:
    """Fully connected layers as convolutions, for maps from :func:`offset_max_pool`.

    The first looks at ``cells`` x ``cells`` pooled cells, the others at what it said.
    """
    layers: list[nn.Module] = []
    for number, width in enumerate(hidden):
        first = number == 0
        conv = nn.Conv2d(inputs, width, cells if first else 1, dilation=pool if first else 1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.ReLU(inplace=True), nn.Dropout(dropout)]
        inputs = width
    last = nn.Conv2d(inputs, outputs, 1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]  # it has one
    return nn.Sequential(*layers, last)


def pyramid(images: Tensor, sizes: Sequence[SizeHW]) -> list[Tensor]:
    """Images (N, 3, H, W) at each of the rising sizes.

    Each is made of the next larger one, so that a bilinear resize leaves out no pixel.
    """
    scaled: list[Tensor] = []
    for size_hw in reversed(sizes):
        if images.shape[-2:] != size_hw:
            images = F.interpolate(images, size=size_hw, mode="bilinear", align_corners=False)
        scaled.insert(0, images)
    return scaled
