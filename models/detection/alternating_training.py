"""The four steps by which Faster R-CNN was trained first (Ren et al., arXiv:1506.01497, sec. 3.2).

1. The proposal network learns, trunk included.
2. A detector learns from its proposals, with a trunk of its own: nothing is shared yet.
3. The proposal network starts again on the detector's trunk, which stays as it is.
4. The detector's own layers learn from the new proposals; the trunk still stays.

After that both stages stand on one trunk. One network holds all of it, whose parts go back to the
weights of the start where a step has others; so there are never two trunks in memory.

Deviations:
- In step 3 the proposal head starts anew: it learned on another trunk.
- Each step hands over its averaged weights, where the recipe averages.
- Proposals are made once a step from each whole picture at one size, and move with it through
  augmentation (:mod:`models.data.augment`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.boxes import SizeHW
from models.data.augment import Labelled, letterbox
from models.data.batches import TrainingBatches
from models.detection.faster_rcnn import FasterRCNN
from models.detection.joint_training import FirstStage, Learning, features_of
from models.published import load_state, state_in

FINISHED = "finished.pt"
"""In the folder of a step: the weights that it handed over."""


@dataclass(frozen=True)
class Phase:
    """One of the steps."""

    name: str
    learning: Learning
    """Whose losses count."""
    learns: tuple[str, ...]
    """Parts whose weights change."""
    anew: tuple[str, ...] = ()
    """Parts that go back to the weights of the start before."""


PHASES = (
    Phase("1_proposals", "proposals", learns=("backbone.", "rpn.")),
    Phase("2_detections", "detections", learns=("backbone.", "roi_heads."), anew=("backbone.",)),
    Phase("3_proposals", "proposals", learns=("rpn.",), anew=("rpn.",)),
    Phase("4_detections", "detections", learns=("roi_heads.",)),
)


class Fit(Protocol):
    """How a step is trained: optimiser, schedule, files."""

    def __call__(self, data: TrainingBatches, out: Path, resume: bool, judged: bool) -> nn.Module:
        """Train the network, as it is, on ``data``; returns the one to go on with.

        resume: go on from ``out / "last.pt"``; judged: the network is whole, validation has a
        meaning.
        """
        ...


def alternate(
    network: FasterRCNN,
    data: TrainingBatches,
    size_hw: SizeHW,
    folder: Path,
    fit: Fit,
    *,
    resume: bool = False,
    phases: Sequence[Phase] = PHASES,
) -> None:
    """Train ``network``, which starts with the weights and the frozen parts it has.

    Args:
        data: its pictures; proposals in it are replaced.
        size_hw: at which proposals are made; multiples of 32.
        folder: receives one folder for each step.
        fit: trains ``network`` in place for one step.
        resume: go on behind the last finished step, or within the one that was interrupted.

    Raises:
        WeightsError: what is to be resumed is another network's.
    """
    start = copy.deepcopy(network.state_dict())
    free = [name for name, p in network.named_parameters() if p.requires_grad]
    for phase in phases:
        out = folder / phase.name
        if resume and (out / FINISHED).is_file():
            finished = state_in(out / FINISHED)
            load_state(network, finished, f"{out / FINISHED} is not of this network")
            continue
        own = data
        if phase.learning == "detections":  # before the trunk that proposes is given up
            own = data.with_proposals(propose(network, data, size_hw))
        begin(network, phase, start, free)
        interrupted = resume and (out / "last.pt").is_file()
        fitted = fit(own, out, interrupted, phase is phases[-1])
        network.load_state_dict(fitted.state_dict())
        torch.save(network.state_dict(), out / FINISHED)
    network.learning = "jointly"
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in free)


def begin(network: FasterRCNN, phase: Phase, start: dict[str, Tensor], free: Sequence[str]) -> None:
    """Weights, losses and what learns, as a step has them.

    free: names of the parameters that may learn at all.
    """
    anew = {name: value for name, value in start.items() if name.startswith(phase.anew)}
    network.load_state_dict(anew, strict=False)
    network.learning = phase.learning
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in free and name.startswith(phase.learns))


@torch.inference_mode()
def propose(network: FasterRCNN, data: TrainingBatches, size_hw: SizeHW) -> list[np.ndarray]:
    """Of every picture (R, 4) float32 proposals in its pixels, best first."""
    network.eval()
    device = next(network.parameters()).device
    found = []
    for entry in data.entries:
        picture = entry.read()
        fitted = letterbox(picture, size_hw)
        frames = torch.from_numpy(fitted.image)[None].to(device)
        first = FirstStage.of(network, features_of(network, frames), size_hw)
        (boxes,) = first.proposals(network, network.proposing)
        found.append(in_picture(boxes.cpu().numpy(), picture, size_hw))
    return found


def in_picture(boxes: np.ndarray, picture: Labelled, size_hw: SizeHW) -> np.ndarray:
    """Boxes (R, 4) in pixels of a letterbox -> pixels of the picture, cut at its edges."""
    height, width = picture.image.shape[:2]
    scale = min(size_hw[0] / height, size_hw[1] / width)
    size_wh = np.array([width, height])
    shift = np.round((np.array(size_hw[::-1]) - scale * size_wh) / 2)
    scaled_xy = np.round(scale * size_wh) / size_wh
    limit = np.tile(size_wh, 2)
    moved = np.clip((boxes - np.tile(shift, 2)) / np.tile(scaled_xy, 2), 0, limit)
    wide = (moved[:, 2:] - moved[:, :2] >= 1).all(1)
    return moved[wide].astype(np.float32)
