"""A trunk that learns in seconds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from models.backbones.features import FeatureMaps
from models.segmentation.convolutions import conv_norm_relu

WIDTHS = {2: 16, 4: 24, 8: 32, 16: 48, 32: 64}


def small_trunk(strides: Sequence[int] = tuple(WIDTHS)) -> FeatureMaps:
    """Five 3x3s of stride 2, each but the first followed by one of stride 1."""
    stages, inputs = {}, 3
    for stride, width in WIDTHS.items():
        halve = conv_norm_relu(inputs, width, 3)
        halve[0].stride = (2, 2)
        more = [] if stride == 2 else [conv_norm_relu(width, width, 3)]
        stages[str(stride)] = nn.Sequential(halve, *more)
        inputs = width
    taps = {stride: (str(stride), width) for stride, width in WIDTHS.items()}
    return FeatureMaps(nn.ModuleDict(stages), taps, strides, "")
