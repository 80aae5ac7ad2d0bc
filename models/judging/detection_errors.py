"""What a detector took for what: the confusion of classes, background included, and its mistakes
picture by picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.judging.voc_scores import overlaps

Record = dict[str, Any]
"""A COCO annotation, or a COCO result."""


@dataclass(frozen=True)
class Judged:
    """What came of one picture."""

    image_id: int
    pairs: list[tuple[Record, Record]]
    """An object and the detection of it, whatever its class."""
    missed: list[Record]
    """Objects that no detection covers."""
    invented: list[Record]
    """Detections that cover no object."""

    @property
    def mistakes(self) -> int:
        """Missed, invented, and found as another class."""
        confused = sum(a["category_id"] != d["category_id"] for a, d in self.pairs)
        return len(self.missed) + len(self.invented) + confused


def judge(
    truth: dict[str, Any],
    detections: Sequence[Record],
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> list[Judged]:
    """Pair objects and detections of every picture by overlap, the best pairs first.

    Classes are not looked at, so that a car found as a bus is one mistake and not two. Detections
    that lie mostly in a crowd are left out.

    Args:
        truth: COCO annotations; detections: COCO results of the same categories.
        score_threshold: detections below it are left out.
    """
    objects: dict[int, list[Record]] = defaultdict(list)
    found: dict[int, list[Record]] = defaultdict(list)
    for a in truth["annotations"]:
        objects[a["image_id"]].append(a)
    for d in detections:
        if d["score"] >= score_threshold:
            found[d["image_id"]].append(d)
    return [
        judge_picture(i["id"], objects[i["id"]], found[i["id"]], iou_threshold)
        for i in truth["images"]
    ]


def judge_picture(
    image_id: int, objects: list[Record], found: list[Record], iou_threshold: float
) -> Judged:
    """See :func:`judge`."""
    sure = [a for a in objects if not a.get("iscrowd")]
    crowds = [a for a in objects if a.get("iscrowd")]
    boxes = np.array([d["bbox"] for d in found], float).reshape(-1, 4)
    table = np.array([overlaps(np.array(a["bbox"], float), boxes) for a in sure])
    pairs = []
    while table.size and table.max() >= iou_threshold:
        row, column = np.unravel_index(table.argmax(), table.shape)
        pairs.append((int(row), int(column)))
        table[row], table[:, column] = -1, -1
    used = {column for _, column in pairs}
    rest = [d for i, d in enumerate(found) if i not in used and not within(d, crowds)]
    hit = {row for row, _ in pairs}
    return Judged(
        image_id,
        [(sure[row], found[column]) for row, column in pairs],
        [a for i, a in enumerate(sure) if i not in hit],
        rest,
    )


def within(detection: Record, crowds: list[Record]) -> bool:
    """Whether more than half of a box lies in one of the crowds."""
    x, y, width, height = detection["bbox"]
    for crowd in crowds:
        left, top, wide, high = crowd["bbox"]
        shared_x = min(x + width, left + wide) - max(x, left)
        shared_y = min(y + height, top + high) - max(y, top)
        if max(shared_x, 0) * max(shared_y, 0) > 0.5 * width * height:
            return True
    return False


def detection_confusion(judged: Sequence[Judged], categories: Sequence[Record]) -> np.ndarray:
    """(C + 1, C + 1) int64: objects by their class (row) and the class found (column).

    The last row holds what was invented, the last column what was missed.
    """
    place = {c["id"]: i for i, c in enumerate(categories)}
    last = len(categories)
    table = np.zeros((last + 1, last + 1), np.int64)
    for one in judged:
        for a, d in one.pairs:
            table[place[a["category_id"]], place[d["category_id"]]] += 1
        for a in one.missed:
            table[place[a["category_id"]], last] += 1
        for d in one.invented:
            table[last, place[d["category_id"]]] += 1
    return table
