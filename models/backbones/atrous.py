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
