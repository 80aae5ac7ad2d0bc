"""Sprites laid over a picture, and the truth about what of them can be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Image
from pipeline.sources.street.stage import Placed

# What counts as findable follows KITTI's "moderate" rule, loosened: there 25 rows of
# 375 and "partly occluded". What falls short is ignored: it counts neither way.
LEAST_VISIBLE = 0.4
"""Share of an object's pixels in the picture that must not be covered for it to be truth."""
LEAST_HIGH = 0.04
"""Height of an object over the height of the picture from which it is truth."""
_LEAST_INSIDE = 0.15
"""Share of an object's box that must lie inside the picture for it to be truth."""


@dataclass(slots=True)
class Seen:
    """An object in the frame, as far as it was pasted."""

    class_id: int
    own_pixels: int = 0
    """Of its own mask inside the picture, whoever stands before it."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Tight around that mask, xyxy."""
    inside: float = 0.0
    """Share of its whole box that lies inside the picture, about."""


def paste(
    image: Image,
    owners: Image,
    drawn: Placed,
    names: dict[int, int],
    seen: dict[int, Seen],
    labelling: tuple[Image, Image] | None = None,
) -> None:
    """Lay a sprite over the picture and over who owns each of its pixels; measure its objects.

    Args:
        image: (H, W, 3), changed in place.
        owners: (H, W) number of the object seen at each pixel, 0 = none; changed in place.
        drawn: The sprite and its place.
        names: Number of each object label in the sprite; empty for scenery.
        seen: The objects under their numbers; measured in place.
        labelling: Classes of the picture's pixels (H, W), changed in place, and of the sprite's
            labels (256,); None where they are not asked for.
    """
    sprite, left, top, scale = drawn
    full_h, full_w = sprite.labels.shape
    x, y = round(left), round(top)
    width, height = max(1, round(full_w * scale)), max(1, round(full_h * scale))
    # Resize no more of a large sprite than lies inside the picture.
    u0, v0 = max(0, int(-x / scale) - 1), max(0, int(-y / scale) - 1)
    u1 = min(full_w, math.ceil((image.shape[1] - x) / scale) + 1)
    v1 = min(full_h, math.ceil((image.shape[0] - y) / scale) + 1)
    if u0 >= u1 or v0 >= v1:
        return
    part = (slice(v0, v1), slice(u0, u1))
    colour, keep, labels = sprite.colour[part], sprite.keep[part], sprite.labels[part]
    if (height, width) != (full_h, full_w):
        x, y = round(left + u0 * scale), round(top + v0 * scale)
        width, height = max(1, round((u1 - u0) * scale)), max(1, round((v1 - v0) * scale))
        colour = _resized(colour, (width, height), cv2.INTER_LINEAR)
        keep = _resized(keep, (width, height), cv2.INTER_LINEAR)
        if names or labelling is not None:
            labels = _resized(labels, (width, height), cv2.INTER_NEAREST)
    else:
        x, y, width, height = x + u0, y + v0, u1 - u0, v1 - v0
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(image.shape[1], x + width), min(image.shape[0], y + height)
    if x0 >= x1 or y0 >= y1:
        return
    cut = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    region, owned, keep = image[y0:y1, x0:x1], owners[y0:y1, x0:x1], keep[cut]
    cv2.multiply(region, cv2.cvtColor(keep, cv2.COLOR_GRAY2BGR), region, scale=1 / 255)
    cv2.add(region, colour[cut], region)
    if labelling is not None:
        classes, kinds = labelling
        cv2.copyTo(kinds[labels[cut]], labels[cut], classes[y0:y1, x0:x1])
    if not names:
        opaque = cv2.threshold(keep, 127, 255, cv2.THRESH_BINARY_INV)[1]
        _write(owned, 0, np.asarray(opaque, np.uint8))
        return
    for label, owner in names.items():
        # A sprite of one object has labels 0 and 1 only.
        mask = labels[cut] if len(names) == 1 else (labels[cut] == label).astype(np.uint8)
        bx, by, wide, high = cv2.boundingRect(mask)
        if not wide:
            continue
        _, _, own_w, own_h = sprite.extents[label]
        inside = wide * high / max(1.0, own_w * own_h * scale * scale)
        box = (x0 + bx, y0 + by, x0 + bx + wide, y0 + by + high)
        seen[owner] = Seen(seen[owner].class_id, cv2.countNonZero(mask), box, inside)
        _write(owned, owner, mask)


def _write(owned: Image, owner: int, mask: Image) -> None:
    """Put the owner's number where the mask is not 0; several times quicker than in NumPy."""
    cv2.copyTo(np.full_like(mask, owner), mask, owned)


def truth(
    seen: dict[int, Seen], owners: Image
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Sort the pasted objects into truth and ignored by what of them can be seen."""
    least = max(5.0, 0.017 * owners.shape[0])
    high_enough = max(least, LEAST_HIGH * owners.shape[0])
    counts = cv2.calcHist([owners], [0], None, [256], [0, 256]).ravel()
    boxes, class_ids, ignored = [], [], []
    for owner, found in seen.items():
        if not found.own_pixels:
            continue
        x0, y0, x1, y1 = found.box
        box = found.box
        visible = int(counts[owner])
        if visible and visible < found.own_pixels:
            mask = (owners[y0:y1, x0:x1] == owner).astype(np.uint8)
            bx, by, wide, high = cv2.boundingRect(mask)
            box = (x0 + bx, y0 + by, x0 + bx + wide, y0 + by + high)
        clear = visible / found.own_pixels >= LEAST_VISIBLE
        large = box[2] - box[0] >= least and box[3] - box[1] >= high_enough
        if visible < 0.02 * found.own_pixels:
            continue  # behind something: there is nothing to find
        if clear and large and found.inside >= _LEAST_INSIDE:
            boxes.append(box)
            class_ids.append(found.class_id)
        else:
            ignored.append(found.box)
    return (
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(class_ids, np.int64),
        np.array(ignored, np.float32).reshape(-1, 4),
    )


def _resized(image: Image, size_wh: tuple[int, int], interpolation: int) -> Image:
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), np.uint8)
