"""ResNet (He et al., CVPR 2016, arXiv:1512.03385), plain and with a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torchvision
from torch import nn

from models.backbones.features import FeatureMaps
from models.backbones.pyramid import FeaturePyramid, Norm, PyramidBackbone, TappedTrunk

TAPS_18 = {
    2: ("relu", 64),
    4: ("layer1", 64),
    8: ("layer2", 128),
    16: ("layer3", 256),
    32: ("layer4", 512),
}
TAPS_50 = {
    2: ("relu", 64),
    4: ("layer1", 256),
    8: ("layer2", 512),
    16: ("layer3", 1024),
    32: ("layer4", 2048),
}


def resnet18(strides: Sequence[int] = (32,)) -> FeatureMaps:
    """Basic blocks; random weights. Strides 2, 4 (C2), 8, 16 (C4), 32 (C5)."""
    return FeatureMaps(torchvision.models.resnet18(weights=None), TAPS_18, strides, "")


def resnet50(strides: Sequence[int] = (32,)) -> FeatureMaps:
    """Bottlenecks with the stride in the 3x3 ("v1.5"); random weights. Strides as resnet18."""
    return FeatureMaps(torchvision.models.resnet50(weights=None), TAPS_50, strides, "")


def resnet50_fpn(
    *, channels: int = 256, pyramid_norm: Norm | None = None, batch_norm_eps: float = 1e-5
) -> PyramidBackbone:
    """The trunk under our pyramid, strides 4, 8, 16, 32, 64; random weights."""
    norm = partial(nn.BatchNorm2d, eps=batch_norm_eps)
    trunk = torchvision.models.resnet50(weights=None, norm_layer=norm)
    body = TappedTrunk(trunk, taps=("layer1", "layer2", "layer3", "layer4"))
    fpn = FeaturePyramid((256, 512, 1024, 2048), channels, pyramid_norm)
    return PyramidBackbone(body, fpn, channels)
