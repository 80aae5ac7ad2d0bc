"""Whether two programs found the same things."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Found:
    """What one program found in one frame, N objects.

    Attributes:
        boxes: (N, 4) xyxy in pixels of the frame.
        labels: (N,) class ids from 0.
        scores: (N,) in [0, 1].
    """

    boxes: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    scores: npt.NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Tolerance:
    """How alike two objects of one label must be."""

    iou: float
    score: float


STRICT = Tolerance(iou=0.99, score=1e-3)
LOOSE = Tolerance(iou=0.9, score=0.05)


def matched_share(pairs: Iterable[tuple[Found, Found]], tolerance: Tolerance) -> float:
    """Share of all objects that have a partner of their own in the other program's answer.

    Twice the number of partners over the number of objects on both sides, so that objects which
    only one of them found count against it; 1.0 when both found nothing.
    """
    partners = objects = 0
    for reference, found in pairs:
        partners += 2 * _partners(reference, found, tolerance)
        objects += len(reference) + len(found)
    return partners / objects if objects else 1.0


def _partners(reference: Found, found: Found, tolerance: Tolerance) -> int:
    """Pairs of one object each, chosen from the best overlap downwards."""
    alike = reference.labels[:, None] == found.labels[None]
    alike &= np.abs(reference.scores[:, None] - found.scores[None]) < tolerance.score
    overlap = np.where(alike, iou(reference.boxes, found.boxes), 0)
    count = 0
    while overlap.size and overlap.max() > tolerance.iou:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row], overlap[:, column] = 0, 0
        count += 1
    return count


def iou(
    boxes: npt.NDArray[np.floating], others: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """(N, 4), (M, 4) xyxy -> (N, M) intersection over union."""
    a, b = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = np.clip(sides, 0, None).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return both / np.maximum(areas - both, 1e-12)
