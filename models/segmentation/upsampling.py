"""From a coarse map to a fine one, with weights that learn.

Two ways, of the same shapes, which begin as the same bilinear enlargement:

- ``BilinearTransposed``: transposed convolution, each cell adds its kernel to the output (FCN).
- ``ResizeConvolve``: enlarge by a fixed rule, then convolve (Odena et al., Distill 2016,
  "Deconvolution and checkerboard artifacts"): every output pixel is treated alike, so there is no
  pattern of the stride, see ``checkerboard.py``.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.boxes import SizeHW

Upsampling = Literal["transposed", "resize"]


def bilinear_kernel(factor: int) -> Tensor:
    """(2 factor, 2 factor) float32: the tent with which a cell fades out up to its neighbours.

    For even factors; sums to factor², one for each output pixel of a cell.
    """
    distance = (torch.arange(2 * factor) + 0.5 - factor).abs() / factor
    return torch.outer(1 - distance, 1 - distance)


class BilinearTransposed(nn.ConvTranspose2d):
    """Transposed convolution that begins as bilinear enlargement (FCN, arXiv:1411.4038, sec. 3.3).

    Inserting factor - 1 zeros between cells and convolving with the tent: but for the outermost
    factor / 2 pixels, which miss neighbours, it gives what ``F.interpolate`` gives.
    """

    def __init__(self, channels: int, factor: int) -> None:
        """factor: an even number."""
        if factor % 2:
            raise ValueError(f"the factor must be even, got {factor}")
        super().__init__(
            channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False
        )
        tent = bilinear_kernel(factor)
        with torch.no_grad():
            self.weight.copy_(torch.eye(channels)[:, :, None, None] * tent)


class ResizeConvolve(nn.Module):
    """Bilinear enlargement and a 3x3 that begins as the identity."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convolve = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.dirac_(self.convolve.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, factor h, factor w)."""
        size = (maps.shape[2] * self.factor, maps.shape[3] * self.factor)
        return self.convolve(F.interpolate(maps, size=size, mode="bilinear", align_corners=False))


def learned_upsampling(way: Upsampling, channels: int, factor: int) -> nn.Module:
    """A layer (N, channels, h, w) -> (N, channels, factor h, factor w)."""
    return UPSAMPLING[way](channels, factor)


UPSAMPLING = {"transposed": BilinearTransposed, "resize": ResizeConvolve}


def fitted(maps: Tensor, size_hw: SizeHW) -> Tensor:
    """Cut off on the right and below, or repeat the last cells, to get this size.

    Halving an odd side rounds; doubling it again is one cell off.
    """
    below, right = size_hw[0] - maps.shape[2], size_hw[1] - maps.shape[3]
    if below > 0 or right > 0:
        maps = F.pad(maps, (0, max(right, 0), 0, max(below, 0)), mode="replicate")
    return maps[:, :, : size_hw[0], : size_hw[1]]
