"""Convolutions with what comes after them."""

from __future__ import annotations

from torch import nn


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, *, rate: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution that keeps the size, its batch norm and ReLU.

    rate: distance in pixels between neighbouring taps (1: an ordinary convolution).
    """
    reach = rate * (kernel // 2)
    convolution = nn.Conv2d(
        inputs, outputs, kernel, padding=reach, dilation=rate, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def separable(inputs: int, outputs: int, *, rate: int = 1) -> nn.Sequential:
    """A 3x3 in two steps: each channel for itself, then 1x1 across channels.

    9 C + C C' multiplications a pixel instead of 9 C C'. Batch norm and ReLU follow both steps
    (DeepLabv3+, arXiv:1802.02611, sec. 3.2).
    """
    return nn.Sequential(
        conv_norm_relu(inputs, inputs, 3, rate=rate, groups=inputs),
        conv_norm_relu(inputs, outputs, 1),
    )


def classifier(inputs: int, num_classes: int) -> nn.Conv2d:
    """A linear classifier of each pixel, sure of nothing at first."""
    layer = nn.Conv2d(inputs, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
