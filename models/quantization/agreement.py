"""Whether two model files find the same in the same pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from models.judging.detectors import Detector
from models.judging.found import Found
from models.judging.segmentation_scores import Segmenter
from models.teachers.views import overlap

LEAST_IOU, MOST_SCORE = 0.9, 0.02


@dataclass(frozen=True)
class Agreement:
    """What two files have in common.

    Attributes:
        compared: Detections of the original that are sure, or pixels.
        matched: Of them, those that the other file has, too.
    """

    compared: int
    matched: int

    @property
    def share(self) -> float:
        """1 where there was nothing to find."""
        return self.matched / self.compared if self.compared else 1.0


def objects_agree(
    original: Detector,
    other: Detector,
    frames: Iterable[np.ndarray],
    sure: float,
    least_iou: float = LEAST_IOU,
    most_score: float = MOST_SCORE,
) -> Agreement:
    """One to one: same label, near enough in place and score.

    sure: least score of the original's detections.
    """
    compared = matched = 0
    for frame in frames:
        wanted = original.detect(frame)
        compared += int((wanted.scores >= sure).sum())
        matched += _matches(wanted, other.detect(frame), sure, least_iou, most_score)
    return Agreement(compared, matched)


def pixels_agree(original: Segmenter, other: Segmenter, frames: Iterable[np.ndarray]) -> Agreement:
    """Pixels with the same class."""
    compared = matched = 0
    for frame in frames:
        same = original.segment(frame) == other.segment(frame)
        compared += same.size
        matched += int(same.sum())
    return Agreement(compared, matched)


def _matches(wanted: Found, found: Found, sure: float, least_iou: float, most_score: float) -> int:
    """Detections, best first, each with a partner of its own."""
    taken = np.zeros(len(found.scores), bool)
    for box, score, label in zip(wanted.boxes, wanted.scores, wanted.class_ids, strict=True):
        if score < sure or not len(taken):
            continue
        iou, _ = overlap(box, found.boxes)
        near = np.abs(found.scores - score) <= most_score
        fits = (iou >= least_iou) & near & (found.class_ids == label) & ~taken
        if fits.any():
            taken[np.argmax(np.where(fits, iou, -1.0))] = True
    return int(taken.sum())
