"""Dilation instead of the last strides: the same weights, a finer map (arXiv:1412.7062, sec. 3.1).

A layer that skips every other position is made to skip none, and all that comes after it leaves
gaps between its taps instead ("à trous", with holes). At the positions that were computed before,
the result is what it was; those in between are new. So a classifier's weights still fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.features import FeatureMaps


class DensePool(nn.Module):
    """Max pooling at every position, over taps that are ``rate`` pixels apart.

    Stands after a ReLU, so that the zeros beyond the border win nowhere.
    """

    def __init__(self, kernel: int, rate: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), none below 0 -> the same shape."""
        beyond = self.rate * (self.kernel - 1)
        padded = F.pad(x, (0, beyond, 0, beyond))
        return F.max_pool2d(padded, self.kernel, stride=1, dilation=self.rate)


class PhasedConv2d(nn.Conv2d):
    """A depthwise convolution with holes that learns as one without, on every n-th pixel apart.

    The pixels that its taps meet together form maps of their own (the paper's "algorithme a trous"
    read backwards), so a rate is a matter of sorting them. The result is the same; on a CPU the
    gradient of the weights costs a twentieth, because libraries have no quick one for holes.
    """

    @classmethod
    def of(cls, layer: nn.Conv2d) -> PhasedConv2d:
        """With the weight of a layer without bias whose border keeps the size."""
        rate, kernel = _first(layer.dilation), _first(layer.kernel_size)
        sides = (kernel, 1, rate * (kernel // 2), rate, layer.groups, False)
        phased = cls(layer.in_channels, layer.out_channels, *sides)
        phased.weight = layer.weight
        return phased

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if not self.training:
            return super().forward(x)
        rate, (batch, channels, height, width) = _first(self.dilation), x.shape
        x = F.pad(x, (0, -width % rate, 0, -height % rate)).permute(0, 2, 3, 1)
        h, w = x.shape[1] // rate, x.shape[2] // rate
        apart = x.reshape(batch, h, rate, w, rate, channels).permute(0, 2, 4, 1, 3, 5)
        maps = apart.reshape(-1, h, w, channels).permute(0, 3, 1, 2)
        border = _first(self.kernel_size) // 2
        found = F.conv2d(maps, self.weight, padding=border, groups=channels).permute(0, 2, 3, 1)
        found = found.reshape(batch, rate, rate, h, w, channels).permute(0, 3, 1, 4, 2, 5)
        whole = found.reshape(batch, h * rate, w * rate, channels).permute(0, 3, 1, 2)
        return whole[..., :height, :width]


def atrous(
    backbone: FeatureMaps, output_stride: int, multi_grid: Sequence[int] = ()
) -> FeatureMaps:
    """Change a trunk in place so that no map is coarser than ``output_stride``; returns it.

    Maps keep their names: ``backbone(images)[32]`` is the last map, of stride ``output_stride``.

    Args:
        output_stride: 1, 2, 4, ... at most the stride of the last map, which changes nothing.
        multi_grid: rates of the last so many convolutions, as multiples of the rate that their
            stride asks for (DeepLabv3, arXiv:1706.05587, sec. 3.2.1: 1, 2, 4).

    Raises:
        ValueError: the trunk has no such stride, or a pooling that cannot be made dense.
    """
    stride, rate = 1, 1
    spatial: list[nn.Conv2d] = []
    for name, owner, layer in _layers(backbone.body):
        step = _first(layer.stride)
        if "downsample" in name:  # a shortcut beside layers already seen: follows them
            layer.stride = (1, 1) if rate > 1 else layer.stride
            continue
        removed = step > 1 and stride >= output_stride
        if isinstance(layer, nn.Conv2d):
            _set_rate(layer, rate)
            layer.stride = (1, 1) if removed else layer.stride
            spatial += [layer] if _first(layer.kernel_size) > 1 else []
        elif removed:
            _densify(owner, name.rpartition(".")[2], layer, rate)
        stride *= 1 if removed else step
        rate *= step if removed else 1
    if stride != output_stride:
        raise ValueError(f"the trunk cannot have an output stride of {output_stride}")
    for layer, unit in zip(spatial[len(spatial) - len(multi_grid) :], multi_grid, strict=True):
        _set_rate(layer, rate * unit)
    for name, owner, layer in list(_layers(backbone.body)):
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and _first(layer.dilation) > 1:
            owner.register_module(name.rpartition(".")[2], PhasedConv2d.of(layer))
    return backbone


def _layers(body: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Conv2d | nn.MaxPool2d]]:
    """Name, owner and layer, of all layers that have a stride, in the order they are called."""
    owners = dict(body.named_modules())
    for name, layer in owners.items():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            yield name, owners[name.rpartition(".")[0]], layer


def _set_rate(layer: nn.Conv2d, rate: int) -> None:
    """Taps ``rate`` pixels apart, and a border that keeps the size."""
    kernel = _first(layer.kernel_size)
    if kernel > 1:
        layer.dilation = (rate, rate)
        if rate > 1:
            layer.padding = (rate * (kernel // 2),) * 2


def _densify(owner: nn.Module, name: str, pool: nn.Module, rate: int) -> None:
    assert isinstance(pool, nn.MaxPool2d)
    kernel, padding = _first(pool.kernel_size), _first(pool.padding)
    if padding or kernel != _first(pool.stride):
        raise ValueError(f"a pooling of {kernel} cells with border {padding} cannot be made dense")
    owner.register_module(name, DensePool(kernel, rate))


def _first(size: int | tuple[int, ...]) -> int:
    """torch gives sizes as one number or as (height, width); they are square here."""
    return size if isinstance(size, int) else size[0]
