"""One training run of a Faster R-CNN: losses, optimiser, averaged weights, checkpoints.

Both stages learn at once from one forward pass ("approximate joint training", Ren et al.,
arXiv:1506.01497, sec. 3.2).
"""

import copy
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.boxes import encode
from models.data import TrainingBatch
from models.detection.faster_rcnn import FasterRCNN
from models.detection.losses import roi_losses, rpn_losses, sample_rois
from models.detection.roi import PROPOSAL_WEIGHTS
from models.detection.rpn import ANCHOR_WEIGHTS

LOSSES = ("objectness", "proposal_box", "class", "box")


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the steps: a linear warm-up, then half a cosine down to ``floor``."""

    steps: int
    warm_up: int
    floor: float = 0.01

    def factor(self, step: int) -> float:
        """Share of the full learning rate at ``step``."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def freeze(model: FasterRCNN, trunk_parts: int) -> None:
    """Stop the first parts of the trunk and every batch norm from learning.

    Small batches give useless statistics, and edges and colours are the same in every data set
    (Fast R-CNN, sec. 4.5, freezes the first layers too). Frozen parts need no backward pass.
    """
    for index, part in enumerate(model.backbone.body.values()):
        part.requires_grad_(index >= trunk_parts)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.requires_grad_(False)


def train_mode(model: FasterRCNN) -> None:
    """Training mode, but batch norm keeps its statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@dataclass(frozen=True)
class Proposing:
    """How many proposals a training step makes and uses, per picture."""

    pre_nms: int = 400
    """Per pyramid level."""
    post_nms: int = 250
    anchors: int = 256
    rois: int = 96
    iou: float = 0.7


def losses(
    model: FasterRCNN, batch: TrainingBatch, proposing: Proposing, half: bool
) -> dict[str, Tensor]:
    """The four losses of Faster R-CNN, by the names in ``LOSSES``.

    Args:
        half: run convolutions and matrices in bfloat16; boxes and losses stay float32.
    """
    size_hw = (batch.frames.shape[1], batch.frames.shape[2])
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        images = model.normalise(batch.frames).contiguous(memory_format=torch.channels_last)
        features = model.backbone(images)
        maps = model.rpn.flatten(*model.rpn.head(features))
    logits, deltas = ([level.float() for level in kind] for kind in maps)
    anchors = model.anchors(features, size_hw)
    objectness, proposal_box = rpn_losses(
        torch.cat(anchors),
        torch.cat(logits, 1),
        torch.cat(deltas, 1),
        batch.truths,
        partial(encode, weights=ANCHOR_WEIGHTS),
        proposing.anchors,
    )
    proposals, valid = model.rpn.propose(
        logits, deltas, anchors, size_hw, proposing.pre_nms, proposing.post_nms, proposing.iou
    )
    drawn = sample_rois(
        [boxes[real] for boxes, real in zip(proposals, valid, strict=True)],
        batch.truths,
        partial(encode, weights=PROPOSAL_WEIGHTS),
        proposing.rois,
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        bins = model.roi_heads.pool(features, drawn.boxes)
        class_logits, box_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(bins))
    classification, box = roi_losses(class_logits.float(), box_deltas.float(), drawn)
    return dict(zip(LOSSES, (objectness, proposal_box, classification, box), strict=True))


class Average:
    """Exponential moving average of the weights, which scores better than the last weights.

    The horizon grows with the steps, so that the random start is soon forgotten.
    """

    def __init__(self, model: FasterRCNN, decay: float = 0.999) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: FasterRCNN) -> None:
        """Move the average towards ``model``."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own = dict(self.model.named_parameters())
        learning: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        averaged: list[Tensor] = [own[n] for n in learning]
        torch._foreach_lerp_(averaged, list(learning.values()), 1 - decay)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Mean of the gradients over all processes of a run, in one exchange; alone: nothing to do.

    The mean of equal shares of a batch is the gradient of the whole batch.
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
    """Model, average, optimiser and step: all that a checkpoint holds."""

    def __init__(
        self, model: FasterRCNN, rate: float, trunk_share: float, schedule: Schedule, half: bool
    ) -> None:
        learning = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        trunk = [p for n, p in learning if n.startswith("backbone.body")]
        heads = [p for n, p in learning if not n.startswith("backbone.body")]
        self.rates = [rate, rate * trunk_share]
        groups: list[dict[str, Any]] = [{"params": heads}, {"params": trunk}]
        self.optimiser = torch.optim.AdamW(groups, rate, weight_decay=0.02)
        self.model, self.average = model, Average(model)
        self.schedule, self.half, self.step = schedule, half, 0
        self.proposing = Proposing()

    def advance(self, batch: TrainingBatch) -> dict[str, float]:
        """One optimiser step; returns the losses."""
        # The step decides every random draw, so a resumed run repeats an unbroken one bit by bit.
        torch.manual_seed(self.step)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.schedule.factor(self.step)
        parts = losses(self.model, batch, self.proposing, self.half)
        self.optimiser.zero_grad(set_to_none=True)
        sum(parts.values(), torch.zeros(())).backward()
        learning = [p for g in self.optimiser.param_groups for p in g["params"]]
        average_gradients(learning)
        nn.utils.clip_grad_norm_(learning, 5.0)
        self.optimiser.step()
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
            "step": self.step,
        }
        fresh = file.with_suffix(".tmp")
        torch.save(state, fresh)
        fresh.replace(file)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            FileNotFoundError: there is none to resume from.
        """
        if not file.is_file():
            raise FileNotFoundError(f"nothing to resume: {file} does not exist")
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.updates, self.step = state["updates"], state["step"]
