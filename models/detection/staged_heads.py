"""The last layers of R-CNN and SPPnet, which are learned one after the other.

A softmax drives fine-tuning; then linear SVMs take its place, on the same hidden features, and
linear regressors correct the boxes, on what the convolutions left (R-CNN, arXiv:1311.2524, sec. 2.3
and appendices B, C). All three are plain linear layers here, so a graph holds any of them.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.boxes import Weights, at_least_float32

Scores = Literal["softmax", "svm"]

REGRESSION_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
"""Of the box coder: appendix C takes the deltas as they are."""

MARGIN_SCALE = 4.0
"""A margin m becomes the score 1 / (1 + exp(-4 m)): 0.98 where positives should begin, 0.5 on the
plane, 0.02 where negatives should end, which lies below the usual least score. Only order matters
to average precision, and the order stays."""


class StagedHeads(nn.Module):
    """Softmax, SVMs and regressors side by side; ``scores`` says whose word counts.

    The state dict holds that, too, so that a network which is saved and loaded scores as before.
    """

    def __init__(self, pooled: int, hidden: int, num_classes: int, scores: Scores) -> None:
        super().__init__()
        self.scores: Scores = scores
        self.pooled, self.num_classes = pooled, num_classes
        self.cls_score = nn.Linear(hidden, num_classes + 1)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.zeros_(self.cls_score.bias)
        # Fitted, not trained; until then no box moves.
        self.svm = _zeros(hidden, num_classes)
        self.bbox_pred = _zeros(pooled, 4 * num_classes)

    def forward(self, pooled: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(N, R, pooled), (N, R, hidden) -> scores (N, R, C) in [0, 1], deltas (N, R, C, 4)."""
        deltas = at_least_float32(self.bbox_pred(pooled))
        return self.probabilities(hidden), deltas.unflatten(-1, (self.num_classes, 4))

    def probabilities(self, hidden: Tensor) -> Tensor:
        """(N, R, hidden) -> (N, R, C) float32 in [0, 1], the background left out."""
        if self.scores == "svm":
            return torch.sigmoid(at_least_float32(self.svm(hidden)) * MARGIN_SCALE)
        return F.softmax(at_least_float32(self.cls_score(hidden)), -1)[..., 1:]

    def get_extra_state(self) -> Tensor:
        """() bool: SVMs score."""
        return torch.tensor(self.scores == "svm")

    def set_extra_state(self, state: Any) -> None:
        """The same, from a state dict."""
        self.scores = "svm" if state else "softmax"

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Older files do not say who scores. SVMs are zero until they are fitted.
        svm = state.get(f"{prefix}svm.weight", self.svm.weight)
        state.setdefault(f"{prefix}_extra_state", svm.any())
        super()._load_from_state_dict(state, prefix, *rest)


def _zeros(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer.requires_grad_(False)


class Staged(Protocol):
    """R-CNN or SPPnet, for those who fit its last layers."""

    heads: StagedHeads

    def pool5(self, frames: Tensor, regions: Tensor) -> Tensor:
        """(N, H, W, 3) uint8, (N, R, 4) in its pixels -> (N, R, D)."""
        ...

    def hidden(self, pooled: Tensor) -> Tensor:
        """(N, R, D) -> (N, R, width)."""
        ...

    def eval(self) -> Staged:
        """No dropout, batch norms by their running statistics."""
        ...
