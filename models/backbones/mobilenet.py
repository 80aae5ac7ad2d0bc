"""MobileNets with a pyramid: V2 (arXiv:1801.04381) and V3-Large (arXiv:1905.02244)."""

from __future__ import annotations

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn

from models.backbones.pyramid import FeaturePyramid, PyramidBackbone, TappedTrunk


def mobilenet_v3_large_fpn(*, channels: int = 256, batch_norm_eps: float = 1e-5) -> PyramidBackbone:
    """Levels at strides 32, 32, 64, as torchvision taps it: before and after the last 1x1."""

    def norm(features: int) -> nn.Module:
        return nn.BatchNorm2d(features, eps=batch_norm_eps)

    trunk = torchvision.models.mobilenet_v3_large(weights=None, norm_layer=norm).features
    body = TappedTrunk(trunk, taps=("13", "16"))
    return PyramidBackbone(body, FeaturePyramid((160, 960), channels), channels)


def mobilenet_v2_fpn(*, channels: int = 128, batch_norm_eps: float = 1e-5) -> PyramidBackbone:
    """Levels at strides 8, 16, 32, 64; the classifier's last 1x1 (1280 channels) is left out."""

    def norm(features: int) -> nn.Module:
        return nn.BatchNorm2d(features, eps=batch_norm_eps)

    trunk = torchvision.models.mobilenet_v2(weights=None, norm_layer=norm).features
    body = TappedTrunk(trunk, taps=("6", "13", "17"))
    return PyramidBackbone(body, FeaturePyramid((32, 96, 320), channels), channels)


def load_classifier(backbone: PyramidBackbone, state: Mapping[str, Tensor]) -> None:
    """Start the trunk of a MobileNet from a torchvision classifier's state dict.

    Raises RuntimeError if a weight of the trunk is missing in ``state``.
    """
    prefix = "features."
    wanted = backbone.body.state_dict().keys()
    trunk = {name.removeprefix(prefix): value for name, value in state.items()}
    backbone.body.load_state_dict({name: trunk[name] for name in wanted if name in trunk})
