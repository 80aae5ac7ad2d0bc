"""The running average of a network's weights, which scores better than the last weights."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Average:
    """Exponential moving average of the weights and of the statistics that belong to them.

    The horizon grows with the steps, so that the random start is soon forgotten. With a decay of
    0 it is a copy of the latest weights.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own = dict(self.model.named_parameters()) | statistics(self.model)
        latest: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        latest |= statistics(model)
        averaged: list[Tensor] = [own[n] for n in latest]
        torch._foreach_lerp_(averaged, list(latest.values()), 1 - decay)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running mean and variance of every batch norm, by name.

    Weights and the statistics of what they produce belong together: averaged weights beside the
    first statistics would be another network.
    """
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            found[f"{name}.running_mean"] = cast(Tensor, module.running_mean)
            found[f"{name}.running_var"] = cast(Tensor, module.running_var)
    return found
