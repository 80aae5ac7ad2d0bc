"""From the bytes of a frame to what a network trained on ImageNet expects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RGB = tuple[float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Every graph begins with this, so that each engine is given the same bytes."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: RGB = IMAGENET_MEAN, deviation: RGB = IMAGENET_DEVIATION) -> None:
        """mean, deviation: of red, green and blue in [0, 1]."""
        super().__init__()
        # No weights: a state dict of torchvision's fits without them.
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float of about zero mean and unit deviation."""
        # In torchvision's order, so that rounding is the same; engines fold the three into one.
        # Turned around last: convolutions like channels last, so for an engine it is no work.
        pixels = (frames.to(self.mean.dtype) / 255 - self.mean) / self.deviation
        return pixels.permute(0, 3, 1, 2).contiguous()
