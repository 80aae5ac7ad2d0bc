"""The classifiers that R-CNN, SPPnet and Fast R-CNN grow out of, taken apart: convolutions below,
hidden layers above, and what lies between them for each paper to replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.alexnet import alexnet
from models.backbones.features import FeatureMaps
from models.backbones.mobilenet import mobilenet_v2
from models.backbones.vgg import vgg16


@dataclass(frozen=True)
class Trunk:
    """A classifier as the three papers see it."""

    build: Callable[[Sequence[int]], FeatureMaps]
    grid: int
    """Cells along a side of what its hidden layers take (pool5)."""
    hidden: int
    """Width of its two hidden layers."""
    crop: int
    """Side in pixels of the crops R-CNN feeds to it."""
    crop_stride: int
    """Of the map that holds grid x grid cells for such a crop."""
    crops_at_once: int
    """How many go through it together, within about a gigabyte of activations."""
    hidden_names: tuple[str, str] | None
    """Of the hidden layers in torchvision's state dict."""


TRUNKS = {
    "alexnet": Trunk(alexnet, 6, 4096, 227, 32, 250, ("classifier.1", "classifier.4")),
    "vgg16": Trunk(vgg16, 7, 4096, 224, 32, 40, ("classifier.0", "classifier.3")),
    # Not of the papers' time. It has no hidden layers, so they are new and narrow; and crops are
    # half as large, so that its map of stride 16 is what Fast R-CNN pools from the whole picture.
    "mobilenet_v2": Trunk(mobilenet_v2, 7, 512, 112, 16, 250, None),
}
"""By the word that the builders take."""


def trunk_of(name: str) -> Trunk:
    """Raises ValueError for a name that is not in ``TRUNKS``."""
    if name not in TRUNKS:
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(TRUNKS)}")
    return TRUNKS[name]


class HiddenLayers(nn.Module):
    """fc6 and fc7, each with dropout, as in AlexNet and VGG."""

    def __init__(
        self, inputs: int, width: int, names: tuple[str, str] | None = None, dropout: float = 0.5
    ) -> None:
        """names: of the two in the state dict of torchvision's classifier, if it has them."""
        super().__init__()
        self.width, self.names = width, names
        self.fc6: nn.Module = nn.Linear(inputs, width)
        self.fc7: nn.Module = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """(..., inputs) -> (..., width)."""
        hidden = self.dropout(F.relu(self.fc6(pooled)))
        return self.dropout(F.relu(self.fc7(hidden)))

    @torch.no_grad()
    def load_classifier(self, state: Mapping[str, Tensor], *, same_pool5: bool = True) -> None:
        """Start from a classifier's state dict, where it has such layers.

        same_pool5: the inputs begin with what the classifier's fc6 takes; what they have beyond
        that starts with no weight. Otherwise fc6 stays random.
        """
        if self.names is None:
            return
        weight, bias = (state[f"{self.names[0]}.{kind}"] for kind in ("weight", "bias"))
        if same_pool5:
            wider = self.fc6.get_parameter("weight").zero_()
            wider[:, : weight.shape[1]] = weight
            self.fc6.get_parameter("bias").copy_(bias)
        self.fc7.load_state_dict(
            {kind: state[f"{self.names[1]}.{kind}"] for kind in ("weight", "bias")}
        )


def truncated(layer: nn.Linear, rank: int) -> nn.Sequential:
    """A layer as two thinner ones by its largest singular values (Fast R-CNN, sec. 3.1).

    W (u x v) becomes U (u x t) after S V' (t x v): t (u + v) numbers instead of u v.

    Raises:
        ValueError: the rank is not between 1 and the layer's own.
    """
    if not 1 <= rank <= min(layer.weight.shape):
        raise ValueError(f"rank must lie in 1..{min(layer.weight.shape)}, got {rank}")
    left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_(values[:rank, None] * right[:rank])
        second.weight.copy_(left[:, :rank])
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)
