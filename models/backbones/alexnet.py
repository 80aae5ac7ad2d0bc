"""AlexNet (Krizhevsky et al., NeurIPS 2012), in torchvision's one-tower form (arXiv:1404.5997)."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision

from models.backbones.features import FeatureMaps

TAPS = {4: ("1", 64), 8: ("4", 192), 16: ("11", 256), 32: ("12", 256)}
"""After conv1, conv2, conv5 and the last pooling."""


def alexnet(strides: Sequence[int] = (16,)) -> FeatureMaps:
    """The five convolutions; random weights. Strides 4, 8, 16, 32."""
    trunk = torchvision.models.alexnet(weights=None).features
    return FeatureMaps(trunk, TAPS, strides, "features.")
