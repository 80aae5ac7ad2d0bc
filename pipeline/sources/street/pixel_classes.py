"""Classes of the drawn street's pixels: the finest that both Cityscapes and CamVid know.

How they map onto those two stands in ``models/data/road_classes.py``, which has the same names in
the same order. Lane lines are road, as in both sets. Posts of signs are poles, their plates signs;
traffic lights are signs, bollards and bins poles; far hills and woods are trees; whoever rides is a
rider, apart from what is ridden.
"""

from __future__ import annotations

PIXEL_CLASSES = (
    *("road", "pavement", "building", "fence", "pole", "sign", "tree", "grass", "sky"),
    *("person", "rider", "car", "truck", "bus", "motorcycle", "bicycle"),
)
"""By the values of a picture of classes."""

ROAD, PAVEMENT, BUILDING, FENCE, POLE, SIGN, TREE, GRASS, SKY = range(9)
RIDER = PIXEL_CLASSES.index("rider")

UNKNOWN = 255
"""Of pixels without a class: the painted frame counter covers them."""
