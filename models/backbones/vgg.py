"""VGG-16 (Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, configuration D)."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision

from models.backbones.features import FeatureMaps

TAPS = {
    1: ("3", 64),
    2: ("8", 128),
    4: ("15", 256),
    8: ("22", 512),
    16: ("29", 512),
    32: ("30", 512),
}
"""After the last ReLU of each block; 32 is after the last pooling."""


def vgg16(strides: Sequence[int] = (16,)) -> FeatureMaps:
    """The thirteen convolutions; random weights. Strides 1, 2, 4, 8, 16, 32."""
    trunk = torchvision.models.vgg16(weights=None).features
    return FeatureMaps(trunk, TAPS, strides, "features.")
