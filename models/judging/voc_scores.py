"""Average precision as Pascal VOC counts it, beside COCO's in :mod:`models.evaluate`.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, sec. 4.2: one
overlap, 0.5; detections of a class in the order of their scores; each object is found once, any
further detection of it is wrong; an object that is marked difficult counts neither way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Area = Callable[[np.ndarray, np.ndarray], float]
"""Recall and precision, each (D,), after 1 to D detections -> average precision."""


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Until 2009: mean over the recalls 0, 0.1 to 1 of the best precision from there on (eq. 1)."""
    levels = [i / 10 for i in range(11)]
    return sum(float(precision[recall >= r].max(initial=0.0)) for r in levels) / 11


def all_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Since 2010: the area under the curve once it has been made to fall only."""
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best_from_here).sum())


METHODS: dict[str, Area] = {"11 points": eleven_points, "all points": all_points}


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU (G,) of a box (4,) ``x, y, width, height`` with boxes (G, 4)."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    union = box[2:].prod() + boxes[:, 2:].prod(1) - shared
    return np.divide(shared, union, out=np.zeros(len(boxes)), where=union > 0)


def verdicts(
    truth: Sequence[dict[str, Any]], detections: Sequence[dict[str, Any]], threshold: float
) -> np.ndarray:
    """Of detections of one class, best first: 1 right, 0 wrong, -1 not counted; (D,) int64.

    A detection is compared only with the object it overlaps most, as in VOC's own code.

    Args:
        truth: COCO annotations of the class; crowds are what VOC calls difficult.
        detections: COCO results of the class, sorted by score.
    """
    of_picture: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in truth:
        of_picture[one["image_id"]].append(one)
    boxes = {i: np.array([a["bbox"] for a in own], float) for i, own in of_picture.items()}
    used: set[tuple[int, int]] = set()
    out = np.zeros(len(detections), np.int64)
    for row, found in enumerate(detections):
        picture = found["image_id"]
        if picture not in boxes:
            continue
        iou = overlaps(np.array(found["bbox"], float), boxes[picture])
        best = int(iou.argmax())
        if iou[best] < threshold:
            continue
        if of_picture[picture][best].get("iscrowd"):
            out[row] = -1
        elif (picture, best) not in used:
            used.add((picture, best))
            out[row] = 1
    return out


def curve(verdict: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision, each (D,), after each detection that counts."""
    counted = verdict[verdict >= 0]
    right = counted.cumsum()
    return right / max(objects, 1), right / np.arange(1, len(counted) + 1)


def voc_scores(
    truth: dict[str, Any], detections: Sequence[dict[str, Any]], threshold: float = 0.5
) -> dict[str, Any]:
    """VOC's average precision by both methods.

    Args:
        truth: COCO annotations; detections: COCO results of the same categories.
        threshold: an overlap of this much is a find.

    Returns:
        ``11 points`` and ``all points``, the means over the classes that have objects, and
        ``classes``: name -> the same two and ``boxes``, -1 where there are none.
    """
    classes: dict[str, dict[str, float]] = {}
    for category in truth["categories"]:
        own = [a for a in truth["annotations"] if a["category_id"] == category["id"]]
        found = [d for d in detections if d["category_id"] == category["id"]]
        # A stable sort: of equal scores the first given comes first.
        found.sort(key=lambda d: -d["score"])
        objects = sum(not a.get("iscrowd") for a in own)
        recall, precision = curve(verdicts(own, found, threshold), objects)
        classes[category["name"]] = {
            **{n: m(recall, precision) if objects else -1.0 for n, m in METHODS.items()},
            "boxes": objects,
        }
    known = [c for c in classes.values() if c["boxes"]]
    means = {n: sum(c[n] for c in known) / max(len(known), 1) for n in METHODS}
    return {**means, "classes": classes}
