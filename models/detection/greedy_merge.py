"""OverFeat's way to one box for each object (arXiv:1312.6229, sec. 4.3): merge, do not suppress.

Boxes of a class are merged two by two, the best matching pair first, until no pair matches well.
Many windows that see one object thus count for it together, and a lone false alarm stays alone.

Where we read the paper our way: its score to be minimised is the sum of the centres' distance and
of the intersection, of which the second must then count with the opposite sign; both are made
free of units here, so that one threshold serves all sizes. Its merged box is the average; ours
weighs each by the confidence accumulated so far, so that every window counts for what it said,
whatever came first. Its confidences are sums; ours are brought back to [0, 1], see
:func:`confidence`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.judging.found import Found

Numbers = NDArray[np.float64]


class _Merged(NamedTuple):
    """Boxes of one class, each made of one or more."""

    boxes: Numbers
    """(K, 4)"""
    best: Numbers
    """(K,) highest score among those that went in."""
    total: Numbers
    """(K,) sum of their scores."""


def greedy_merge(found: Found, iou: float, most: int) -> Found:
    """Merge within each class; keeps at most ``most`` boxes, best first.

    iou: two boxes about the same centre are merged when they overlap by this much; the farther
        apart their centres are, the more they must.
    """
    numbers = np.unique(found.class_ids)
    if not len(numbers):
        return Found.none()
    parts = [_merge(_of_class(found, number), 1 - iou) for number in numbers]
    class_ids = np.repeat(numbers, [len(part.boxes) for part in parts])
    boxes, best, total = (np.concatenate(part) for part in zip(*parts, strict=True))
    scores = confidence(best, total)
    order = np.lexsort((-total, -scores))[:most]
    return Found(
        boxes[order].astype(np.float32), scores[order].astype(np.float32), class_ids[order]
    )


def confidence(best: Numbers, total: Numbers) -> Numbers:
    """The score of a merged box: the best one's, raised towards 1 by what the others add to it."""
    return 1 - (1 - best) / (1 + total - best)


def _of_class(found: Found, class_id: int) -> _Merged:
    own = found.class_ids == class_id
    scores = found.scores[own].astype(np.float64)
    return _Merged(found.boxes[own].astype(np.float64), scores, scores)


def _merge(found: _Merged, limit: float) -> _Merged:
    """Steps (d) to (g) of the paper."""
    match = np.stack([match_scores(box, found.boxes) for box in found.boxes])
    match[np.tril_indices(len(match))] = np.inf  # each pair once
    while match.min() <= limit:
        first, second = divmod(int(match.argmin()), len(match))
        found = _joined(found, first, second)
        match = np.delete(np.delete(match, second, 0), second, 1)
        again = match_scores(found.boxes[first], found.boxes)
        match[first, first + 1 :], match[:first, first] = again[first + 1 :], again[:first]
    return found


def _joined(found: _Merged, first: int, second: int) -> _Merged:
    """The same, with ``second`` gone into ``first``, which stands before it."""
    boxes, best, total = (part.copy() for part in found)
    pair = [first, second]
    boxes[first] = np.average(boxes[pair], axis=0, weights=total[pair])
    best[first], total[first] = best[pair].max(), total[pair].sum()
    return _Merged(*(np.delete(part, second, 0) for part in (boxes, best, total)))


def match_scores(one: Numbers, many: Numbers) -> Numbers:
    """How badly one (4,) box matches each of (K, 4): 0 for the same box, below 2 for any.

    The distance of the centres, in diagonals of the smallest box around both, and what is missing
    from an intersection over union of 1.
    """
    apart = np.hypot(*((one[:2] + one[2:]) / 2 - (many[:, :2] + many[:, 2:]) / 2).T)
    around = np.maximum(one[2:], many[:, 2:]) - np.minimum(one[:2], many[:, :2])
    sides = np.minimum(one[2:], many[:, 2:]) - np.maximum(one[:2], many[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    union = np.prod(one[2:] - one[:2]) + np.prod(many[:, 2:] - many[:, :2], axis=1) - shared
    diagonal = np.hypot(*around.T)
    tiny = np.finfo(np.float64).tiny  # for boxes without any area
    return apart / np.maximum(diagonal, tiny) + 1 - shared / np.maximum(union, tiny)
