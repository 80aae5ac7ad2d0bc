"""When two detectors, or two segmenters, agree."""

from __future__ import annotations

import numpy as np
import pytest

from models.judging.found import Found
from models.quantization.agreement import Agreement, objects_agree, pixels_agree

FRAME = np.zeros((8, 8, 3), np.uint8)


class Says:
    """Finds, or segments, the same in every picture."""

    class_names = ("a", "b")

    def __init__(self, answer):
        self.answer = answer

    def detect(self, image):
        return self.answer

    def segment(self, image):
        return self.answer


def found(*rows: tuple[float, int, float]) -> Found:
    """Boxes of 10 by 10 at an x, with class and score."""
    boxes = np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4)
    return Found(
        boxes, np.array([s for *_, s in rows], np.float32), np.array([c for _, c, _ in rows])
    )


@pytest.mark.parametrize(
    ("other", "matched"),
    [
        (found((0, 1, 0.9)), 1),
        (found((0.4, 1, 0.885)), 1),
        (found((1, 1, 0.9)), 0),  # IoU 9 / 11
        (found((0, 0, 0.9)), 0),
        (found((0, 1, 0.87)), 0),
        (found(), 0),
    ],
)
def test_label_place_and_score_must_be_those_of_the_original(other, matched):
    agreement = objects_agree(Says(found((0, 1, 0.9))), Says(other), [FRAME], sure=0.5)
    assert agreement == Agreement(compared=1, matched=matched)


def test_one_detection_answers_for_one_only():
    twice = Says(found((0, 1, 0.9), (0.1, 1, 0.9)))
    assert objects_agree(twice, Says(found((0, 1, 0.9))), [FRAME], 0.5) == Agreement(2, 1)


def test_what_the_original_is_not_sure_of_does_not_count():
    agreement = objects_agree(Says(found((0, 1, 0.4))), Says(found()), [FRAME], 0.5)
    assert agreement == Agreement(0, 0) and agreement.share == 1.0


def test_pixels_agree_where_their_class_is_the_same():
    one, other = np.zeros((2, 5), np.uint8), np.zeros((2, 5), np.uint8)
    other[0, :2] = 1
    assert pixels_agree(Says(one), Says(other), [FRAME]).share == pytest.approx(0.8)
