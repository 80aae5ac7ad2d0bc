"""One training run of any network of the family: optimiser, averaged weights, checkpoints.

What there is to learn is the network's own business (:meth:`models.network.Network.losses`); the
sum of its losses is minimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.data.batches import MaskBatch, TrainingBatch
from models.network import Network, Task
from models.published import UNREADABLE, WeightsError
from models.training.averaging import Average
from models.training.schedules import Schedule

Norms = Literal["frozen", "heads", "learning"]
"""Which batch norms learn: none, those outside the trunk, or all."""

Precision = Literal["f32", "bf16", "f16"]
HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """The optimiser, as a paper or experience has it."""

    kind: Literal["adamw", "sgd"] = "adamw"
    rate: float = 4e-4
    """Full learning rate of everything outside the trunk."""
    trunk_share: float = 0.3
    """The trunk's rate as a share of it: it starts from ImageNet and has less to learn."""
    weight_decay: float = 0.02
    momentum: float = 0.9
    """Of SGD."""
    largest_gradient: float = 5.0
    """Longer gradients are shortened to this norm."""
    average_decay: float = 0.999
    """See :class:`models.training.averaging.Average`; 0 for none."""


def trunk_of(network: nn.Module) -> nn.ModuleDict | None:
    """The children of a network's trunk: its attribute ``backbone.body``; None if it has none."""
    body = getattr(getattr(network, "backbone", None), "body", None)
    return body if isinstance(body, nn.ModuleDict) else None


def freeze(network: nn.Module, trunk_parts: int, norms: Norms = "frozen") -> None:
    """Stop the first parts of the trunk, and the batch norms that ``norms`` says, from learning.

    Small batches give useless statistics, and edges and colours are the same in every data set.
    Frozen parts need no backward pass. :func:`train_mode` keeps the statistics of what is frozen
    here.

    Deviation: a part is a child of the trunk, be it a block, a convolution, an activation or a
    pooling, so the usual four hold another share of each trunk: 2 of AlexNet's 5 convolutions, 2 of
    VGG-16's 13, ResNet's first one alone, 4 of OverFeat's 5 or 6, and the first 9 of either
    MobileNet (4 blocks). Fast R-CNN (arXiv:1504.08083, sec. 4.5) leaves VGG-16's first 4 as they
    are, which 10 parts do.
    """
    body = trunk_of(network) or nn.ModuleDict()
    for index, child in enumerate(body.values()):
        child.requires_grad_(index >= trunk_parts)
    if norms == "learning":
        return
    within = network if norms == "frozen" else body
    for module in within.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(False)


def usual_norms(task: Task, *, begun: bool) -> Norms:
    """Which batch norms had best learn; begun: the network starts from weights, not at random."""
    if not begun:
        return "learning"
    return "heads" if task == "semantic" else "frozen"


def train_mode(network: nn.Module) -> None:
    """Training mode, but a batch norm whose weights are frozen keeps its statistics, too."""
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def parameter_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """What learns: the heads, and the trunk (names under ``backbone.body``)."""
    learning = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    trunk = [p for n, p in learning if n.startswith("backbone.body")]
    heads = [p for n, p in learning if not n.startswith("backbone.body")]
    return [heads, trunk]


def optimiser_of(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser with a group for the heads and one for the trunk."""
    groups: list[dict[str, Any]] = [{"params": part} for part in parameter_groups(network)]
    if recipe.kind == "sgd":
        return torch.optim.SGD(
            groups, recipe.rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(groups, recipe.rate, weight_decay=recipe.weight_decay)


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Mean of the gradients over all processes of a run, in one exchange; alone: nothing to do.

    The mean of equal shares of a batch is the gradient of the whole batch where the loss is a mean
    over pictures; of one that is divided by what its own share holds (labelled pixels, matched
    boxes) each share has the same weight instead.
    """
    if not dist.is_initialized():
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([g.numel() for g in gradients])
    for p, part in zip(parameters, parts, strict=True):
        p.grad = part.view_as(p)


class Training:
    """Network, average, optimiser and step: all that a checkpoint holds.

    Args:
        network: a module that keeps the promise of :class:`models.network.Network`, already
            frozen where it shall be, on the device on which it learns.
        precision: of convolutions and matrices; weights, coordinates and losses stay float32.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        schedule: Schedule,
        precision: Precision = "f32",
    ) -> None:
        self.model = network
        self.average = Average(network, recipe.average_decay)
        self.optimiser = optimiser_of(network, recipe)
        self.rates = [recipe.rate, recipe.rate * recipe.trunk_share]
        self.recipe, self.schedule, self.precision, self.step = recipe, schedule, precision, 0
        self.device = next(network.parameters()).device
        # Gradients of float16 vanish unless the loss is enlarged first.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "f16")

    def advance(self, batch: TrainingBatch | MaskBatch) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        # The step decides every random draw, so a resumed run repeats an unbroken one bit by bit.
        torch.manual_seed(self.step)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule.factor(self.step)
        half = HALVES.get(self.precision)
        with torch.autocast(self.device.type, half, enabled=half is not None):
            parts = cast(Network, self.model).losses(batch.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        total = sum(parts.values(), torch.zeros((), device=self.device))
        self.scaler.scale(total).backward()
        # Without what is frozen: zeros for gradients would let its weights decay.
        groups = self.optimiser.param_groups
        learning = [p for g in groups for p in g["params"] if p.requires_grad]
        average_gradients(learning)
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(learning, self.recipe.largest_gradient)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.model)
        self.step += 1
        return {name: float(part.detach()) for name, part in parts.items()}

    def save(self, file: Path) -> None:
        """Write everything needed to go on; the old file stays whole until the new one is."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
        }
        fresh = file.with_suffix(".tmp")
        torch.save(state, fresh)
        fresh.replace(file)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            FileNotFoundError: there is none to resume from.
            WeightsError: it is no checkpoint, or one of another network or recipe.
        """
        if not file.is_file():
            raise FileNotFoundError(f"nothing to resume: {file} does not exist")
        try:
            state = torch.load(file, weights_only=True, map_location=self.device)
            self.model.load_state_dict(state["model"])
            self.average.model.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            if state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
            self.average.updates, self.step = state["updates"], state["step"]
        except UNREADABLE as error:  # torch names every weight that does not fit
            raise WeightsError(
                f"cannot resume from {file}: it is no checkpoint of this network, trained with "
                "this optimiser and these parts frozen; give the settings that it began with, "
                "or another --out"
            ) from error
