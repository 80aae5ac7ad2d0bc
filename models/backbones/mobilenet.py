"""MobileNets, plain and with a pyramid: V2 (arXiv:1801.04381), V3-Large (arXiv:1905.02244)."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import nn

from models.backbones.features import FeatureMaps
from models.backbones.pyramid import FeaturePyramid, PyramidBackbone, TappedTrunk

TAPS_V2 = {2: ("1", 16), 4: ("3", 24), 8: ("6", 32), 16: ("13", 96), 32: ("17", 320)}
"""After the last block of each stride; the classifier's last 1x1 (1280 channels) is left out."""
TAPS_V3_LARGE = {2: ("1", 16), 4: ("3", 24), 8: ("6", 40), 16: ("12", 112), 32: ("16", 960)}
"""After the last block of each stride; 32 is after the last 1x1."""


def mobilenet_v2(strides: Sequence[int] = (32,)) -> FeatureMaps:
    """Inverted residuals; random weights. Strides 2, 4, 8, 16, 32."""
    trunk = torchvision.models.mobilenet_v2(weights=None).features
    return FeatureMaps(trunk, TAPS_V2, strides, "features.")


def mobilenet_v3_large(strides: Sequence[int] = (32,)) -> FeatureMaps:
    """Inverted residuals with squeeze-and-excitation; random weights. Strides 2, 4, 8, 16, 32."""
    trunk = torchvision.models.mobilenet_v3_large(weights=None).features
    return FeatureMaps(trunk, TAPS_V3_LARGE, strides, "features.")


def mobilenet_v3_large_fpn(*, channels: int = 256, batch_norm_eps: float = 1e-5) -> PyramidBackbone:
    """Levels at strides 32, 32, 64, as torchvision taps it: before and after the last 1x1."""

    def norm(features: int) -> nn.Module:
        return nn.BatchNorm2d(features, eps=batch_norm_eps)

    trunk = torchvision.models.mobilenet_v3_large(weights=None, norm_layer=norm).features
    body = TappedTrunk(trunk, taps=("13", "16"))
    return PyramidBackbone(body, FeaturePyramid((160, 960), channels), channels, "features.")


def mobilenet_v2_fpn(*, channels: int = 128, batch_norm_eps: float = 1e-5) -> PyramidBackbone:
    """Levels at strides 8, 16, 32, 64; the classifier's last 1x1 (1280 channels) is left out."""

    def norm(features: int) -> nn.Module:
        return nn.BatchNorm2d(features, eps=batch_norm_eps)

    trunk = torchvision.models.mobilenet_v2(weights=None, norm_layer=norm).features
    body = TappedTrunk(trunk, taps=("6", "13", "17"))
    return PyramidBackbone(body, FeaturePyramid((32, 96, 320), channels), channels, "features.")
