"""Second witnesses for labels of pixels: a detector for things, the picture itself for greenery.

A segmentation network that is far from home calls a pavement a person and a barrier a car; a
detector seldom errs at the same place. So a thing's pixels count only within a box of its kind
(and if it flows out of the boxes, not at all: the outline would be the box's), and what is not a
thing's does not count in the middle of a box. The same network sees trees and signs
in a clear sky; but those have texture.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.data.class_names import STREET_NAMES
from models.data.road_classes import ROAD_NAMES
from models.judging.found import Found
from models.network import IGNORED

KINDS = (
    ({"person", "rider"}, {"person"}),
    ({"car", "truck", "bus"}, {"car", "truck", "bus"}),
    ({"bicycle", "motorcycle"}, {"bicycle", "motorcycle"}),
)
"""Classes of pixels, and of the boxes that bear them out."""

SLACK = 0.08
"""Share of a box's side by which a thing may reach beyond it: boxes are not exact."""
MIDDLE = 0.7
"""Size over the box of the ellipse that is the thing's own, about."""
MOSTLY = 0.7
"""Share of a patch of pixels that must lie in boxes for it to count."""

TEXTURED = ("fence", "pole", "sign", "tree", "grass")
BARE = 2.5
"""Deviation of the brightness (of 255) around a pixel below which there is no texture."""


def textured(labels: np.ndarray, image: np.ndarray, side_pixels: int = 9) -> np.ndarray:
    """(H, W) uint8 road classes, ``IGNORED`` where what has texture was seen in a bare place.

    Args:
        labels: (H, W) uint8; not changed.
        image: (H, W, 3) uint8 RGB.
        side_pixels: of the square around a pixel that is looked at.
    """
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean = cv2.blur(luma, (side_pixels, side_pixels))
    spread = cv2.blur(luma * luma, (side_pixels, side_pixels)) - mean * mean
    own = np.isin(labels, [ROAD_NAMES.index(name) for name in TEXTURED])
    return np.where(own & (spread < BARE * BARE), IGNORED, labels).astype(np.uint8)


def witnessed(labels: np.ndarray, found: Found, least: float = 0.25) -> np.ndarray:
    """(H, W) uint8 road classes, ``IGNORED`` where the boxes contradict them.

    Args:
        labels: (H, W) uint8; not changed.
        found: boxes of the six street classes in its pixels.
        least: score from which on a box bears out its pixels; to contradict, it takes twice that.
    """
    out = labels.copy()
    for pixel_names, box_names in KINDS:
        own = np.isin(labels, [ROAD_NAMES.index(name) for name in sorted(pixel_names)])
        of_kind = np.isin(found.class_ids, [STREET_NAMES.index(name) for name in sorted(box_names)])
        borne_out, middle = np.zeros(labels.shape, np.uint8), np.zeros(labels.shape, np.uint8)
        for box, score in zip(found.boxes[of_kind], found.scores[of_kind], strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            if score >= least:
                aside, up = 2 + SLACK * (x2 - x1), 2 + SLACK * (y2 - y1)
                low = (round(x1 - aside), round(y1 - up))
                cv2.rectangle(borne_out, low, (round(x2 + aside), round(y2 + up)), (1,), -1)
            if score >= 2 * least:
                centre = (round((x1 + x2) / 2), round((y1 + y2) / 2))
                axes = (round(MIDDLE * (x2 - x1) / 2), round(MIDDLE * (y2 - y1) / 2))
                cv2.ellipse(middle, centre, axes, 0, 0, 360, (1,), -1)
        out[own & ~outlined(own, borne_out == 1)] = IGNORED
        things = labels >= ROAD_NAMES.index("person")  # a rider's middle may show the bicycle
        out[(middle == 1) & ~things] = IGNORED
    return out


def outlined(own: np.ndarray, borne_out: np.ndarray) -> np.ndarray:
    """(H, W) bool pixels that are borne out, in patches most of which are.

    Elsewhere the outline would be that of the box, not that of the thing.
    """
    count, patches = cv2.connectedComponents(own.astype(np.uint8))
    sizes = np.bincount(patches.ravel(), minlength=count)
    inside = np.bincount(patches[borne_out], minlength=count)
    return np.asarray(borne_out & (inside >= MOSTLY * sizes)[patches])
