"""Average precision against a known truth, in COCO's arithmetic.

The same numbers as pycocotools' (areas "all", 100 detections a frame and class, 101 recall
points), but frame by frame and without keeping frames: of each detection only the score and
whether it was a hit are remembered.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.frame import Boxes, Detections, Truth

MOST_PER_FRAME = 100
RECALL_POINTS = np.linspace(0.0, 1.0, 101)

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass
class _ClassBook:
    """What is remembered of one class: score and hit of each detection, 5 bytes in all."""

    positives: int = 0
    scores: array[float] = field(default_factory=lambda: array("f"))
    hits: bytearray = field(default_factory=bytearray)


class TruthScore:
    """Compare detections with the true boxes of synthetic frames, over a whole run.

    Classes meet by name. A class that only one side knows is left out of the score and is
    listed in the report, if it occurred.

    Args:
        iou: Overlap from which a detection counts as a hit.
    """

    def __init__(self, iou: float = 0.5) -> None:
        self.iou = iou
        self.frames = 0
        self._books: dict[str, _ClassBook] = {}
        self._unknown: set[str] = set()

    def add(self, detections: Detections, truth: Truth, class_names: Sequence[str]) -> None:
        """Judge one frame; `class_names` are the detector's, the truth brings its own."""
        self.frames += 1
        for true_id, name in enumerate(truth.class_names):
            real = truth.boxes[truth.class_ids == true_id]
            if name not in class_names:
                self._unknown |= {name} if len(real) else set()
                continue
            found = detections[detections.class_ids == class_names.index(name)]
            order = np.argsort(-found.scores, kind="stable")[:MOST_PER_FRAME]
            matched = match(found.boxes[order], real, truth.ignored, self.iou)
            book = self._books.setdefault(name, _ClassBook())
            book.positives += len(real)
            book.scores.extend(found.scores[order][matched != IGNORED].tolist())
            book.hits.extend((matched[matched != IGNORED] == HIT).tobytes())

    def report(self) -> dict[str, Any]:
        """``{"ap50", "per_class", "objects", "frames", "not_scored"}``; AP None without objects.

        (The key is ``ap50`` at the usual `iou` of 0.5, else ``ap75`` and so on.)
        """
        per_class = {name: self._average_precision(book) for name, book in self._books.items()}
        known = [value for value in per_class.values() if value is not None]
        return {
            f"ap{round(self.iou * 100)}": float(np.mean(known)) if known else None,
            "per_class": per_class,
            "objects": {name: book.positives for name, book in self._books.items()},
            "frames": self.frames,
            "not_scored": sorted(self._unknown),
        }

    @staticmethod
    def _average_precision(book: _ClassBook) -> float | None:
        scores = np.array(book.scores, np.float64)
        return average_precision(scores, np.frombuffer(book.hits, np.bool_), book.positives)


def average_precision(scores: Floats, hits: Flags, positives: int) -> float | None:
    """Mean precision at 101 recalls, precision made falling; None when there are no positives.

    Args:
        scores: (D,) scores of the detections of one class over all frames.
        hits: (D,) whether each found an object nobody better had found.
        positives: Number of objects.
    """
    if positives == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    true_positives = np.cumsum(hits[order]).astype(np.float64)
    false_positives = np.cumsum(~hits[order]).astype(np.float64)
    recall = true_positives / positives
    precision = true_positives / (false_positives + true_positives + np.spacing(1))
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(np.append(falling, 0.0)[np.minimum(at, len(falling))].mean())


MISS, HIT, IGNORED = 0, 1, 2


def match(found: Boxes, real: Boxes, ignored: Boxes, iou: float) -> npt.NDArray[np.int64]:
    """(D,) MISS, HIT or IGNORED for detections by falling score.

    Greedy as in COCO: each detection takes the free object that it overlaps most (of equals the
    last), and only if there is none may it disappear in an ignored region, which takes any number.
    """
    needed = min(iou, 1 - 1e-10)
    overlap = _overlap(found, real, np.zeros(len(real), bool))
    covered = _overlap(found, ignored, np.ones(len(ignored), bool)) >= needed
    free = np.ones(len(real), bool)
    result = np.where(covered.any(axis=1), IGNORED, MISS).astype(np.int64)
    for row in range(len(found)):
        candidates = np.where(free & (overlap[row] >= needed), overlap[row], -1.0)
        if candidates.size and candidates.max() > 0:
            taken = candidates.size - 1 - int(np.argmax(candidates[::-1]))
            free[taken] = False
            result[row] = HIT
    return result


def _overlap(found: Boxes, true: Boxes, crowd: Flags) -> Floats:
    """(D, T) intersection over union; over the detection's own area where `crowd`."""
    a, b = found.astype(np.float64)[:, None], true.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.maximum(sides, 0), axis=2)
    own = np.prod(a[..., 2:] - a[..., :2], axis=2)
    other = np.prod(b[..., 2:] - b[..., :2], axis=2)
    union = np.where(crowd, own, own + other - intersection)
    overlap: Floats = np.zeros_like(intersection)
    np.divide(intersection, union, out=overlap, where=union > 0)
    return overlap
