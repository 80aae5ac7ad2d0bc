"""Keep one box for each object: non-maximum suppression in three flavours.

All take `Detections` in any order and return them by falling score. Of two equal scores the
earlier box wins. The cost is bounded: only the `MOST_BOXES` best boxes are looked at, which is
exact as long as `limit` boxes survive among them (greedy suppression never looks back).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.frame import Boxes, Detections

MOST_BOXES = 2000  # 10 ms of work in the worst case

Indices = npt.NDArray[np.intp]


def class_aware(detections: Detections, iou: float, limit: int) -> Detections:
    """Drop a box that overlaps a better one *of its class* by more than `iou`."""
    best = _best(detections)
    class_ids: Any = best.class_ids.astype(np.int32)
    keep = cv2.dnn.NMSBoxesBatched(_opencv(best.boxes), _scores(best), class_ids, 0.0, iou)
    return best[_first(keep, limit)]


def class_agnostic(detections: Detections, iou: float, limit: int) -> Detections:
    """Drop a box that overlaps a better one of any class by more than `iou`."""
    best = _best(detections)
    keep = cv2.dnn.NMSBoxes(_opencv(best.boxes), _scores(best), 0.0, iou)
    return best[_first(keep, limit)]


def soft(detections: Detections, iou: float, limit: int) -> Detections:
    """Lower the score of overlapping boxes instead of dropping them.

    Soft-NMS (Bodla et al., ICCV 2017, arXiv:1704.04503), linear form (sec. 3): a box that
    overlaps a better one of its class by o > `iou` keeps 1 - o of its score. The caller drops
    what has fallen below its threshold.
    """
    best = _best(detections)
    scores = best.scores.astype(np.float64)
    chosen: list[int] = []
    waiting = np.ones(len(best), bool)
    while waiting.any() and len(chosen) < limit:
        winner = int(np.argmax(np.where(waiting, scores, -1.0)))
        chosen.append(winner)
        waiting[winner] = False
        overlap = overlaps(best.boxes[winner], best.boxes)
        rivals = waiting & (best.class_ids == best.class_ids[winner]) & (overlap > iou)
        scores[rivals] *= 1 - overlap[rivals]
    order = np.array(chosen, np.intp)
    return replace(best[order], scores=scores[order].astype(np.float32))


def overlaps(box: Boxes, boxes: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of one (4,) box with each of (N, 4); 0 for boxes without area."""
    one, many = box.astype(np.float64), boxes.astype(np.float64)
    sides = np.minimum(one[2:], many[:, 2:]) - np.maximum(one[:2], many[:, :2])
    intersection = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(many[:, 2:] - many[:, :2], axis=1)
    union = np.prod(one[2:] - one[:2]) + areas - intersection
    overlap: npt.NDArray[np.float64] = np.zeros_like(union)
    np.divide(intersection, union, out=overlap, where=union > 0)
    return overlap


def _best(detections: Detections) -> Detections:
    """The `MOST_BOXES` highest scores, falling; boxes without a finite area left out."""
    boxes = detections.boxes
    sound = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    sound &= detections.scores > 0
    order = np.argsort(-detections.scores, kind="stable")
    return detections[order[sound[order]][:MOST_BOXES]]


def _opencv(boxes: Boxes) -> Any:  # OpenCV's annotations know lists only
    """(N, 4) corners -> (N, 4) float64 corner, width and height."""
    corner_and_size = boxes.astype(np.float64)
    corner_and_size[:, 2:] -= corner_and_size[:, :2]
    return corner_and_size


def _scores(detections: Detections) -> Any:
    return detections.scores


def _first(keep: object, limit: int) -> Indices:
    """OpenCV returns an empty tuple, not an empty array, for no boxes."""
    return np.asarray(keep, np.intp).reshape(-1)[:limit]
