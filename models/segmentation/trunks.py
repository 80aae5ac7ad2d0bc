"""The trunks that segmentation networks are built on, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.backbones.features import FeatureMaps
from models.backbones.mobilenet import mobilenet_v2, mobilenet_v3_large
from models.backbones.resnet import resnet18, resnet50
from models.backbones.vgg import vgg16

TRUNKS: dict[str, Callable[[Sequence[int]], FeatureMaps]] = {
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
}


def trunk(backbone: str | FeatureMaps, strides: Sequence[int]) -> FeatureMaps:
    """A trunk with random weights by its name, or the one that is given.

    Raises ValueError: no trunk has this name, or this one has no map of such a stride.
    """
    if isinstance(backbone, FeatureMaps):
        if missing := set(strides) - set(backbone.strides):
            raise ValueError(f"the trunk must give maps of strides {sorted(missing)}, too")
        return backbone
    if backbone not in TRUNKS:
        raise ValueError(f"unknown trunk {backbone!r}; known: {', '.join(TRUNKS)}")
    return TRUNKS[backbone](strides)
