"""Default boxes: the anchors of a one-stage detector, on several maps (SSD, sec. 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.boxes import SizeHW


@dataclass(frozen=True)
class DefaultBoxes:
    """Per map: a square of scale s, one of the mean scale to the next map, and a pair a ratio.

    As torchvision makes them, whose weights expect exactly these.
    """

    scales: tuple[float, ...]
    """Side of the square as a share of the image's, finest map first; one more than maps."""
    ratios: tuple[tuple[float, ...], ...]
    """Per map: width over height; each also the other way round."""
    strides: tuple[float, ...] | None = None
    """Pitch in pixels per map; None: the image's side divided by the map's."""

    @property
    def per_cell(self) -> list[int]:
        """Boxes in a cell of each map."""
        return [2 + 2 * len(ratios) for ratios in self.ratios]

    def shapes(self, level: int) -> Tensor:
        """(B, 2) width and height as shares of the image's sides, at most 1."""
        own, following = self.scales[level], self.scales[level + 1]
        pairs = [(own, own), (math.sqrt(own * following),) * 2]
        for ratio in self.ratios[level]:
            root = math.sqrt(ratio)
            pairs += [(own * root, own / root), (own / root, own * root)]
        return torch.tensor(pairs).clamp(max=1.0)

    def __call__(self, maps_hw: Sequence[SizeHW], image_hw: SizeHW) -> Tensor:
        """(A, 4) ``x1, y1, x2, y2`` in pixels; map by map, row, column, then box. Not clipped."""
        return torch.cat([self._level(i, hw, image_hw) for i, hw in enumerate(maps_hw)])

    def _level(self, level: int, map_hw: SizeHW, image_hw: SizeHW) -> Tensor:
        stride = None if self.strides is None else self.strides[level]
        cells_y, cells_x = (side / stride for side in image_hw) if stride else map_hw
        y = (torch.arange(map_hw[0]) + 0.5) / cells_y
        x = (torch.arange(map_hw[1]) + 0.5) / cells_x
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centre = torch.stack([grid_x, grid_y], -1).reshape(-1, 1, 2)
        half = self.shapes(level) / 2
        pixels = torch.tensor([image_hw[1], image_hw[0]] * 2)
        return (torch.cat([centre - half, centre + half], -1) * pixels).reshape(-1, 4)


def linear_scales(smallest: float, largest: float, maps: int) -> tuple[float, ...]:
    """SSD eq. 4: evenly spaced; the last map's square of mean scale goes up to the whole image."""
    step = (largest - smallest) / (maps - 1)
    return (*(smallest + step * k for k in range(maps)), 1.0)
