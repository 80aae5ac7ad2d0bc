"""R-CNN's way to a fixed size: pixels, cut out and stretched (Girshick et al., arXiv:1311.2524,
appendix A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.detection.pooling import roi_align


@dataclass(frozen=True)
class Warp:
    """The region, with some of its surroundings, stretched to a square whatever its shape.

    Called with normalised images (N, 3, H, W) and regions (N, R, 4) in their pixels, it gives
    (N * R, 3, size, size).
    """

    size: int = 227
    """Of the crop, in pixels."""
    context_pixels: int = 16
    """How much of the crop, on every side, shows what lies around the region."""
    samples: int = 1
    """Along each side of a pixel of the crop: 1 is bilinear interpolation as in the paper's code;
    2 spares large regions in small crops the moire of skipped pixels."""

    def __call__(self, images: Tensor, regions: Tensor) -> Tensor:
        batch, count = regions.shape[:2]
        inner = self.size - 2 * self.context_pixels
        middle = (regions[..., :2] + regions[..., 2:]) * 0.5
        half = (regions[..., 2:] - regions[..., :2]) * (0.5 * self.size / inner)
        # The operator counts from the middle of the first pixel. Outside the picture it reads 0,
        # which is the mean after normalisation: what the paper puts there.
        seen = torch.cat([middle - half, middle + half], -1).reshape(-1, 4) - 0.5
        image = torch.arange(batch, device=regions.device)[:, None].expand(batch, count).reshape(-1)
        return roi_align(images.float(), seen, image, self.size, self.samples)
