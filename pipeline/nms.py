"""Keep one box for each object: non-maximum suppression in three flavours, and merging.

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

MOST_BOXES = 2000  # 30 ms of work in the worst case; soft 25 for six classes, 90 for one
MOST_MERGED = 500  # 200 ms of work in the worst case
_ROWS = 32  # that soft suppression computes at once

Indices = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.float64]


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
    chosen = [np.zeros(0, np.intp)]
    for number in np.unique(best.class_ids):
        own = np.flatnonzero(best.class_ids == number)
        turns, scores[own] = _softened(best.boxes[own], scores[own], iou, limit)
        chosen.append(own[turns])
    every = np.sort(np.concatenate(chosen))
    order = every[np.argsort(-scores[every], kind="stable")[:limit]]
    return replace(best[order], scores=scores[order].astype(np.float32))


def _softened(boxes: Boxes, scores: Numbers, iou: float, limit: int) -> tuple[Indices, Numbers]:
    """Boxes of one class -> the places of the first `limit` winners, and (N,) scores, theirs final.

    What a winner leaves of the others' scores is computed for some neighbours at once, because
    calls on few numbers cost more than the numbers do.
    """
    corners, final = boxes.astype(np.float64), scores.copy()
    left: dict[int, Numbers] = {}
    waiting = np.ones(len(boxes), bool)
    winners = np.zeros(min(limit, len(boxes)), np.intp)
    for turn in range(len(winners)):
        winners[turn] = winner = int(np.where(waiting, scores, -1.0).argmax())
        waiting[winner], final[winner] = False, scores[winner]
        block, row = divmod(winner, _ROWS)
        if block not in left:
            overlap = overlaps(corners[block * _ROWS :][:_ROWS, None], corners)
            left[block] = np.where(overlap > iou, 1 - overlap, 1.0)
        scores = scores * left[block][row]
    return winners, final


def greedy_merge(detections: Detections, iou: float, limit: int) -> Detections:
    """Merge overlapping boxes of a class, the best matching pair first, until none match well.

    OverFeat (Sermanet et al., ICLR 2014, arXiv:1312.6229, sec. 4.3). Two boxes about the same
    centre are merged when they overlap by `iou`; the farther apart their centres are, the more
    they must. A merged box is the mean of those that went in, weighted by their scores; its score
    is the best of theirs, raised towards 1 by what the others add to it, and its mask is that
    one's. Every merger changes what is left, so that fewer boxes can be looked at: the best
    `MOST_MERGED`.
    """
    best = _best(detections)[:MOST_MERGED]
    if not len(best):
        return best
    places = [np.flatnonzero(best.class_ids == number) for number in np.unique(best.class_ids)]
    parts = [_merged(best.boxes[own], best.scores[own], 1 - iou) for own in places]
    boxes, total = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    leader = np.concatenate([own[part[1]] for own, part in zip(places, parts, strict=True)])
    highest = best.scores[leader].astype(np.float64)
    scores = 1 - (1 - highest) / (1 + total - highest)
    order = np.lexsort((-total, -scores))[:limit]
    merged, scores = boxes[order].astype(np.float32), scores[order].astype(np.float32)
    return replace(best[leader[order]], boxes=merged, scores=scores)


def _merged(
    given: Boxes, scores: npt.NDArray[np.float32], most: float
) -> tuple[Numbers, Indices, Numbers]:
    """Boxes of one class, best first -> for each that is left, the box, the place of the best one
    that went in, and the sum of the scores.

    Each row of `match` knows its least value, so that a merger costs one row and not all pairs.
    """
    boxes, total = given.astype(np.float64), scores.astype(np.float64)
    left, rows = np.ones(len(boxes), bool), np.arange(len(boxes))
    match = np.stack([_mismatch(box, boxes) for box in boxes])
    match[np.tril_indices(len(boxes))] = np.inf  # each pair once
    nearest = match.argmin(axis=1)
    least = match[rows, nearest]
    while least.min() <= most:
        first = int(least.argmin())
        second = int(nearest[first])
        share = total[second] / (total[first] + total[second])
        boxes[first] += share * (boxes[second] - boxes[first])
        total[first] += total[second]
        left[second], least[second] = False, np.inf
        match[second], match[:, second] = np.inf, np.inf
        again = np.where(left, _mismatch(boxes[first], boxes), np.inf)
        match[first, first + 1 :], match[:first, first] = again[first + 1 :], again[:first]
        closer = (again < least) | ((again == least) & (nearest > first))
        closer[first:] = False
        nearest[closer], least[closer] = first, again[closer]
        stale = left & ~closer & ((nearest == first) | (nearest == second))
        stale[first] = True
        nearest[stale] = match[stale].argmin(axis=1)
        least[stale] = match[rows[stale], nearest[stale]]
    return boxes[left], np.flatnonzero(left), total[left]  # the first of a pair is the better one


def _mismatch(box: Numbers, boxes: Numbers) -> Numbers:
    """How badly one (4,) box matches each of (N, 4): 0 for the same box, below 2 for any.

    The distance of the centres, in diagonals of the smallest box around both, and what is missing
    from an overlap of 1.
    """
    apart = np.hypot(*(box[:2] + box[2:] - boxes[:, :2] - boxes[:, 2:]).T) / 2
    around = np.maximum(box[2:], boxes[:, 2:]) - np.minimum(box[:2], boxes[:, :2])
    mismatch: Numbers = apart / np.hypot(*around.T) + 1 - overlaps(box, boxes)
    return mismatch


def overlaps(
    box: npt.NDArray[np.floating], boxes: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Intersection over union of (..., 4) boxes with each of (N, 4); 0 for boxes without area.

    Returns:
        (N,) for one (4,) box, (M, N) for (M, 1, 4).
    """
    left, top, right, bottom = np.moveaxis(box.astype(np.float64), -1, 0)
    lefts, tops, rights, bottoms = boxes.T.astype(np.float64, order="C")
    wide = np.minimum(right, rights) - np.maximum(left, lefts)
    high = np.minimum(bottom, bottoms) - np.maximum(top, tops)
    intersection = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = (rights - lefts) * (bottoms - tops)
    union = (right - left) * (bottom - top) + areas - intersection
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
