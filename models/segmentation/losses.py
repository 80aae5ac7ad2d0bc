"""Cross-entropy over pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.network import IGNORED


class PixelLoss(nn.Module):
    """Mean cross-entropy over the pixels that have a label, in float32.

    Class weights, for sets where most of the picture is road and sky, make rare classes count
    more; the mean is over weights, so the scale stays the same.
    """

    weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        """class_weights: one a class; None counts every pixel once."""
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights).float()
        self.register_buffer("weights", weights, persistent=False)

    def forward(
        self, scores: Tensor, labels: Tensor, pixel_weights: Tensor | None = None
    ) -> Tensor:
        """A scalar; 0 where no pixel has a label.

        Args:
            scores: (N, C, H, W) before the softmax.
            labels: (N, H, W) uint8, ``IGNORED`` where unknown.
            pixel_weights: (N, H, W) float32, how much each pixel counts; None: all the same.

        Raises:
            ValueError: scores and labels differ in size.
        """
        if scores.shape[-2:] != labels.shape[-2:]:
            sizes = f"{tuple(scores.shape[-2:])} and {tuple(labels.shape[-2:])}"
            raise ValueError(f"scores and labels must have one size, got {sizes}")
        target = labels.long()
        each = F.cross_entropy(
            scores.float(), target, self.weights, ignore_index=IGNORED, reduction="none"
        )
        known = labels != IGNORED
        share = known.to(each.dtype)
        if self.weights is not None:
            share = share * self.weights[target.clamp(max=len(self.weights) - 1)]
        if pixel_weights is not None:
            each, share = each * pixel_weights, share * pixel_weights
        return each.sum() / share.sum().clamp(min=torch.finfo(each.dtype).tiny)
