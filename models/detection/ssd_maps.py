"""The maps that SSD looks at: a classifier cut open, and further layers that halve them.

Names are torchvision's, whose weights fit one to one.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation

VGG_CONV4_3 = 23
"""Layers of VGG-16 up to the ReLU behind conv4_3; the pooling after it is the next one."""
VGG_POOL3 = 16

lite_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
lite_layer = partial(Conv2dNormActivation, norm_layer=lite_norm, activation_layer=nn.ReLU6)


class VGGMaps(nn.Module):
    """VGG-16 to conv4_3 and conv5_3, fc6 with holes and fc7, four more (SSD fig. 2, sec. 3)."""

    out_channels = (512, 1024, 512, 256, 256, 256)

    def __init__(self) -> None:
        super().__init__()
        layers = list(torchvision.models.vgg16(weights=None).features)
        pool3 = layers[VGG_POOL3]
        assert isinstance(pool3, nn.MaxPool2d)
        pool3.ceil_mode = True  # 75 pixels become 38, as in the paper
        # conv4_3 has larger values than the rest: normalised and scaled by a learnt 20 (sec. 3.1)
        self.scale_weight = nn.Parameter(torch.full((512,), 20.0))
        self.features = nn.Sequential(*layers[:VGG_CONV4_3])
        with_holes = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(inplace=True),
        )
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*layers[VGG_CONV4_3:-1], with_holes),
                _halving(1024, 256, 512, padded=True),
                _halving(512, 128, 256, padded=True),
                _halving(256, 128, 256, padded=False),
                _halving(256, 128, 256, padded=False),
            ]
        )
        for layer in [*with_holes.modules(), *self.extra[1:].modules()]:
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, 300, 300) -> maps of 38, 19, 10, 5, 3 and 1 cells a side."""
        x = self.features(images)
        maps = [self.scale_weight[:, None, None] * F.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return maps


def _halving(inputs: int, hidden: int, outputs: int, padded: bool) -> nn.Sequential:
    """1x1, then a 3x3 that halves the map, or (without padding) takes its rim off."""
    stride, padding = (2, 1) if padded else (1, 0)
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, outputs, 3, stride, padding),
        nn.ReLU(inplace=True),
    )


class LiteMaps(nn.Module):
    """MobileNetV3-Large up to its last expansion, its end, four more (arXiv:1905.02244, sec. 6.3).

    ``reduced``: the last stage has half the channels (table 6), as in torchvision's weights for
    COCO.
    """

    def __init__(self, reduced: bool = True) -> None:
        super().__init__()
        trunk = torchvision.models.mobilenet_v3_large(
            weights=None, norm_layer=lite_norm, reduced_tail=reduced
        )
        blocks = list(trunk.features)
        # Where the last stage begins; its block's 1x1 still works at stride 16.
        last = max(i for i, block in enumerate(blocks) if getattr(block, "_is_cn", False))
        first, rest = blocks[last].block[0], blocks[last].block[1:]
        self.features = nn.Sequential(
            nn.Sequential(*blocks[:last], first),
            nn.Sequential(rest, *blocks[last + 1 :]),
        )
        widths = (blocks[-1].out_channels, 512, 256, 256, 128)
        self.extra = nn.ModuleList(_lite_halving(*pair) for pair in pairwise(widths))
        self.out_channels = (first.out_channels, *widths)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.03)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, 320, 320) -> maps of 20, 10, 5, 3, 2 and 1 cells a side."""
        maps, x = [], images
        for block in [*self.features, *self.extra]:
            x = block(x)
            maps.append(x)
        return maps


def _lite_halving(inputs: int, outputs: int) -> nn.Sequential:
    hidden = outputs // 2
    return nn.Sequential(
        lite_layer(inputs, hidden, kernel_size=1),
        lite_layer(hidden, hidden, kernel_size=3, stride=2, groups=hidden),
        lite_layer(hidden, outputs, kernel_size=1),
    )
