"""Gaussian filtering in many dimensions (Adams et al., Eurographics 2010, "Fast High-Dimensional
Filtering Using the Permutohedral Lattice").

    filter = Lattice(features)            # (N, d): where each point is, in standard deviations
    filter(values)                        # (N, C): each the sum of all, weighted by exp(-dist²/2)

Every point's value is spread over the d + 1 corners of the simplex it lies in (splat), the corners
are blurred along the d + 1 axes of the lattice, and each point collects from its corners (slice).
The work grows with N d², not with N². Only corners that some point touches exist.

The result is about proportional to the true sum: the blur is a tent for a bell, some corners are
missing, and nobody keeps the scale. Whoever divides by the filtered ones, or by their roots, gets
rid of the scale.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Lattice:
    """The corners that a set of points touches, and who touches which."""

    def __init__(self, features: np.ndarray) -> None:
        """features: (N, d) float32, in units of the standard deviation of the Gaussian."""
        corner, weights, steps = _corners(features.T.astype(np.float32))
        points, sides = len(features), features.shape[1] + 1
        key = corner.reshape(-1)
        order = np.argsort(key)
        new = np.diff(key[order], prepend=key[order[:1]] - 1) != 0
        first = np.flatnonzero(new)
        keys = key[order[first]]
        index = np.empty(len(key), np.int64)
        index[order] = np.cumsum(new) - 1
        self.weights = torch.from_numpy(np.ascontiguousarray(weights))
        """(N, d + 1) float32: how much of a point each of its corners has."""
        self.index = torch.from_numpy(index.reshape(points, sides))
        """(N, d + 1) int64: the corners' numbers."""
        self.point = torch.from_numpy(order // sides)
        """Points by corner: those of corner 0 first."""
        self.share = self.weights.reshape(-1)[torch.from_numpy(order)]
        self.first = torch.from_numpy(first)
        self.neighbours = [_neighbours(keys, step) for step in steps]
        self.corners = len(keys)

    def __call__(self, values: Tensor) -> Tensor:
        """(N, C) float32 -> (N, C): of each point the weighted sum over all points, itself too."""
        at_corners = F.embedding_bag(
            self.point, values, self.first, mode="sum", per_sample_weights=self.share
        )
        blurred = self._blur(at_corners)
        return F.embedding_bag(self.index, blurred, mode="sum", per_sample_weights=self.weights)

    def _blur(self, values: Tensor) -> Tensor:
        """(M, C) -> (M, C): 1/2, 1, 1/2 along each axis; a corner that does not exist counts 0."""
        nothing = values.new_zeros(1, values.shape[1])
        for before, after in self.neighbours:
            padded = torch.cat([values, nothing])
            values = values + 0.5 * (padded[before] + padded[after])
        return values


def _corners(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Where points lie in the lattice (the paper's sec. 3, splatting).

    Args:
        features: (d, N) float32.

    Returns:
        key (N, d + 1) int64 of each corner of each point, weight (N, d + 1) float32, and the
        d + 1 numbers that lead from a corner's key to that of its next along each axis.
    """
    d = len(features)
    elevated = _elevate(features)
    cell = np.rint(elevated / (d + 1)).astype(np.int32)
    rank = _ranks(elevated - cell * np.float32(d + 1)) + cell.sum(0, dtype=np.int32)
    below, above = rank < 0, rank > d
    cell += below.astype(np.int32) - above
    rank += (d + 1) * (below.astype(np.int32) - above)
    offset = elevated / (d + 1) - cell
    weights = _barycentric(offset, rank)
    base = cell[:d].astype(np.int64) * (d + 1)
    low = base.min(1) - 2 * (d + 1)
    extent = base.max(1) + 2 * (d + 1) - low + 1
    place = np.concatenate([[1], np.cumprod(extent[:-1])])
    origin = ((base - low[:, None]) * place[:, None]).sum(0)
    # Corner k of a simplex: k steps along every axis, and d + 1 back along the k lowest.
    key = np.empty((features.shape[1], d + 1), np.int64)
    key[:, 0] = origin
    back = np.zeros_like(origin)
    for k in range(1, d + 1):
        back += ((rank[:d] == d + 1 - k) * place[:, None]).sum(0)
        key[:, k] = origin + k * place.sum() - (d + 1) * back
    along = [int(place.sum() - (d + 1) * place[i]) for i in range(d)]
    return key, weights, [*along, int(place.sum())]


def _elevate(features: np.ndarray) -> np.ndarray:
    """(d, N) -> (d + 1, N) on the plane where coordinates sum to 0, at the lattice's scale."""
    d = len(features)
    # The blur along the axes has a variance of (d + 1)² 2/3 in these units.
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt(np.arange(1, d + 1) * np.arange(2, d + 2))
    scaled = features * scale[:, None].astype(np.float32)
    elevated = np.zeros((d + 1, features.shape[1]), np.float32)
    total = np.zeros(features.shape[1], np.float32)
    for i in range(d, 0, -1):
        elevated[i] = total - i * scaled[i - 1]
        total += scaled[i - 1]
    elevated[0] = total
    return elevated


def _ranks(differences: np.ndarray) -> np.ndarray:
    """(D, N) -> (D, N) int32: how many of a point's coordinates are larger; ties by place."""
    rank = np.zeros(differences.shape, np.int32)
    for i in range(len(differences)):
        for j in range(i + 1, len(differences)):
            larger = differences[j] > differences[i]
            rank[i] += larger
            rank[j] += ~larger
    return rank


def _barycentric(offset: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """offset (d + 1, N) from corner 0 in cells, and its ranks -> weights (N, d + 1)."""
    d = len(offset) - 1
    ordered = np.empty((offset.shape[1], d + 1), np.float32)  # largest offset first
    np.put_along_axis(ordered, rank.T.astype(np.int64), offset.T, axis=1)
    weights = np.empty_like(ordered)
    # Corner k weighs as much as the gap between neighbours in this order.
    weights[:, 1:] = (ordered[:, :-1] - ordered[:, 1:])[:, ::-1]
    weights[:, 0] = 1 - (ordered[:, 0] - ordered[:, -1])
    return weights


def _neighbours(keys: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
    """Numbers of the corners before and after each one; len(keys) where there is none."""
    missing = len(keys)
    found = np.searchsorted(keys, keys + step).clip(max=missing - 1)
    there = keys[found] == keys + step
    after = np.where(there, found, missing)
    before = np.full(missing, missing)
    before[found[there]] = np.flatnonzero(there)
    return torch.from_numpy(before), torch.from_numpy(after)
