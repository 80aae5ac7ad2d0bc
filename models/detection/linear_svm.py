"""Linear SVMs by the finite Newton method, and the hard negatives they are fed.

minimise  1/2 |w|^2 + C sum_i c_i max(0, 1 - y_i w.x_i)^2

The hinge is squared, as in scikit-learn's LinearSVC: then the objective is smooth, pieces of it are
quadratic, and Newton's steps end on the exact optimum after about ten (Keerthi and DeCoste, JMLR
2005). R-CNN's release takes the plain hinge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BIAS_INPUT = 10.0
"""The constant input whose weight is the bias: large, so that regularising it costs little."""


@dataclass(frozen=True)
class SVMSettings:
    """As R-CNN's release sets them (the paper names no numbers), for features of norm 20."""

    cost: float = 1e-3
    """C: of a negative that is not kept out of the margin."""
    positive_weight: float = 2.0
    """How many negatives a positive counts as."""


def fit(positives: Tensor, negatives: Tensor, settings: SVMSettings) -> tuple[Tensor, float]:
    """(P, D), (M, D) -> weight (D,) and bias of the plane with the positives above it."""
    rows = torch.cat([positives, negatives]).double()
    rows = torch.cat([rows, rows.new_full((len(rows), 1), BIAS_INPUT)], 1)
    sign = torch.cat([rows.new_ones(len(positives)), -rows.new_ones(len(negatives))])
    cost = torch.where(sign > 0, settings.cost * settings.positive_weight, settings.cost)
    plane = rows.new_zeros(rows.shape[1])
    for _ in range(100):
        inside = sign * (rows @ plane) < 1  # the margin: only these pull
        target = _least_squares(rows[inside], sign[inside], cost[inside])
        step = target - plane
        if step.norm() <= 1e-9 * max(1.0, float(plane.norm())):
            break
        plane = plane + _length(rows, sign, cost, plane, step) * step
    return plane[:-1].to(positives.dtype), float(plane[-1] * BIAS_INPUT)


def _least_squares(rows: Tensor, sign: Tensor, cost: Tensor) -> Tensor:
    """The optimum if just these samples pull: (I + 2 X'CX) w = 2 X'Cy, in the smaller space."""
    if len(rows) < rows.shape[1]:
        gram = rows @ rows.T
        gram.diagonal().add_(0.5 / cost)
        return rows.T @ torch.linalg.solve(gram, sign)
    weighted = 2 * cost[:, None] * rows
    normal = weighted.T @ rows
    normal.diagonal().add_(1.0)
    return torch.linalg.solve(normal, weighted.T @ sign)


def _length(rows: Tensor, sign: Tensor, cost: Tensor, plane: Tensor, step: Tensor) -> float:
    """How far along ``step`` the objective is least: where its slope, which only grows, is 0."""
    start, along = sign * (rows @ plane), sign * (rows @ step)
    constant, linear = float(plane @ step), float(step @ step)

    def slope(length: float) -> float:
        short = (1 - start - length * along).clamp(min=0)
        return constant + length * linear - 2 * float((cost * short * along).sum())

    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high


class HardNegatives:
    """One class's SVM while its negatives come in (R-CNN sec. 2.3, after Felzenszwalb et al.).

    There are far too many to keep; only those near the margin or past it matter, and the plane says
    which these are. It is fitted anew whenever enough of them have come.
    """

    def __init__(
        self,
        positives: Tensor,
        settings: SVMSettings,
        *,
        refit_after: int = 2000,
        hard_above: float = -1.0,
        evict_below: float = -1.2,
    ) -> None:
        """
        Args:
            positives: (P, D), all of them.
            refit_after: so many new hard negatives.
            hard_above: margin from which a negative is hard.
            evict_below: margin below which a kept one is let go.
        """
        self.positives, self.settings = positives, settings
        self.refit_after, self.hard_above, self.evict_below = refit_after, hard_above, evict_below
        width = positives.shape[1]
        self.kept = positives.new_zeros(0, width)
        self.keys: list[tuple[int, int]] = []
        self.weight, self.bias = positives.new_zeros(width), 0.0
        self.fresh = 0

    def offer(self, picture: int, rows: Tensor) -> int:
        """Show the negatives (M, D) of a picture; returns how many were hard and new."""
        hard = (rows @ self.weight + self.bias > self.hard_above).nonzero()[:, 0].tolist()
        known = {row for owner, row in self.keys if owner == picture}
        new = [row for row in hard if row not in known]
        self.kept = torch.cat([self.kept, rows[new]])
        self.keys += [(picture, row) for row in new]
        self.fresh += len(new)
        if self.fresh >= self.refit_after:
            self.refit()
        return len(new)

    def refit(self) -> None:
        """Fit the plane to what is kept, and let go of what has become easy."""
        self.weight, self.bias = fit(self.positives, self.kept, self.settings)
        stays = self.kept @ self.weight + self.bias >= self.evict_below
        self.keys = [key for key, stay in zip(self.keys, stays.tolist(), strict=True) if stay]
        self.kept, self.fresh = self.kept[stays], 0
