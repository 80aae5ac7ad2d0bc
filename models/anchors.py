"""Anchors: the boxes a region proposal network starts from (Faster R-CNN, sec. 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.boxes import SizeHW


@dataclass(frozen=True)
class AnchorGrid:
    """The same few boxes around every cell of every pyramid level.

    Corners are rounded to whole pixels and the pitch is the integer quotient of image and map,
    as torchvision does it: weights trained there expect exactly these boxes.
    """

    sizes_pixels: tuple[tuple[float, ...], ...]
    """Per level, finest first: square roots of the anchors' areas."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""

    @property
    def per_cell(self) -> int:
        """Anchors in one cell; the head has one weight for all levels, so it must be one number."""
        (per_size,) = {len(sizes) for sizes in self.sizes_pixels}
        return per_size * len(self.ratios)

    def cell(self, level: int) -> Tensor:
        """(A, 4) around the origin; ratio varies slowest."""
        sizes = torch.tensor(self.sizes_pixels[level], dtype=torch.float32)
        root = torch.tensor(self.ratios, dtype=torch.float32).sqrt()
        width = ((1 / root)[:, None] * sizes).flatten()
        height = (root[:, None] * sizes).flatten()
        return (torch.stack([-width, -height, width, height], 1) / 2).round()

    def __call__(self, maps_hw: Sequence[SizeHW], padded_hw: SizeHW) -> list[Tensor]:
        """Per level (h * w * A, 4) in pixels of the padded image: row, then column, then anchor."""
        if len(maps_hw) != len(self.sizes_pixels):
            raise ValueError(
                f"{len(self.sizes_pixels)} levels have anchor sizes, got {len(maps_hw)} maps"
            )
        return [self._level(level, hw, padded_hw) for level, hw in enumerate(maps_hw)]

    def _level(self, level: int, map_hw: SizeHW, padded_hw: SizeHW) -> Tensor:
        y = torch.arange(map_hw[0], dtype=torch.float32) * (padded_hw[0] // map_hw[0])
        x = torch.arange(map_hw[1], dtype=torch.float32) * (padded_hw[1] // map_hw[1])
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        corner = torch.stack([grid_x, grid_y, grid_x, grid_y], -1).reshape(-1, 1, 4)
        return (corner + self.cell(level)).reshape(-1, 4)
