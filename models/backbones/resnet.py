"""ResNet-50 (He et al., CVPR 2016, arXiv:1512.03385) with a pyramid at strides 4, 8, 16, 32, 64."""

from __future__ import annotations

from functools import partial

import torchvision
from torch import nn

from models.backbones.pyramid import FeaturePyramid, Norm, PyramidBackbone, TappedTrunk


def resnet50_fpn(
    *, channels: int = 256, pyramid_norm: Norm | None = None, batch_norm_eps: float = 1e-5
) -> PyramidBackbone:
    """torchvision's trunk (stride in the 3x3, "v1.5") under our pyramid; random weights."""
    norm = partial(nn.BatchNorm2d, eps=batch_norm_eps)
    trunk = torchvision.models.resnet50(weights=None, norm_layer=norm)
    body = TappedTrunk(trunk, taps=("layer1", "layer2", "layer3", "layer4"))
    fpn = FeaturePyramid((256, 512, 1024, 2048), channels, pyramid_norm)
    return PyramidBackbone(body, fpn, channels)
