"""The learning rate over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

Curve = Callable[[float], float]
"""Share of the training that is done, 0 to 1 -> share of the full rate that is left, 1 to 0."""


def half_cosine(done: float) -> float:
    """Slow, fast, slow again (SGDR, arXiv:1608.03983, eq. 5, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def power(done: float, exponent: float = 0.9) -> float:
    """ "poly", as DeepLab has it since its second version (arXiv:1606.00915, sec. 4.1.2)."""
    return float((1 - done) ** exponent)


def drops(done: float, at: tuple[float, ...] = (2 / 3,), by: float = 0.1) -> float:
    """Constant, and ``by`` times as much after each share of the training in ``at``.

    Two thirds at the full rate and one third at a tenth of it: Fast R-CNN (arXiv:1504.08083,
    sec. 2.3: 30k + 10k steps) and Faster R-CNN (arXiv:1506.01497, sec. 3.1.3: 60k + 20k) have 3/4;
    their public code has 5/7 and 2/3.
    """
    return float(by ** sum(done >= share for share in at))


CURVES: dict[str, Curve] = {
    "cosine": half_cosine,
    "poly": power,
    "steps": partial(drops, at=(0.75,)),
}
"""By the words of the command line."""


@dataclass(frozen=True)
class Schedule:
    """A linear warm-up, then a curve.

    One that ends at nothing is squeezed between 1 and ``floor``; one that ends above it, as drops
    do, is itself, but never below ``floor``.
    """

    steps: int
    warm_up: int
    floor: float = 0.01
    curve: Curve = half_cosine

    def factor(self, step: int) -> float:
        """Share of the full learning rate at ``step``."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        left = self.curve(min(done, 1.0))
        if self.curve(1.0) > 0:
            return max(left, self.floor)
        return self.floor + (1 - self.floor) * left
