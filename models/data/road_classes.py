"""Classes of road scenes, and what Cityscapes and CamVid call them: the one place that says it.

The finest classes that both sets and the drawn street tell apart:

- lane lines are ``road`` (both sets hold them so; CamVid's 11 classes have no other place);
- walls, fences and guard rails beside the road are ``fence``;
- traffic lights are ``sign``;
- whoever rides is a ``rider``, apart from the ``bicycle`` or ``motorcycle``; CamVid calls the
  three together bicyclist;
- ``car``, ``truck`` and ``bus`` are CamVid's car, and ``grass`` has no class among its 11.

Cityscapes' train (class 16) has none here: those pixels are unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.network import IGNORED


class RoadClass(NamedTuple):
    """A class under its names."""

    name: str
    train_ids: tuple[int, ...]
    """Cityscapes' numbers for training, 0 to 18."""
    camvid: str | None
    """Of CamVid's 11 classes; None: it has none."""


ROAD_CLASSES = (
    RoadClass("road", (0,), "road"),
    RoadClass("pavement", (1,), "pavement"),
    RoadClass("building", (2,), "building"),
    RoadClass("fence", (3, 4), "fence"),
    RoadClass("pole", (5,), "pole"),
    RoadClass("sign", (6, 7), "sign"),
    RoadClass("tree", (8,), "tree"),
    RoadClass("grass", (9,), None),
    RoadClass("sky", (10,), "sky"),
    RoadClass("person", (11,), "pedestrian"),
    RoadClass("rider", (12,), "bicyclist"),
    RoadClass("car", (13,), "car"),
    RoadClass("truck", (14,), "car"),
    RoadClass("bus", (15,), "car"),
    RoadClass("motorcycle", (17,), "bicyclist"),
    RoadClass("bicycle", (18,), "bicyclist"),
)
"""By the values of label pictures."""

ROAD_NAMES = tuple(one.name for one in ROAD_CLASSES)
CITYSCAPES_CLASSES = 19


def from_cityscapes() -> np.ndarray:
    """(19,) uint8 from Cityscapes' train ids to road classes, ``IGNORED`` where there is none."""
    table = np.full(CITYSCAPES_CLASSES, IGNORED, np.uint8)
    for number, one in enumerate(ROAD_CLASSES):
        table[list(one.train_ids)] = number
    return table
