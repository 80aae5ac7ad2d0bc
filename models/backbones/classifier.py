"""A classifier with or without its top, and how it goes from one task to another.

    animals = classifier("mobilenet_v2", 10, weights="mobilenet_v2_imagenet.pth")
    animals.learns("shallow")     # only the top, on features that are as they were
    animals.learns("deep")        # then all of it, at a small rate
    features = classifier("mobilenet_v2", weights="DEFAULT", top=False)(frames)

What it has learned starts a trunk of :mod:`models.backbones.features`, and so any network of the
family: ``load_classifier(backbone, animals.network.state_dict())``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torchvision
from torch import Tensor, nn

from models.pixels import Normalise
from models.published import WeightsError, state_of

TOPS = {
    "alexnet": "classifier",
    "vgg16": "classifier",
    "resnet18": "fc",
    "resnet50": "fc",
    "mobilenet_v2": "classifier",
    "mobilenet_v3_large": "classifier",
}
"""torchvision's name -> that of its part which turns the features of a picture into classes."""

Depth = Literal["shallow", "deep"]


class Classifier(nn.Module):
    """torchvision's network, with its own names, behind the pixels of a frame.

    Attributes:
        network: torchvision's; without a top an identity stands in its place.
        top: name of its top.
    """

    def __init__(self, network: nn.Module, top: str) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.network = network
        self.top = top
        self.depth: Depth = "deep"

    def forward(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB of any size -> logits (N, classes); without a top (N, features).

        Trained on 224 pixels; AlexNet needs at least 63, the others 32.
        """
        logits: Tensor = self.network(self.normalise(frames))
        return logits

    def learns(self, depth: Depth) -> Classifier:
        """ "shallow": the top alone; "deep": everything. Returns the classifier itself."""
        self.depth = depth
        self.network.requires_grad_(depth == "deep")
        self.network.get_submodule(self.top).requires_grad_(True)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """As ever, but what does not learn keeps its statistics and drops nothing."""
        super().train(mode)
        if self.depth == "shallow":
            for name, part in self.network.named_children():
                part.train(mode and name == self.top)
        return self


def classifier(
    name: str, num_classes: int = 1000, weights: str | Path | None = None, top: bool = True
) -> Classifier:
    """A classifier in training mode.

    Args:
        name: a key of :data:`TOPS`.
        num_classes: of the top.
        weights: a state dict of torchvision's classifier of that name for any number of classes,
            or "DEFAULT", which fetches the published one; None: random. A last layer for another
            number of classes is left out, so that it starts anew.
        top: False: a picture's features come out.

    Raises:
        ValueError: there is no such classifier.
        WeightsError: the weights cannot be had, or are another network's.
    """
    if name not in TOPS:
        raise ValueError(f"unknown classifier {name!r}; known: {', '.join(TOPS)}")
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    if weights is not None:
        _load_fitting(network, TOPS[name], state_of(name, weights), f"{weights}")
    if not top:
        network.add_module(TOPS[name], nn.Identity())
    return Classifier(network, TOPS[name])


def _load_fitting(network: nn.Module, top: str, state: Mapping[str, Tensor], source: str) -> None:
    """Load all of the features, and of the top what has the right shape."""
    own = network.state_dict()
    fitting = {n: x for n, x in state.items() if n in own and x.shape == own[n].shape}
    missing = [name for name in own if name not in fitting and not name.startswith(f"{top}.")]
    if missing:
        raise WeightsError(
            f"{source} does not hold a {type(network).__name__} of this kind: {len(missing)} "
            f"weights are missing or have another shape, such as {missing[0]}"
        )
    network.load_state_dict(fitting, strict=False)
