"""OverFeat's greedy merge against a twin that knows which windows went into each box."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.detection.greedy_merge import confidence, greedy_merge, match_scores
from models.judging.found import Found, suppress
from pipeline.frame import Detections
from pipeline.nms import greedy_merge as greedy_merge_of_the_line
from tests.models.detection.toys import overlap


def crowd(n: int, seed: int, classes: int = 2) -> Found:
    """Boxes around a few places."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 300, (max(1, n // 8), 2))
    centres = places[rng.integers(0, len(places), n)] + rng.normal(0, 6, (n, 2))
    half = rng.uniform(8, 30, (n, 2))
    boxes = np.hstack([centres - half, centres + half]).astype(np.float32)
    scores = rng.uniform(0.05, 1, n).astype(np.float32)
    return Found(boxes, scores, rng.integers(0, classes, n))


def slow_match(a: list[float], b: list[float]) -> float:
    """The paper's score of a pair, one number at a time."""
    apart = math.dist(
        ((a[0] + a[2]) / 2, (a[1] + a[3]) / 2), ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)
    )
    width, height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    return apart / math.hypot(width, height) + 1 - overlap(a, b)


def slow_merge(found: Found, limit: float) -> list[tuple[list[float], float, int]]:
    """Steps (d) to (g) of section 4.3 on sets of windows; boxes, sums of scores, classes."""

    def box_of(group: list[int]) -> list[float]:
        weights = [float(found.scores[i]) for i in group]
        columns = zip(*(found.boxes[i].tolist() for i in group), strict=True)
        return [
            sum(x * weight for x, weight in zip(column, weights, strict=True)) / sum(weights)
            for column in columns
        ]

    groups = [[i] for i in range(len(found.boxes))]
    while True:
        pairs = [
            (slow_match(box_of(a), box_of(b)), i, j)
            for i, a in enumerate(groups)
            for j, b in enumerate(groups)
            if i < j and found.class_ids[a[0]] == found.class_ids[b[0]]
        ]
        least, i, j = min(pairs, default=(math.inf, 0, 0))
        if least > limit:
            break
        groups[i] += groups.pop(j)
    return [
        (box_of(g), sum(float(found.scores[i]) for i in g), int(found.class_ids[g[0]]))
        for g in groups
    ]


@pytest.mark.parametrize("iou", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("n", [1, 2, 9, 30])
def test_greedy_merge_agrees_with_the_slow_twin(n, iou):
    found = crowd(n, seed=n)
    merged = greedy_merge(found, iou, 1000)
    expected = sorted(slow_merge(found, 1 - iou))
    order = np.lexsort(merged.boxes.T[::-1])
    np.testing.assert_allclose(merged.boxes[order], [row[0] for row in expected], rtol=1e-5)
    np.testing.assert_array_equal(merged.class_ids[order], [row[2] for row in expected])


@pytest.mark.parametrize("n", [0, 1, 40, 300])
def test_the_line_merges_as_the_models_do(n):
    found = crowd(n, seed=n + 1, classes=3)
    ours = greedy_merge(found, 0.4, 50)
    theirs = greedy_merge_of_the_line(
        Detections(found.boxes, found.scores, found.class_ids), 0.4, 50
    )
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)
    np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)


def test_a_match_is_perfect_for_the_same_box_and_worse_the_farther_and_the_smaller():
    box = np.array([10.0, 10, 30, 30])
    others = np.array([[10.0, 10, 30, 30], [12, 10, 32, 30], [14, 14, 26, 26], [90, 90, 99, 99]])
    scores = match_scores(box, others)
    assert scores[0] == 0
    assert (np.diff(scores) > 0).all()
    assert scores[-1] < 2


def test_windows_that_agree_are_surer_than_any_of_them_alone():
    total = np.array([0.6, 1.2, 6.0])
    scores = confidence(np.full(3, 0.6), total)
    np.testing.assert_allclose(scores, [0.6, 1 - 0.4 / 1.6, 1 - 0.4 / 6.4])


def test_many_windows_beat_a_lone_false_alarm_that_suppression_would_put_first():
    boxes = np.array([[0, 0, 20, 20], [1, 0, 21, 20], [0, 1, 20, 21], [60, 60, 80, 80]], np.float32)
    found = Found(boxes, np.array([0.7, 0.7, 0.7, 0.8], np.float32), np.zeros(4, np.int64))
    np.testing.assert_array_equal(suppress(found, 0.5, 1).boxes, boxes[3:])
    assert greedy_merge(found, 0.5, 1).boxes[0, 0] < 20


def test_the_mean_of_uncertain_windows_lies_better_than_the_surest_of_them():
    rng = np.random.default_rng(0)
    wanted = [100.0, 100, 160, 140]
    boxes = (np.array(wanted) + rng.normal(0, 6, (40, 4))).astype(np.float32)
    found = Found(boxes, rng.uniform(0.3, 0.9, 40).astype(np.float32), np.zeros(40, np.int64))
    (merged,), (surest,) = greedy_merge(found, 0.3, 1).boxes, suppress(found, 0.3, 1).boxes
    assert overlap(merged.tolist(), wanted) > 0.9 > overlap(surest.tolist(), wanted) + 0.05


def test_boxes_of_two_classes_are_never_merged():
    boxes = np.array([[0, 0, 20, 20]] * 2, np.float32)
    found = Found(boxes, np.array([0.7, 0.8], np.float32), np.array([0, 1]))
    assert greedy_merge(found, 0.1, 10).class_ids.tolist() == [1, 0]


def test_no_boxes_stay_no_boxes():
    assert len(greedy_merge(Found.none(), 0.5, 10).boxes) == 0
