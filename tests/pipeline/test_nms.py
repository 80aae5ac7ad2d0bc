"""Suppression against slow twins written from the definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from pipeline.frame import Detections
from pipeline.nms import (
    MOST_BOXES,
    class_agnostic,
    class_aware,
    greedy_merge,
    overlaps,
    soft,
)

FLAVOURS = [class_aware, class_agnostic, soft, greedy_merge]
Flavour = Callable[[Detections, float, int], Detections]


def crowd(n: int, seed: int, classes: int = 3, tied: bool = False) -> Detections:
    """`n` boxes in clusters, so that many overlap."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 500, (max(1, n // 8), 2))[rng.integers(0, max(1, n // 8), n)]
    centres = centres + rng.normal(0, 6, (n, 2))
    half = rng.uniform(8, 30, (n, 2))
    scores = rng.choice([0.3, 0.6, 0.9], n) if tied else rng.uniform(0.05, 1, n)
    return Detections(
        np.hstack([centres - half, centres + half]).astype(np.float32),
        scores.astype(np.float32),
        rng.integers(0, classes, n),
    )


def iou_of(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, one number at a time."""
    ax1, ay1, ax2, ay2 = map(float, a)
    bx1, by1, bx2, by2 = map(float, b)
    width, height = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


def slow_greedy(found: Detections, iou: float, per_class: bool) -> list[int]:
    """Take the best, drop what it covers, repeat; of equal scores the first."""
    waiting, kept = list(range(len(found))), []
    while waiting:
        best = max(waiting, key=lambda i: (found.scores[i], -i))
        kept.append(best)
        waiting = [
            i
            for i in waiting
            if i != best
            and not (
                (not per_class or found.class_ids[i] == found.class_ids[best])
                and iou_of(found.boxes[i], found.boxes[best]) > iou
            )
        ]
    return kept


def slow_soft(found: Detections, iou: float) -> list[tuple[int, float]]:
    """The loop of the paper's figure 2 with its linear penalty, class by class."""
    scores = {i: float(found.scores[i]) for i in range(len(found))}
    chosen = []
    while scores:
        best = max(scores, key=lambda i: (scores[i], -i))
        chosen.append((best, scores.pop(best)))
        for i in scores:
            overlap = iou_of(found.boxes[i], found.boxes[best])
            if found.class_ids[i] == found.class_ids[best] and overlap > iou:
                scores[i] *= 1 - overlap
    return chosen


def mismatch_of(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of the centres in diagonals of the box around both, and 1 - overlap."""
    ax1, ay1, ax2, ay2 = map(float, a)
    bx1, by1, bx2, by2 = map(float, b)
    apart = math.dist(((ax1 + ax2) / 2, (ay1 + ay2) / 2), ((bx1 + bx2) / 2, (by1 + by2) / 2))
    width, height = max(ax2, bx2) - min(ax1, bx1), max(ay2, by2) - min(ay1, by1)
    return apart / math.hypot(width, height) + 1 - iou_of(a, b)


def slow_merge(found: Detections, iou: float) -> list[tuple[list[float], float, int]]:
    """The loop (d) to (g) of OverFeat's section 4.3, over sets of original boxes.

    Returns boxes, scores and classes, best first.
    """

    def box_of(group: list[int]) -> np.ndarray:
        weights = found.scores[group].astype(np.float64)
        return (found.boxes[group].astype(np.float64) * weights[:, None]).sum(0) / weights.sum()

    def score_of(group: list[int]) -> float:
        scores = sorted(found.scores[group].astype(np.float64))
        return float(1 - (1 - scores[-1]) / (1 + sum(scores[:-1])))

    groups = [[i] for i in range(len(found))]
    while True:
        pairs = [
            (mismatch_of(box_of(a), box_of(b)), i, j)
            for i, a in enumerate(groups)
            for j, b in enumerate(groups)
            if i < j and found.class_ids[a[0]] == found.class_ids[b[0]]
        ]
        best, i, j = min(pairs, default=(math.inf, 0, 0))
        if best > 1 - iou:
            break
        groups[i] += groups.pop(j)
    merged = [(box_of(g).tolist(), score_of(g), int(found.class_ids[g[0]])) for g in groups]
    return sorted(merged, key=lambda row: -row[1])


@pytest.mark.parametrize("iou", [0.2, 0.5])
@pytest.mark.parametrize("n", [1, 2, 7, 24])
def test_greedy_merge_agrees_with_the_slow_twin(n: int, iou: float) -> None:
    found = crowd(n, seed=n + 5)
    boxes, scores, class_ids = zip(*slow_merge(found, iou), strict=True)
    merged = greedy_merge(found, iou, 1000)
    np.testing.assert_allclose(merged.boxes, boxes, rtol=1e-5)
    np.testing.assert_allclose(merged.scores, scores, rtol=1e-5)
    np.testing.assert_array_equal(merged.class_ids, class_ids)


def test_windows_that_agree_are_surer_together_and_a_lone_box_stays_as_it_was() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    found = Detections(boxes, np.array([0.6, 0.6, 0.7], np.float32), np.zeros(3, np.int64))
    merged = greedy_merge(found, 0.5, 10)
    np.testing.assert_allclose(merged.boxes, [[0.5, 0, 10.5, 10], boxes[2]], atol=1e-6)
    np.testing.assert_allclose(merged.scores, [1 - 0.4 / 1.6, 0.7], atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 60, 200])
@pytest.mark.parametrize("iou", [0.3, 0.5, 0.7])
def test_class_aware_nms_agrees_with_the_slow_twin(n: int, iou: float, tied: bool) -> None:
    found = crowd(n, seed=n, tied=tied)
    expected = found[np.array(slow_greedy(found, iou, per_class=True))]
    kept = class_aware(found, iou, 1000)
    np.testing.assert_array_equal(kept.boxes, expected.boxes)
    np.testing.assert_array_equal(kept.class_ids, expected.class_ids)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 60, 200])
def test_class_agnostic_nms_agrees_with_the_slow_twin(n: int, tied: bool) -> None:
    found = crowd(n, seed=n + 1, tied=tied)
    expected = found[np.array(slow_greedy(found, 0.5, per_class=False))]
    np.testing.assert_array_equal(class_agnostic(found, 0.5, 1000).boxes, expected.boxes)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 150])
def test_soft_nms_agrees_with_the_slow_twin(n: int) -> None:
    found = crowd(n, seed=n + 2)
    indices, scores = zip(*slow_soft(found, 0.4), strict=True)
    kept = soft(found, 0.4, 1000)
    np.testing.assert_array_equal(kept.boxes, found.boxes[list(indices)])
    np.testing.assert_allclose(kept.scores, scores, rtol=1e-5)


def soft_turn_by_turn(best: Detections, iou: float, limit: int) -> tuple[list[int], list[float]]:
    """Each winner against all boxes, in float64: the order and the scores to the last bit."""
    scores, waiting, chosen = best.scores.astype(np.float64), np.ones(len(best), bool), []
    boxes = best.boxes.astype(np.float64)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    while waiting.any() and len(chosen) < limit:
        winner = int(np.argmax(np.where(waiting, scores, -1.0)))
        chosen.append(winner)
        waiting[winner] = False
        box = boxes[winner]
        sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        overlap = shared / (areas[winner] + areas - shared)
        rivals = waiting & (best.class_ids == best.class_ids[winner]) & (overlap > iou)
        scores[rivals] *= 1 - overlap[rivals]
    return chosen, [scores[place] for place in chosen]


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    n=st.integers(0, 90),
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 5),
    tied=st.booleans(),
    twice=st.booleans(),
    iou=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    limit=st.integers(0, 120),
)
def test_soft_nms_is_the_turn_by_turn_loop_to_the_last_bit(
    n: int, seed: int, classes: int, tied: bool, twice: bool, iou: float, limit: int
) -> None:
    found = crowd(n, seed, classes, tied)
    if twice:  # the second of two equal boxes keeps nothing of its score
        found = found[np.repeat(np.arange(n), 2)]
    found = found[np.argsort(-found.scores, kind="stable")]
    chosen, scores = soft_turn_by_turn(found, iou, limit)
    kept = soft(found, iou, limit)
    np.testing.assert_array_equal(kept.boxes, found.boxes[chosen])
    np.testing.assert_array_equal(kept.class_ids, found.class_ids[chosen])
    np.testing.assert_array_equal(kept.scores, np.array(scores, np.float32))


def test_nms_keeps_the_higher_of_two_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float32)
    found = Detections(boxes, np.array([0.6, 0.9], np.float32), np.zeros(2, np.int64))
    np.testing.assert_array_equal(class_aware(found, 0.5, 10).boxes, boxes[1:])


def test_only_class_agnostic_nms_lets_a_car_hide_a_bus() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.6], np.float32), np.array([0, 1]))
    assert len(class_aware(found, 0.5, 10)) == 2
    assert len(class_agnostic(found, 0.5, 10)) == 1


def test_two_boxes_whose_overlap_is_exactly_the_limit_both_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64))
    assert len(class_aware(found, 0.5, 10)) == len(class_agnostic(found, 0.5, 10)) == 2


def test_boxes_far_from_the_origin_are_told_apart_by_class() -> None:
    boxes = np.array([[1e6, 1e6, 1e6 + 64, 1e6 + 64]] * 2, np.float32)
    found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 79]))
    assert len(class_aware(found, 0.5, 10)) == 2


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_boxes_stay_no_boxes(flavour: Flavour) -> None:
    assert len(flavour(Detections.none(), 0.5, 10)) == 0


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_best_come_first_and_no_more_than_the_limit(flavour: Flavour) -> None:
    kept = flavour(crowd(300, seed=9), 0.5, 20)
    assert len(kept) == 20
    assert (np.diff(kept.scores) <= 0).all()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_boxes_without_a_finite_area_are_left_out(flavour: Flavour) -> None:
    nan, inf = np.nan, np.inf
    bad = [[nan, 0, 1, 1], [0, 0, inf, 1], [-inf, 0, 1, 1], [5, 5, 5, 9], [9, 5, 5, 9]]
    boxes = np.array([*bad, [0, 0, 4, 4]], np.float32)
    found = Detections(boxes, np.linspace(0.9, 0.5, 6, dtype=np.float32), np.zeros(6, np.int64))
    np.testing.assert_array_equal(flavour(found, 0.5, 10).boxes, boxes[-1:])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ten_thousand_boxes_are_as_good_as_their_best(flavour: Flavour) -> None:
    found = crowd(10_000, seed=3)
    order = np.argsort(-found.scores, kind="stable")[:MOST_BOXES]
    kept, best = flavour(found, 0.5, 100), flavour(found[order], 0.5, 100)
    np.testing.assert_array_equal(kept.boxes, best.boxes)
    assert len(kept) == 100


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ten_thousand_equal_boxes_leave_one_that_counts(flavour: Flavour) -> None:
    boxes = np.tile(np.array([[10, 10, 50, 50]], np.float32), (10_000, 1))
    found = Detections(boxes, np.full(10_000, 0.8, np.float32), np.zeros(10_000, np.int64))
    kept = flavour(found, 0.5, 100)
    assert (kept.scores > 0.1).sum() == 1


def test_suppression_leaves_its_argument_alone() -> None:
    found = crowd(50, seed=4)
    before = found.boxes.copy(), found.scores.copy()
    for flavour in FLAVOURS:
        flavour(found, 0.5, 100)
    np.testing.assert_array_equal(found.boxes, before[0])
    np.testing.assert_array_equal(found.scores, before[1])


def test_overlaps_agrees_with_one_pair_at_a_time() -> None:
    boxes = crowd(100, seed=8).boxes
    expected = [iou_of(boxes[0], box) for box in boxes]
    np.testing.assert_allclose(overlaps(boxes[0], boxes), expected, atol=1e-12)


def test_a_merged_box_carries_the_mask_of_the_best_that_went_in() -> None:
    boxes = np.array([[50, 50, 60, 60], [1, 0, 11, 10], [0, 0, 10, 10]], np.float32)
    masks = np.arange(3, dtype=np.float32)[:, None, None] * np.full((1, 2, 2), 0.5, np.float32)
    scores = np.array([0.7, 0.6, 0.65], np.float32)
    merged = greedy_merge(Detections(boxes, scores, np.zeros(3, np.int64), masks), 0.5, 10)
    assert merged.masks is not None
    np.testing.assert_array_equal(merged.masks, masks[[2, 0]])
