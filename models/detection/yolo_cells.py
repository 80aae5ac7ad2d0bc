"""YOLO's grid: which cell and which box is responsible for an object, and which sees nothing.

Boxes here are ``x1, y1, x2, y2`` as shares of the frame's width and height.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.boxes import SizeHW
from models.detection.losses import Truth, share_inside


class Cells(NamedTuple):
    """A grid over the frame."""

    size_hw: SizeHW

    def place(self, within: Tensor) -> Tensor:
        """(..., cells, P, 2) x, y within each cell -> shares of the frame's width and height."""
        height, width = self.size_hw
        number = torch.arange(height * width, device=within.device)
        row = torch.div(number, width, rounding_mode="floor")
        corner = torch.stack([number - row * width, row], -1)[:, None]
        return (within + corner) / within.new_tensor([width, height])

    def of(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(G, 4) shares -> number of the cell with the centre (G,), and x, y within it (G, 2)."""
        height, width = self.size_hw
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 * boxes.new_tensor([width, height])
        last = centre.new_tensor([width - 1, height - 1])
        corner = torch.minimum(centre.floor(), last)
        return (corner[:, 1] * width + corner[:, 0]).long(), centre - corner


def idle_boxes(
    boxes: Tensor, truth: Truth, responsible: tuple[Tensor, Tensor], ignore_iou: float = 1.0
) -> Tensor:
    """(cells, P) bool: boxes that should say that they see nothing.

    Not those responsible for an object, nor those that fit one better than ``ignore_iou``, nor
    those in a region of which nothing is known.
    """
    idle = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    if len(truth.boxes):
        best = paired_iou(boxes[:, :, None], truth.boxes).amax(2)
        idle &= best <= ignore_iou
    if len(truth.ignored):
        inside = share_inside(boxes.flatten(0, 1), truth.ignored) > 0.5
        idle &= ~inside.view_as(idle)
    idle[responsible] = False
    return idle


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 4) one by one, broadcast."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    both = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (both - shared).clamp(min=1e-9)


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of widths and heights (K, 2), (J, 2) laid on one corner -> (K, J)."""
    shared = torch.minimum(a[:, None], b[None]).prod(-1)
    return shared / (a.prod(-1)[:, None] + b.prod(-1)[None] - shared)


def cluster_priors(sizes: Tensor, count: int, rounds: int = 100, seed: int = 0) -> Tensor:
    """(G, 2) widths and heights of true boxes -> (count, 2) priors, smallest first.

    k-means by the distance 1 - IoU, so that large boxes do not outvote small ones (v2, sec. 2,
    "Dimension Clusters").

    Raises:
        ValueError: there are fewer boxes than priors.
    """
    if len(sizes) < count:
        raise ValueError(f"{count} priors need as many boxes, got {len(sizes)}")
    chance = torch.Generator().manual_seed(seed)
    priors = sizes[torch.randperm(len(sizes), generator=chance)[:count]].clone()
    for _ in range(rounds):
        nearest = shape_iou(sizes, priors).argmax(1)
        moved = torch.stack(
            [
                sizes[nearest == k].mean(0) if (nearest == k).any() else priors[k]
                for k in range(count)
            ]
        )
        if torch.equal(moved, priors):
            break
        priors = moved
    return priors[priors.prod(1).argsort()]
