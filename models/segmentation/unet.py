"""U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., MICCAI 2015,
arXiv:1505.04597).

Changed since FCN: the way up is as wide as the way down, and at every step the map of the way down
is concatenated, features and not scores (sec. 2, fig. 1). Pixels between touching objects weigh
more in the loss (sec. 3, eq. 2; off unless asked for).

Where we deviate: convolutions keep the size, so a class comes out for every pixel that goes in
(theirs lose two pixels each, and crop); halving rounds up and doubling cuts the surplus, so any
size will do; batch norm after every convolution can be left out, as the paper had none; a
classifier's trunk may be the way down, whose maps are then brought to one scale with what comes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.backbones.build import backbone as trunk
from models.backbones.features import FeatureMaps
from models.network import IGNORED
from models.segmentation.convolutions import classifier, conv_norm_relu
from models.segmentation.semantic import SemanticNetwork, enlarge
from models.segmentation.upsampling import fitted

Doubling = Literal["transposed", "resize"]


class UNet(SemanticNetwork):
    """A way down and a way up, joined at every step."""

    def __init__(
        self,
        down: nn.Module,
        up: Sequence[Up],
        classify: nn.Module,
        classes: int,
    ) -> None:
        """
        Args:
            down: images -> maps by stride, finest first.
            up: one step fewer than there are maps, coarsest first.
        """
        super().__init__(classes)
        self.border: Border | None = None
        self.backbone = down
        self.up = nn.ModuleList(up)
        self.classify = classify

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, h, w), as fine as the finest map of the way down."""
        features, *finer = reversed(self.backbone(images).values())
        for up, skip in zip(self.up, finer, strict=True):
            features = up(features, skip)
        return self.classify(features)

    def compare(self, scores: Tensor, labels: Tensor) -> Tensor:
        """See :meth:`SemanticNetwork.compare`; borders count more if they are asked to."""
        if self.border is None:
            return super().compare(scores, labels)
        maps = [self.border.weights(label) for label in labels.cpu().numpy()]
        weights = torch.from_numpy(np.stack(maps)).to(scores.device)
        enlarged = enlarge(scores.float(), (labels.shape[1], labels.shape[2]))
        return self.pixel_loss(enlarged, labels, weights)


@dataclass(frozen=True)
class Border:
    """How much more a pixel between two objects counts (sec. 3, eq. 2)."""

    weight: float = 10.0
    """Added where two objects touch."""
    reach_pixels: float = 5.0

    def weights(self, labels: np.ndarray) -> np.ndarray:
        """(H, W) uint8 classes, 0 for the background -> (H, W) float32, at least 1.

        Objects are the 8-connected parts of each class. Only the background between them counts
        more: that is what has to be found for them to come apart.
        """
        classes = [number for number in np.unique(labels) if number not in (0, IGNORED)]
        parts = [part for number in classes for part in _distances(labels == number)]
        if len(parts) < 2:
            return np.ones(labels.shape, np.float32)
        nearest, second = np.partition(np.stack(parts), 1, axis=0)[:2]
        added = self.weight * np.exp(-((nearest + second) ** 2) / (2 * self.reach_pixels**2))
        return np.where(labels == 0, 1 + added, 1).astype(np.float32)


def _distances(mask: np.ndarray) -> list[np.ndarray]:
    """Of each connected part of a mask (H, W): how far every pixel is from it, float32."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return [
        cv2.distanceTransform(
            (parts != number).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        for number in range(1, count)
    ]


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
        self,
        inputs: int,
        skip: int,
        outputs: int,
        doubling: Doubling,
        batch_norm: bool,
        evens: bool,
    ) -> None:
        """evens: bring both maps to one scale before they are mixed."""
        super().__init__()
        self.upsample = (
            nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
            if doubling == "transposed"
            else Doubled(inputs, outputs)
        )
        self.even = nn.BatchNorm2d(outputs + skip) if evens else nn.Identity()
        self.mix = double_conv(outputs + skip, outputs, batch_norm)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N, I, h/2, w/2) and (N, S, h, w) -> (N, O, h, w)."""
        doubled = fitted(self.upsample(coarse), (fine.shape[2], fine.shape[3]))
        return self.mix(self.even(torch.cat([fine, doubled], 1)))


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
    border: Border | None = None,
) -> UNet:
    """The paper's network with random weights, in training mode; scores for every pixel.

    Args:
        width: channels of the finest map; each of the ``depth`` levels has twice the one before.
        border: for many small objects that touch, as the paper has them.
    """
    down = Contracting(width, depth, batch_norm)
    widths = list(down.channels.values())[:-1]
    network = _joined(down, down.channels, widths, num_classes, doubling, batch_norm, evens=False)
    network.border = border
    return network


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
    # MobileNetV2's maps deviate by 3 to 5, what comes up from below by 0.3: unless they are evened,
    # the coarse map's meaning has a hundredth of the say at each step.
    return _joined(down, down.channels, widths, num_classes, doubling, batch_norm=True, evens=True)


def _joined(
    down: nn.Module,
    channels: dict[int, int],
    widths: Sequence[int],
    num_classes: int,
    doubling: Doubling,
    batch_norm: bool,
    *,
    evens: bool,
) -> UNet:
    """widths: of the steps up, finest first, one fewer than channels."""
    skips = list(channels.values())
    coarser = [*widths[1:], skips[-1]]
    steps = [
        Up(inputs, skip, outputs, doubling, batch_norm, evens)
        for inputs, skip, outputs in zip(coarser, skips[:-1], widths, strict=True)
    ]
    return UNet(down, steps[::-1], classifier(widths[0], num_classes), num_classes)
