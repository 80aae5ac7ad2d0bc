"""Average precision against pycocotools, number for number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.bookkeeping.score import TruthScore, average_precision
from pipeline.frame import Detections, Truth

NAMES = ("person", "car", "bus")
Scene = tuple[Detections, Truth]


def boxes(rng: np.random.Generator, n: int, spread: float = 300) -> np.ndarray:
    corner = rng.uniform(0, spread, (n, 2))
    return np.hstack([corner, corner + rng.uniform(5, 90, (n, 2))]).astype(np.float32)


def scene(rng: np.random.Generator, tied: bool) -> Scene:
    """Some objects, detections near most of them, false ones, doubles, and crowd regions."""
    real = boxes(rng, int(rng.integers(0, 9)))
    ids = rng.integers(0, len(NAMES), len(real))
    near = np.repeat(real, rng.integers(0, 4, len(real)), axis=0)
    near = near + rng.normal(0, 6, near.shape).astype(np.float32)
    near_ids = ids[rng.integers(0, len(ids), len(near))] if len(ids) else np.zeros(0, np.int64)
    false = boxes(rng, int(rng.integers(0, 6)))
    found = np.vstack([near, false]).astype(np.float32)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    found_ids = np.concatenate([near_ids, rng.integers(0, len(NAMES), len(false))])
    scores = rng.uniform(0, 1, len(found)).astype(np.float32)
    if tied:
        scores = np.round(scores, 1)
    ignored = boxes(rng, int(rng.integers(0, 3)), spread=200)
    return Detections(found, scores, found_ids), Truth(real, ids, ignored, NAMES)


def by_pycocotools(scenes: list[Scene], iou: float) -> tuple[float, dict[str, float | None]]:
    """The same question to the reference; crowd regions go into every class."""
    truth: dict[str, Any] = {"images": [], "annotations": [], "info": {}}
    truth["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    results: list[dict[str, Any]] = []

    def annotate(image: int, box: np.ndarray, category: int, crowd: bool) -> None:
        x1, y1, x2, y2 = map(float, box)
        sides = x2 - x1, y2 - y1
        truth["annotations"].append(
            {
                "id": len(truth["annotations"]) + 1,
                "image_id": image,
                "category_id": category + 1,
                "bbox": [x1, y1, *sides],
                "area": sides[0] * sides[1],
                "iscrowd": int(crowd),
            }
        )

    for image, (found, true) in enumerate(scenes, start=1):
        truth["images"].append({"id": image})
        for box, class_id in zip(true.boxes, true.class_ids, strict=True):
            annotate(image, box, int(class_id), False)
        for box in true.ignored:
            for class_id in range(len(NAMES)):
                annotate(image, box, class_id, True)
        for box, score, class_id in zip(found.boxes, found.scores, found.class_ids, strict=True):
            x1, y1, x2, y2 = map(float, box)
            row = {"image_id": image, "category_id": int(class_id) + 1, "score": float(score)}
            results.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    judged = COCOeval(coco, coco.loadRes(results), "bbox")
    judged.params.iouThrs = np.array([iou])
    judged.evaluate()
    judged.accumulate()
    precision = judged.eval["precision"][0, :, :, 0, -1]  # (recalls, classes), all areas, 100
    per_class = {
        name: None if precision[0, i] < 0 else float(precision[:, i].mean())
        for i, name in enumerate(NAMES)
    }
    known = [value for value in per_class.values() if value is not None]
    return float(np.mean(known)), per_class


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("iou", [0.5, 0.75])
@pytest.mark.parametrize("seed", range(6))
def test_the_score_is_that_of_pycocotools(seed: int, iou: float, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng, tied) for _ in range(25)]
    score = TruthScore(iou)
    for found, truth in scenes:
        score.add(found, truth, NAMES)
    mean, per_class = by_pycocotools(scenes, iou)
    report = score.report()
    assert report[f"ap{round(iou * 100)}"] == pytest.approx(mean, abs=1e-12)
    assert report["per_class"] == pytest.approx(per_class, abs=1e-12)
    assert report["frames"] == 25


def one(box: list[float], score: float | None = None) -> Any:
    rows = np.array([box], np.float32)
    if score is None:
        return Truth(rows, np.array([1]), np.zeros((0, 4), np.float32), NAMES)
    return Detections(rows, np.array([score], np.float32), np.array([1]))


def test_perfect_detections_score_one() -> None:
    score = TruthScore()
    score.add(one([0, 0, 10, 10], 0.4), one([0, 0, 10, 10]), NAMES)
    assert score.report()["ap50"] == pytest.approx(1.0)
    assert score.report()["per_class"] == {"person": None, "car": pytest.approx(1.0), "bus": None}
    assert score.report()["objects"] == {"person": 0, "car": 1, "bus": 0}


def test_a_found_object_among_two_scores_one_half() -> None:
    score = TruthScore()
    score.add(one([0, 0, 10, 10], 0.4), one([0, 0, 10, 10]), NAMES)
    score.add(Detections.none(), one([0, 0, 10, 10]), NAMES)
    assert score.report()["ap50"] == pytest.approx(51 / 101)  # recalls 0.00 to 0.50


def test_a_detection_in_an_ignored_region_is_neither_hit_nor_miss() -> None:
    score = TruthScore()
    region = np.array([[0, 0, 100, 100]], np.float32)
    truth = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), region, NAMES)
    score.add(one([10, 10, 20, 20], 0.9), truth, NAMES)
    score.add(one([0, 0, 10, 10], 0.4), one([0, 0, 10, 10]), NAMES)
    assert score.report()["ap50"] == pytest.approx(1.0)


def test_classes_meet_by_name_and_strangers_are_listed() -> None:
    score = TruthScore()
    detection = one([0, 0, 10, 10], 0.9)  # class 1 of the detector is "car" here too
    score.add(detection, one([0, 0, 10, 10]), ("lorry", "car"))
    rickshaw = Truth(
        np.array([[0, 0, 5, 5]], np.float32),
        np.array([0]),
        np.zeros((0, 4), np.float32),
        ("rickshaw", "car"),
    )
    score.add(Detections.none(), rickshaw, ("lorry", "car"))
    report = score.report()
    assert report["ap50"] == pytest.approx(1.0)
    assert report["not_scored"] == ["rickshaw"]
    assert set(report["per_class"]) == {"car"}


def test_no_objects_have_no_average_precision() -> None:
    assert TruthScore().report()["ap50"] is None
    assert average_precision(np.array([0.9]), np.array([False]), 0) is None


def test_no_detections_score_zero() -> None:
    score = TruthScore()
    score.add(Detections.none(), one([0, 0, 10, 10]), NAMES)
    assert score.report()["ap50"] == 0.0
