"""Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials (Kraehenbuehl and
Koltun, NIPS 2011, arXiv:1210.5644).

DeepLab v1 and v2 sharpen their coarse answer with it: every pixel is asked to agree with every
other one, the more so the closer they are and the more alike their colours (DeepLab,
arXiv:1412.7062, eq. 3). The labels that agree best are found by mean field (sec. 3.1, algorithm 1),
and each of its steps is two Gaussian filters, which is what makes it fast (sec. 3.2).

    refine(frame, probabilities)          # (H, W, 3) uint8, (C, H, W) -> (C, H, W)

Where we deviate: both kernels are normalised, each pair of pixels by the roots of what the two hear
in all (the symmetric form of their later code), or pixels in large even areas would shout down all
that the network says; a pixel hears itself, as there. Labels are compatible or not (Potts).

It is no part of the exported graph: it needs sorting, and is for a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from models.segmentation.permutohedral import Lattice

Filter = Callable[[Tensor], Tensor]
"""(N, C) float32 -> (N, C): the sum over all pixels, weighted by one kernel."""

SURE = 1e-6
"""No network is surer than this that something is not there."""


@dataclass(frozen=True)
class CRF:
    """The potentials, and how long to look for their minimum.

    DeepLab searched the best weights and deviations on a hundred pictures; the defaults are of that
    size, and another set of pictures deserves a search of its own.
    """

    iterations: int = 10
    appearance_weight: float = 4.0
    """Of the kernel that compares places and colours."""
    appearance_pixels: float = 60.0
    appearance_levels: float = 5.0
    """Standard deviation of red, green and blue, each from 0 to 255."""
    smoothness_weight: float = 3.0
    """Of the kernel that compares places only."""
    smoothness_pixels: float = 3.0


def refine(frame: np.ndarray, probabilities: np.ndarray, crf: CRF = CRF()) -> np.ndarray:
    """Sharpen what a network says of one frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        probabilities: (C, H, W) float32, 1 in sum over the classes.

    Returns:
        The same for the CRF: (C, H, W) float32. Its argmax is the class map.

    Raises:
        ValueError: the two differ in size.
    """
    if probabilities.shape[1:] != frame.shape[:2]:
        sizes = f"{probabilities.shape[1:]} and {frame.shape[:2]}"
        raise ValueError(f"probabilities and frame must have one size, got {sizes}")
    flat = probabilities.reshape(len(probabilities), -1).T.astype(np.float32)
    said = torch.from_numpy(np.ascontiguousarray(flat)).clamp(min=SURE).log()
    kernels = [
        (crf.appearance_weight, normalised(appearance_filter(frame, crf), len(said))),
        (crf.smoothness_weight, normalised(smoothness_filter(frame, crf), len(said))),
    ]
    found = mean_field(said, kernels, crf.iterations)
    return found.T.reshape(probabilities.shape).contiguous().numpy()


@torch.no_grad()
def mean_field(said: Tensor, kernels: list[tuple[float, Filter]], iterations: int) -> Tensor:
    """Algorithm 1: each pixel hears what the others think, and thinks again.

    said: (N, C) log probabilities of the network -> (N, C) probabilities.
    """
    thought = _softmax(said.clone())
    for _ in range(iterations):
        heard = said.clone()
        for weight, kernel in kernels:
            heard.add_(kernel(thought), alpha=weight)
        thought = _softmax(heard)
    return thought


def _softmax(values: Tensor) -> Tensor:
    """In place; for short rows many times quicker than torch's. No value is near the clamp."""
    chances = values.clamp_(max=60.0).exp_()
    return chances.div_(chances @ chances.new_ones(chances.shape[1], 1))


def normalised(kernel: Filter, pixels: int) -> Filter:
    """D^-1/2 K D^-1/2, where D is what each pixel hears in all: scale does not matter any more."""
    in_all = kernel(torch.ones(pixels, 1))
    root = in_all.clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
    return lambda values: root * kernel(values * root)


def appearance_filter(frame: np.ndarray, crf: CRF) -> Filter:
    """exp(-|places|² / 2 a² - |colours|² / 2 b²) by the permutohedral lattice."""
    height, width = frame.shape[:2]
    features = np.empty((height, width, 5), np.float32)
    features[..., 0] = np.arange(width) / crf.appearance_pixels
    features[..., 1] = (np.arange(height) / crf.appearance_pixels)[:, None]
    features[..., 2:] = frame / np.float32(crf.appearance_levels)
    return Lattice(features.reshape(-1, 5))


def smoothness_filter(frame: np.ndarray, crf: CRF) -> Filter:
    """exp(-|places|² / 2 c²), rows and columns one after the other, cut off at 4 c."""
    height, width = frame.shape[:2]
    reach = int(np.ceil(4 * crf.smoothness_pixels))
    distance = np.arange(-reach, reach + 1) / crf.smoothness_pixels
    bell = np.exp(-0.5 * distance**2).astype(np.float32)

    def kernel(values: Tensor) -> Tensor:
        maps = values.numpy().reshape(height, width, -1)
        blurred = cv2.sepFilter2D(maps, -1, bell, bell, borderType=cv2.BORDER_CONSTANT)
        return torch.from_numpy(blurred.reshape(values.shape))

    return kernel
