"""Whether two engines say the same about the same frames.

Only what the witness or the other is sure of is looked for, but in all that the other has to say:
an object whose score lies a hair above the threshold here and a hair below it there is no
difference between engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.checkup.isolation import Finding
from pipeline.frame import Classes, Detections
from pipeline.nms import overlaps

_SAME_OBJECT = (
    0.5  # overlap from which two boxes are said to be of one object, well or badly placed
)

Pair = tuple[int, int, float]  # places on both sides, overlap


@dataclass(frozen=True)
class Bounds:
    """How alike two answers must be.

    Attributes:
        iou: Least overlap of two boxes of one object.
        score: Most difference of their scores.
        boxes: Least share of the objects of both sides that have a partner within these.
        pixels: Least share of pixels of the same class.
    """

    iou: float
    score: float
    boxes: float
    pixels: float


# Engines that compute in f32 differ in the order of their sums: OpenVINO and ONNX Runtime in
# nothing that four digits show, over 550 objects in 48 drawn frames. A GPU adds up in yet another
# order, so one object in a hundred may fall on the other side of a suppression. Pixels that are
# wrong by 1 of 255 leave 0.92 alike, a scale of brightness that is wrong 0.88.
EXACT = Bounds(iou=0.9, score=0.02, boxes=0.99, pixels=0.999)

# Fewer bits of a number (bf16 keeps 8, TF32 keeps 11) move boxes and scores. On the same frames
# OpenVINO's bf16 leaves 0.982 alike within this. Exchanged colours leave 0.81, coordinates rounded
# as bf16 would 0.88, a picture that is 4 pixels off 0.45; smaller mistakes only the f32 of the same
# engine can show.
ROUGH = Bounds(iou=0.8, score=0.1, boxes=0.95, pixels=0.98)


# A number that lies between two steps of 8 bits falls to either side by its last digit, and goes on
# from there a whole step apart; and what is compared is another file. OpenVINO's int8 leaves 0.943
# alike (0.915 to 0.97 on six streets), exchanged colours then 0.66, a picture that is 4 pixels off
# 0.22, scores that are a tenth too low 0.66.
INT8 = Bounds(iou=0.8, score=0.1, boxes=0.87, pixels=0.93)


def bounds_of(precision: str) -> Bounds:
    """What is asked of an engine that computes in it."""
    if precision.startswith("int8"):
        return INT8
    return EXACT if precision == "f32" else ROUGH


def compare_boxes(
    witness: Sequence[Detections], found: Sequence[Detections], threshold: float, bounds: Bounds
) -> Finding:
    """Look for the partner of every object with a score of at least `threshold`, on both sides.

    Args:
        witness: Of each frame, in pixels of the frame, also what is below the threshold.
        found: The same of the other engine.
        threshold: Lowest score of an object that must have a partner.
        bounds: How alike the two must be.
    """
    compared = matched = 0
    gaps, distances, least = [0.0], [0.0], 1.0
    for one, other in zip(witness, found, strict=True):
        for here, there in ((one, other), (other, one)):
            sure = here[here.scores >= threshold]
            compared += len(sure)
            for i, j, overlap in partners(sure, there):
                gap = abs(float(sure.scores[i] - there.scores[j]))
                matched += overlap >= bounds.iou and gap <= bounds.score
                gaps.append(gap)
                distances.append(float(np.abs(sure.boxes[i] - there.boxes[j]).max()))
                least = min(least, overlap)
    largest = {
        "score": round(max(gaps), 4),
        "box_pixels": round(max(distances), 2),
        "iou": round(least, 4),
    }
    return _finding("boxes", compared, matched, bounds.boxes, bounds) | {"largest": largest}


def compare_pixels(
    witness: npt.NDArray[np.uint8] | Classes, found: npt.NDArray[np.uint8] | Classes, bounds: Bounds
) -> Finding:
    """Count the pixels of one class; both (N, H, W) uint8."""
    if witness.shape != found.shape:
        return _finding("pixels", max(witness.size, found.size), 0, bounds.pixels, bounds)
    equal = int((witness == found).sum())
    return _finding("pixels", witness.size, equal, bounds.pixels, bounds)


def partners(here: Detections, there: Detections) -> list[Pair]:
    """Objects of one label and much the same place, one to one, the best overlap first."""
    table = np.zeros((len(here), len(there)))
    for i, box in enumerate(here.boxes):
        alike = there.class_ids == here.class_ids[i]
        table[i] = np.where(alike, overlaps(box, there.boxes), 0)
    found: list[Pair] = []
    while table.size and table.max() >= _SAME_OBJECT:
        i, j = (int(place) for place in np.unravel_index(table.argmax(), table.shape))
        found.append((i, j, float(table[i, j])))
        table[i], table[:, j] = 0, 0
    return found


def _finding(unit: str, compared: int, matched: int, needed: float, bounds: Bounds) -> Finding:
    share: Any = round(matched / compared, 4) if compared else None
    return {
        "unit": unit,
        "compared": compared,
        "matched": int(matched),
        "share": share,
        "needed": needed,
        "bounds": asdict(bounds),
        "equal": bool(compared) and matched >= needed * compared,
        "largest": None,
    }
