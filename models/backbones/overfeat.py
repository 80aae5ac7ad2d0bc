"""The two trunks of OverFeat (Sermanet et al., ICLR 2014, arXiv:1312.6229, tables 1 and 3).

The last pooling of each table is not here: OverFeat does it with offsets, see
:func:`models.detection.overfeat.offset_max_pool`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from torch import nn

from models.backbones.features import FeatureMaps


class Layer(NamedTuple):
    """One row of the tables: convolution, ReLU, max pooling without overlap."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pool: int = 1
    """Side and stride of the pooling; 1: none."""


FAST = (
    Layer(96, 11, stride=4, pool=2),
    Layer(256, 5, pool=2),
    Layer(512, 3, padding=1),
    Layer(1024, 3, padding=1),
    Layer(1024, 3, padding=1, pool=2),
)
"""Table 1, layers 1 to 5. Its 24x24 behind layer 1 is what layer 2 makes of 28x28."""
ACCURATE = (
    Layer(96, 7, stride=2, pool=3),
    Layer(256, 7, pool=2),
    Layer(512, 3, padding=1),
    Layer(512, 3, padding=1),
    Layer(1024, 3, padding=1),
    Layer(1024, 3, padding=1, pool=3),
)
"""Table 3, layers 1 to 6."""


def overfeat_trunk(layers: Sequence[Layer]) -> FeatureMaps:
    """The convolutions up to the map before the last pooling; N(0, 0.01) weights (sec. 3.2)."""
    channels = 3
    parts: list[nn.Sequential] = []
    for layer in layers:
        convolution = nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding)
        parts.append(nn.Sequential(convolution, nn.ReLU(inplace=True)))
        if layer.pool > 1 and layer is not layers[-1]:
            parts[-1].append(nn.MaxPool2d(layer.pool))
        nn.init.normal_(convolution.weight, std=0.01)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has one
        channels = layer.channels
    named = OrderedDict[str, nn.Module](
        (f"layer{number}", part) for number, part in enumerate(parts, 1)
    )
    stride = map_stride(layers)
    last = f"layer{len(layers)}"
    return FeatureMaps(nn.Sequential(named), {stride: (last, channels)}, (stride,), "")


def map_stride(layers: Sequence[Layer]) -> int:
    """Pixels between neighbouring cells of the map before the last pooling."""
    return prod(layer.stride * layer.pool for layer in layers) // layers[-1].pool


def window_pixels(layers: Sequence[Layer], cells: int) -> int:
    """Side of the picture of which the pooled map is ``cells`` wide: 231 for 6, 221 for 5."""
    side = cells
    for layer in reversed(layers):
        side = (side * layer.pool - 1) * layer.stride + layer.kernel - 2 * layer.padding
    return side
