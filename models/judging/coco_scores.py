"""Average precision of boxes by the standard COCO implementation (pycocotools).

How classes meet: a category of the annotations belongs to the model's class of the same COCO number
(``coco_id``, where the annotations have one), else of the same name (VOC's names are understood).
Categories without a counterpart are left out of the truth, and detections of classes the
annotations lack are left out of the results. Several classes may be merged and count as one on both
sides; boxes of merged classes that cover the same object are then reduced to the best.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.data.class_names import class_of
from models.data.pictures import DataError
from models.judging.found import Found, suppress

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The 12 figures of ``COCOeval.summarize``, in its order."""


@dataclass(frozen=True)
class Classes:
    """Which classes are scored, and as what."""

    names: list[str]
    """Names of the scored groups; group ``i`` has category id ``i + 1``."""
    of_category: dict[int, int]
    """Category id of the annotations -> group."""
    of_class: dict[int, int]
    """Class id of the model -> group."""


def meet(
    categories: list[dict[str, Any]], class_names: Sequence[str], merge: dict[str, list[str]]
) -> Classes:
    """Pair the annotations' categories with the model's classes.

    Raises:
        DataError: they have nothing in common.
    """
    group_of = {member: name for name, members in merge.items() for member in members}
    group_names = [group_of.get(name, name) for name in class_names]
    matched = {c["id"]: class_of(c, class_names) for c in categories}
    present = {group_names[i] for i in matched.values() if i is not None}
    names = [n for n in dict.fromkeys(group_names) if n in present]
    if not names:
        raise DataError(
            f"annotations and model share no class; the model knows {list(class_names)}"
        )
    return Classes(
        names,
        {c: names.index(group_names[i]) for c, i in matched.items() if i is not None},
        {i: names.index(g) for i, g in enumerate(group_names) if g in present},
    )


def regroup(found: Found, classes: Classes, merged: bool, iou_threshold: float = 0.65) -> Found:
    """Model classes to scored groups; where classes were merged, one box per object."""
    groups = np.array([classes.of_class.get(int(c), -1) for c in found.class_ids], np.int64)
    keep = groups >= 0
    found = Found(found.boxes[keep], found.scores[keep], groups[keep])
    return suppress(found, iou_threshold, len(groups)) if merged and len(found.scores) else found


def results(image_id: int, found: Found) -> list[dict[str, Any]]:
    """COCO result records; category ids are group + 1."""
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": int(c) + 1,
            "bbox": [*map(float, box[:2]), *map(float, size)],
            "score": float(s),
        }
        for box, size, s, c in zip(found.boxes, sizes, found.scores, found.class_ids, strict=True)
    ]


def narrowed(truth: dict[str, Any], classes: Classes) -> dict[str, Any]:
    """The annotations with categories replaced by the scored groups."""
    annotations = [
        {**a, "category_id": classes.of_category[a["category_id"]] + 1}
        for a in truth["annotations"]
        if a["category_id"] in classes.of_category
    ]
    categories = [{"id": i + 1, "name": n} for i, n in enumerate(classes.names)]
    return {**truth, "annotations": annotations, "categories": categories}


def score(truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO figures of detections (result records) against annotations of the same categories.

    Returns:
        the 12 figures by name, ``stats`` in COCO's order, and ``classes``: name -> AP, AP50, AP75,
        boxes.
    """
    # pycocotools prints its progress; the figures are returned instead.
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = COCO()
        wanted.dataset = {"info": {}, **truth, "annotations": numbered(truth["annotations"])}
        wanted.createIndex()
        evaluation = COCOeval(wanted, found_in(wanted, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [float(s) for s in evaluation.stats]
    return {
        **dict(zip(SUMMARY, stats, strict=True)),
        "stats": stats,
        "classes": by_class(evaluation, truth),
    }


def numbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Annotations as pycocotools reads them right: it takes the id 0 for "not found", and wants
    ``iscrowd`` and ``area`` of each."""
    return [
        {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a, "id": number}
        for number, a in enumerate(annotations, 1)
    ]


def found_in(truth: COCO, detections: list[dict[str, Any]]) -> COCO:
    """Detections as pycocotools wants them; an empty list, which its ``loadRes`` refuses, is
    fine."""
    if detections:
        return truth.loadRes([dict(d) for d in detections])
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def by_class(evaluation: COCOeval, truth: dict[str, Any]) -> dict[str, dict[str, float]]:
    """AP, AP50 and AP75 per category, over all areas and 100 detections; -1 where there is no
    truth."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = {c["id"]: c["name"] for c in truth["categories"]}
    out = {}
    for k, category_id in enumerate(map(int, evaluation.params.catIds)):
        own = [a for a in truth["annotations"] if a["category_id"] == category_id]
        counted = sum(not a.get("iscrowd") for a in own)
        parts = {"AP": precision[:, :, k], "AP50": precision[0, :, k], "AP75": precision[5, :, k]}
        out[names[category_id]] = {
            **{n: float(p.mean()) if counted else -1.0 for n, p in parts.items()},
            "boxes": counted,
        }
    return out
