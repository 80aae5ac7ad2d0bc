"""U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., MICCAI 2015,
arXiv:1505.04597).

Changed since FCN: the way up is as wide as the way down, and at every step the map of the way down
is concatenated, features and not scores (sec. 2, fig. 1). Pixels between touching objects weigh
more in the loss (sec. 3, eq. 2).

Where we deviate: convolutions keep the size, so a class comes out for every pixel that goes in
(theirs lose two pixels each, and crop); halving rounds up and doubling cuts the surplus, so any
size will do; batch norm after every convolution can be left out, as the paper had none; a
classifier's trunk may be the way down.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.backbones.features import FeatureMaps
from models.segmentation.convolutions import classifier, conv_norm_relu
from models.segmentation.semantic import SemanticNetwork, enlarge
from models.segmentation.trunks import trunk
from models.segmentation.upsampling import fitted

Doubling = Literal["transposed", "resize"]


class UNet(SemanticNetwork):
    """A way down and a way up, joined at every step."""

    def __init__(
        self, down: nn.Module, up: Sequence[Up], classify: nn.Module, classes: int
    ) -> None:
        """
        Args:
            down: images -> maps by stride, finest first.
            up: one step fewer than there are maps, coarsest first.
        """
        super().__init__(classes)
        self.backbone = down
        self.up = nn.ModuleList(up)
        self.classify = classify

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, h, w), as fine as the finest map of the way down."""
        features, *finer = reversed(self.backbone(images).values())
        for up, skip in zip(self.up, finer, strict=True):
            features = up(features, skip)
        return self.classify(features)


class Contracting(nn.Module):
    """The paper's own way down: two 3x3s and a 2x2 max pooling, channels doubled (sec. 2)."""

    def __init__(self, width: int, depth: int, batch_norm: bool) -> None:
        super().__init__()
        self.channels = {2**i: width * 2**i for i in range(depth)}
        widths = [3, *self.channels.values()]
        self.stages = nn.ModuleList(
            double_conv(inputs, outputs, batch_norm) for inputs, outputs in pairwise(widths)
        )
        # Rounds up, so that no row or column of an odd size is lost.
        self.halve = nn.MaxPool2d(2, ceil_mode=True)
        self.drop = nn.Dropout()  # "at the end of the contracting path" (sec. 3.1)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(N, 3, H, W) -> stride -> (N, C, about H/stride, W/stride)."""
        maps, features = {}, images
        for stride, stage in zip(self.channels, self.stages, strict=True):
            features = stage(features if stride == 1 else self.halve(features))
            maps[stride] = features
        return {**maps, stride: self.drop(features)}


class Up(nn.Module):
    """Twice as fine, half as deep; the map of the way down beside it; two 3x3s."""

    def __init__(
        self, inputs: int, skip: int, outputs: int, doubling: Doubling, batch_norm: bool
    ) -> None:
        super().__init__()
        self.upsample = (
            nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
            if doubling == "transposed"
            else Doubled(inputs, outputs)
        )
        self.mix = double_conv(outputs + skip, outputs, batch_norm)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N, I, h/2, w/2) and (N, S, h, w) -> (N, O, h, w)."""
        doubled = fitted(self.upsample(coarse), (fine.shape[2], fine.shape[3]))
        return self.mix(torch.cat([fine, doubled], 1))


class Doubled(nn.Module):
    """A 1x1 and bilinear enlargement, instead of transposed convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, I, h, w) -> (N, O, 2h, 2w).

        Both are linear and commute, so the one that makes less comes first.
        """
        return enlarge(self.reduce(maps), (2 * maps.shape[2], 2 * maps.shape[3]))


def double_conv(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    """Two 3x3s, each with its ReLU."""
    if batch_norm:
        return nn.Sequential(
            *conv_norm_relu(inputs, outputs, 3), *conv_norm_relu(outputs, outputs, 3)
        )
    layers: list[nn.Module] = []
    for depth in (inputs, outputs):
        layers += [nn.Conv2d(depth, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        nn.init.kaiming_normal_(layers[-2].get_parameter("weight"))  # sec. 3
    return nn.Sequential(*layers)


def unet(
    num_classes: int = 2,
    *,
    width: int = 64,
    depth: int = 5,
    doubling: Doubling = "transposed",
    batch_norm: bool = True,
) -> UNet:
    """The paper's network with random weights, in training mode; scores for every pixel.

    Args:
        width: channels of the finest map; each of the ``depth`` levels has twice the one before.
    """
    down = Contracting(width, depth, batch_norm)
    return _joined(
        down, down.channels, list(down.channels.values())[:-1], num_classes, doubling, batch_norm
    )


def unet_with_trunk(
    backbone: str | FeatureMaps = "mobilenet_v2",
    num_classes: int = 2,
    *,
    widths: Sequence[int] = (16, 32, 64, 128),
    doubling: Doubling = "transposed",
) -> UNet:
    """A trunk of a classifier as the way down; random weights, in training mode.

    Args:
        widths: channels of the way up at strides 2, 4, 8, ...; the coarsest map is twice the last
            stride. A shorter list starts higher up.
    """
    strides = [2 ** (i + 1) for i in range(len(widths) + 1)]
    down = trunk(backbone, strides)
    return _joined(down, down.channels, widths, num_classes, doubling, batch_norm=True)


def _joined(
    down: nn.Module,
    channels: dict[int, int],
    widths: Sequence[int],
    num_classes: int,
    doubling: Doubling,
    batch_norm: bool,
) -> UNet:
    """widths: of the steps up, finest first, one fewer than channels."""
    skips = list(channels.values())
    coarser = [*widths[1:], skips[-1]]
    steps = [
        Up(inputs, skip, outputs, doubling, batch_norm)
        for inputs, skip, outputs in zip(coarser, skips[:-1], widths, strict=True)
    ]
    return UNet(down, steps[::-1], classifier(widths[0], num_classes), num_classes)
