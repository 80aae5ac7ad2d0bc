"""Boxes as tensors: ``x1, y1, x2, y2`` in pixels, continuous edges, ``x1 < x2`` and ``y1 < y2``.

Everything here stays in float32 whatever the precision of the network around it: bfloat16 has
steps of 4 pixels at 640.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CODER_SCALE_LIMIT = math.log(1000.0 / 16)
"""Largest log-scale a regressor may ask for, so that exp() stays finite (Detectron's bound)."""

Weights = tuple[float, float, float, float]
SizeHW = tuple[int, int]


def at_least_float32(x: Tensor) -> Tensor:
    """For numbers that turn into coordinates, ranks or scores; float64 stays what it is."""
    return x if x.dtype == torch.float64 else x.float()


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...) square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Tensor, size_hw: SizeHW | Tensor) -> Tensor:
    """Boxes cut at the border of their image.

    boxes: (N, R, 4); size_hw: one ``(height, width)`` for all, or a (N, 2) tensor of them.
    """
    if isinstance(size_hw, Tensor):
        limits = size_hw.to(boxes).flip(-1).repeat(1, 2)[:, None, :]
    else:
        height, width = size_hw
        limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0.0), limits)


def both_sides_at_least(boxes: Tensor, pixels: float) -> Tensor:
    """(..., 4) -> (...) bool."""
    return (boxes[..., 2:] - boxes[..., :2]).amin(-1) >= pixels


def _pairwise_intersection_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a (..., K, 4), b (..., J, 4) -> two (..., K, J), square pixels."""
    ax1, ay1, ax2, ay2 = (side[..., :, None] for side in a.unbind(-1))
    bx1, by1, bx2, by2 = (side[..., None, :] for side in b.unbind(-1))
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0.0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0.0)
    intersection = width * height
    areas = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)
    return intersection, areas - intersection


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair: (..., K, 4), (..., J, 4) -> (..., K, J).

    Two empty boxes have IoU 0.
    """
    intersection, union = _pairwise_intersection_union(a, b)
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def overlap_more_than(boxes: Tensor, threshold: float) -> Tensor:
    """(..., K, 4) -> (..., K, K) bool: IoU > threshold, without a division (and so without 0/0)."""
    intersection, union = _pairwise_intersection_union(boxes, boxes)
    return intersection > threshold * union


def encode(boxes: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """What a regressor must say to turn ``anchors`` into ``boxes`` (R-CNN, appendix C, eq. 6-9).

    boxes, anchors: (..., 4) -> (..., 4) ``dx, dy, dw, dh``, each times its weight.
    """
    anchor_size = anchors[..., 2:] - anchors[..., :2]
    box_size = boxes[..., 2:] - boxes[..., :2]
    anchor_centre = anchors[..., :2] + 0.5 * anchor_size
    box_centre = boxes[..., :2] + 0.5 * box_size
    shift = (box_centre - anchor_centre) / anchor_size
    scale = torch.log(box_size / anchor_size)
    return torch.cat([shift, scale], -1) * anchors.new_tensor(weights)


def decode(deltas: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """The inverse of :func:`encode`: (..., 4), (..., 4) -> (..., 4)."""
    deltas = at_least_float32(deltas) / anchors.new_tensor(weights)
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * size
    centre = deltas[..., :2] * size + centre
    half = 0.5 * (torch.exp(deltas[..., 2:].clamp(max=CODER_SCALE_LIMIT)) * size)
    return torch.cat([centre - half, centre + half], -1)
