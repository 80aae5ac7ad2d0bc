"""Every trunk by its name: the one place where a word becomes a trunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.backbones.alexnet import alexnet
from models.backbones.features import FeatureMaps
from models.backbones.mobilenet import mobilenet_v2, mobilenet_v3_large
from models.backbones.resnet import resnet18, resnet50
from models.backbones.vgg import vgg16

BACKBONES: dict[str, Callable[[Sequence[int]], FeatureMaps]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
}
"""torchvision's name -> strides -> trunk with random weights."""


def backbone(name: str | FeatureMaps, strides: Sequence[int]) -> FeatureMaps:
    """A trunk with random weights that gives maps of these strides, or the one that is given.

    Raises:
        ValueError: nobody has that name, or the trunk no map of such a stride.
    """
    if isinstance(name, FeatureMaps):
        if missing := set(strides) - set(name.strides):
            raise ValueError(f"the trunk must give maps of strides {sorted(missing)}, too")
        return name
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; known: {', '.join(BACKBONES)}")
    return BACKBONES[name](strides)
