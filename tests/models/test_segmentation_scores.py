"""mIoU and its company, against loops over pixels."""

import numpy as np
import pytest

from models.judging.segmentation_scores import (
    confusion,
    evaluate_segmentation,
    figures_of,
    miou_of_labelled,
)
from models.network import IGNORED
from tests.models.test_mask_batches import Drawn, landscape

NAMES = ("a", "b", "c", "d")


def by_loops(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> tuple[float, float]:
    """mIoU and pixel accuracy, pixel by pixel."""
    right = known = 0
    inter, union = [0] * classes, [0] * classes
    for truth, found in pairs:
        for t, f in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
            if t == IGNORED:
                continue
            known += 1
            right += t == f
            for c in range(classes):
                inter[c] += t == c and f == c
                union[c] += t == c or f == c
    ious = [i / u for i, u in zip(inter, union, strict=True) if u]
    return sum(ious) / len(ious), right / known


def random_pairs(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of odd sizes; class 3 never occurs and is never found."""
    rng = np.random.default_rng(seed)
    pairs = []
    for size in ((7, 13), (31, 5), (1, 1)):
        truth = rng.integers(0, 3, size).astype(np.uint8)
        found = np.where(rng.random(size) < 0.6, truth, rng.integers(0, 3, size)).astype(np.uint8)
        truth[rng.random(size) < 0.1] = IGNORED
        pairs.append((truth, found))
    return pairs


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_the_loop_version(seed):
    pairs = random_pairs(seed)
    scores = figures_of(sum(confusion(t, f, 4) for t, f in pairs), NAMES)
    miou, accuracy = by_loops(pairs, 4)
    assert scores["mIoU"] == pytest.approx(miou)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy)
    assert scores["classes"]["d"] == {"IoU": -1.0, "accuracy": -1.0, "pixels": 0}


def test_rows_are_truth_and_columns_what_was_found():
    table = confusion(np.array([[0, 1, 1, IGNORED]]), np.array([[0, 2, 9, 1]]), 3)
    assert table.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_a_class_that_is_found_where_it_never_is_counts_as_zero():
    scores = figures_of(
        confusion(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]]), 2), ("a", "b")
    )
    assert scores["classes"]["a"]["IoU"] == 0.75 and scores["classes"]["b"]["IoU"] == 0.0
    assert scores["mIoU"] == 0.375 and scores["mean_accuracy"] == 0.75


def test_pictures_of_which_nothing_is_known_change_nothing():
    nothing = confusion(np.full((5, 5), IGNORED, np.uint8), np.zeros((5, 5), np.uint8), 3)
    assert nothing.sum() == 0 and figures_of(nothing, NAMES[:3])["mIoU"] == 0.0


def test_all_pictures_count_together_and_not_one_by_one():
    entries = [Drawn(*landscape(i, (30 + i, 41))) for i in range(3)]

    class LooksAtColours:
        class_names = NAMES[:3]

        def segment(self, image: np.ndarray) -> np.ndarray:
            found = image.argmax(2).astype(np.uint8)
            found[:10] = 0  # and cannot see the top
            return found

    judge = LooksAtColours()
    scores = evaluate_segmentation(judge, entries)
    miou, accuracy = by_loops([(e.labels, judge.segment(e.image)) for e in entries], 3)
    assert scores["mIoU"] == pytest.approx(miou)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy) and 0.4 < accuracy < 1


def test_a_stray_pixel_in_a_class_that_no_set_labels_does_not_decide_between_two_models():
    truth = np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 1
    right, stray = truth.copy(), truth.copy()
    stray[0, 0] = 2
    plain, other = (figures_of(confusion(truth, found, 3), NAMES[:3]) for found in (right, stray))
    assert plain["mIoU"] == 1 and other["mIoU"] < 0.67
    assert miou_of_labelled(plain) == 1
    assert miou_of_labelled(other) == pytest.approx((0.98 + 1) / 2)
    nothing = figures_of(np.zeros((3, 4), np.int64), NAMES[:3])
    assert miou_of_labelled(nothing) == 0
