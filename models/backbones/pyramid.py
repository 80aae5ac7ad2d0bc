"""Feature pyramid network (Lin et al., CVPR 2017, arXiv:1612.03144) over a tapped trunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class TappedTrunk(nn.ModuleDict):
    """The children of a classifier up to the last tap, called in order.

    Keeps the children's names, so that a state dict of the classifier still fits.
    """

    def __init__(self, trunk: nn.Module, taps: Sequence[str]) -> None:
        children = dict(trunk.named_children())
        if missing := set(taps) - set(children):
            raise ValueError(f"the trunk has no parts named {sorted(missing)}")
        names = list(children)
        last = max(names.index(tap) for tap in taps)
        super().__init__({name: children[name] for name in names[: last + 1]})
        self.taps = tuple(taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the tapped maps, finest first."""
        maps, x = [], images
        for name, part in self.items():
            x = part(x)
            if name in self.taps:
                maps.append(x)
        return maps


def conv(inputs: int, outputs: int, kernel: int, norm: Norm | None, relu: bool) -> nn.Sequential:
    """Convolution of stride 1 that keeps the size; with a norm it needs no bias."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=norm is None)
    ]
    if norm is not None:
        layers.append(norm(outputs))
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class FeaturePyramid(nn.Module):
    """Lateral 1x1s, a top-down path by nearest neighbour, 3x3s on the way out (sec. 3).

    One more level, half the size of the last, comes from subsampling it (Detectron's P6).
    """

    def __init__(self, in_channels: Sequence[int], channels: int, norm: Norm | None = None) -> None:
        super().__init__()
        self.inner_blocks = nn.ModuleList(
            conv(c, channels, 1, norm, relu=False) for c in in_channels
        )
        self.layer_blocks = nn.ModuleList(
            conv(channels, channels, 3, norm, relu=False) for _ in in_channels
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the trunk, finest first -> as many pyramid levels and one more."""
        merged = [lateral(x) for lateral, x in zip(self.inner_blocks, maps, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + _enlarged(merged[i + 1], like=merged[i])
        levels = [out(x) for out, x in zip(self.layer_blocks, merged, strict=True)]
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:  # MobileNetV3's two taps have one stride
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


class PyramidBackbone(nn.Module):
    """Trunk and pyramid."""

    def __init__(
        self, body: TappedTrunk, fpn: FeaturePyramid, out_channels: int, prefix: str = ""
    ) -> None:
        """prefix: what stands before the trunk's names in a classifier's state dict."""
        super().__init__()
        self.body = body
        self.fpn = fpn
        self.out_channels = out_channels
        self.prefix = prefix

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) normalised, H and W multiples of 32 -> levels, finest first."""
        return self.fpn(self.body(images))
