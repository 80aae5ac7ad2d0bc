"""From the scores of every place and class to a fixed number of slots, best first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """The best (place, class) pairs of each frame, descending."""

    scores: Tensor
    """(N, S) float32; may be below the least score that counts."""
    places: Tensor
    """(N, S) int64 index of the place."""
    labels: Tensor
    """(N, S) int64 class, 0 the first."""
    pairs: Tensor
    """(N, S) int64: place * C + class."""
    exact: Tensor
    """(N,) bool: there were slots for all pairs above the least score."""


def best_pairs(scores: Tensor, min_score: float, slots: int) -> Pairs:
    """scores (N, A, C) of A places and C classes -> the best ``slots`` pairs, or all A * C."""
    classes = scores.shape[2]
    flat = scores.flatten(1)
    above = (flat > min_score).sum(1)
    slots = min(slots, flat.shape[1])
    best, pair = flat.topk(slots, 1)
    place = torch.div(pair, classes, rounding_mode="floor")
    return Pairs(best, place, pair - place * classes, pair, above <= slots)
