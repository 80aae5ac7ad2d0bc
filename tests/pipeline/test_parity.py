"""How far two answers are apart, and how far they may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines.parity import (
    BY_CPU,
    Parity,
    bounds_by_cpu,
    by_cpu,
    compare,
    golden_input,
)
from pipeline.model_file.reading import ModelFile, read_model_file
from tests.pipeline.model_files import write_model
from tests.pipeline.task_files import REGIONS, write_instance, write_regional, write_semantic

STREET = Path(__file__).parents[2] / "models" / "zoo" / "street.onnx"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


def answer(boxes: list[list[float]], scores: list[float], labels: list[int]) -> dict:
    """Of one image."""
    return {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "labels": np.array([labels], np.int64),
    }


CAR, BUS = [10.0, 10.0, 50.0, 40.0], [60.0, 10.0, 90.0, 60.0]
WANTED = answer([CAR, BUS], [0.9, 0.6], [1, 2])


@pytest.mark.parametrize(
    ("found", "iou", "score", "unmatched", "passes"),
    [
        (WANTED, 1.0, 0.0, 0, True),
        (answer([CAR, BUS], [0.915, 0.6], [1, 2]), 1.0, 0.015, 0, True),
        (answer([CAR, BUS], [0.93, 0.6], [1, 2]), 1.0, 0.03, 0, False),
        (answer([[11.0, 10, 50, 40], BUS], [0.9, 0.6], [1, 2]), 0.975, 0.0, 0, True),
        (answer([[15.0, 10, 50, 40], BUS], [0.9, 0.6], [1, 2]), 0.875, 0.0, 0, False),
        (answer([CAR, BUS], [0.9, 0.6], [1, 0]), 1.0, 0.0, 2, False),  # another class
        (answer([CAR, BUS], [0.9, 0.1], [1, 2]), 1.0, 0.0, 1, False),  # one lost
        (answer([CAR, BUS, BUS], [0.9, 0.6, 0.7], [1, 2, 0]), 1.0, 0.0, 1, False),  # one more
        (answer([CAR, BUS], [np.nan, 0.6], [1, 2]), 1.0, 0.0, 1, False),
        (answer([[np.nan] * 4, BUS], [0.9, 0.6], [1, 2]), 0.0, 0.0, 0, False),
    ],
)
def test_boxes_must_overlap_and_scores_be_alike(
    model: ModelFile, found: dict, iou: float, score: float, unmatched: int, passes: bool
) -> None:
    parity = compare(model, WANTED, found, BY_CPU)
    assert parity.lowest_iou == pytest.approx(iou, abs=1e-4)
    assert parity.score_difference == pytest.approx(score, abs=1e-4)
    assert parity.unmatched == unmatched
    assert parity.within(BY_CPU) is passes


@pytest.mark.parametrize(("apart", "passes"), [(0, True), (1, True), (2, False), (20, False)])
def test_of_an_int8_file_one_box_in_ten_may_be_further_apart(
    model: ModelFile, apart: int, passes: bool
) -> None:
    boxes = [[60.0 * i, 10.0, 60.0 * i + 40, 50.0] for i in range(20)]
    moved = [
        [x1 + (20 if i < apart else 2), y1, x2, y2] for i, (x1, y1, x2, y2) in enumerate(boxes)
    ]
    scores, labels = [0.9] * 20, [1] * 20
    bounds = bounds_by_cpu(replace(model, arithmetic="int8"))
    found = answer(moved, [0.83] * 20, labels)
    parity = compare(model, answer(boxes, scores, labels), found, bounds)
    assert parity.compared == 40 and parity.beyond == 2 * apart
    assert parity.within(bounds) is passes
    assert not parity.within(bounds_by_cpu(model))  # scores 0.07 apart are too much elsewhere


def test_of_two_boxes_of_one_object_either_may_win(model: ModelFile) -> None:
    beside = [14.0, 10.0, 54.0, 40.0]
    one = answer([CAR, beside], [0.801, 0.8], [1, 1])
    other = answer([CAR, beside], [0.8, 0.801], [1, 1])
    parity = compare(model, one, other, BY_CPU)
    assert parity.lowest_iou == 1
    assert parity.within(BY_CPU)


def test_what_nobody_is_sure_of_does_not_count(model: ModelFile) -> None:
    parity = compare(model, answer([CAR], [0.2], [1]), answer([BUS], [0.28], [2]), BY_CPU)
    assert (parity.compared, parity.within(BY_CPU)) == (0, True)
    assert "neither finds anything" in str(parity)


def test_a_detection_near_the_threshold_may_fall_below_it(model: ModelFile) -> None:
    parity = compare(model, answer([CAR], [0.301], [1]), answer([CAR], [0.29], [1]), BY_CPU)
    assert (parity.compared, parity.unmatched) == (1, 0)


def test_masks_must_be_alike(tmp_path: Path) -> None:
    model = read_model_file(write_instance(tmp_path / "m.onnx"))
    masks = np.ones((1, 2, 28, 28), np.float32)
    half = masks.copy()
    half[0, 0, :14] = 0
    parity = compare(model, WANTED | {"masks": masks}, WANTED | {"masks": half}, BY_CPU)
    assert parity.mask_difference == 0.5
    assert not parity.within(BY_CPU)


def test_of_a_semantic_model_the_pixels_are_compared(tmp_path: Path) -> None:
    model = read_model_file(write_semantic(tmp_path / "m.onnx"))
    classes = np.zeros((1, 10, 100), np.uint8)
    few, many = classes.copy(), classes.copy()
    few[0, 0, :5] = 1
    many[0, 0, :50] = 1
    near = compare(model, {"classes": classes}, {"classes": few}, BY_CPU)
    assert str(near) == "99.50% of the pixels alike"
    assert near.within(BY_CPU)
    far = compare(model, {"classes": classes}, {"classes": many}, BY_CPU)
    assert not far.within(BY_CPU)
    assert not near.worst(far).within(BY_CPU)
    assert not Parity().worst(far).within(BY_CPU)


def test_the_golden_input_is_the_same_every_time_and_has_what_the_model_takes(
    tmp_path: Path,
) -> None:
    regional = read_model_file(write_regional(tmp_path / "m.onnx"))
    one, other = (golden_input(regional, (32, 48)) for _ in range(2))
    assert one.images.shape == (2, 32, 48, 3)
    assert one.regions is not None
    assert one.regions.shape == (2, REGIONS, 4)
    assert (one.regions[..., 2:] > one.regions[..., :2]).all()
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.regions, other.regions)
    repeated = one.repeated(5)
    np.testing.assert_array_equal(repeated.images[4], one.images[0])


def test_the_bundled_model_finds_something_in_the_golden_input() -> None:
    """Else its plans would pass whatever they answer."""
    street = read_model_file(STREET)
    for size_hw in street.input_sizes_hw:
        golden = golden_input(street, size_hw)
        outputs, judge = by_cpu(street, size_hw, golden)
        assert judge == "onnxruntime"
        parity = compare(street, outputs, outputs, BY_CPU)
        assert parity.compared >= 10
        assert parity.within(BY_CPU)
        worse = outputs | {"boxes": outputs["boxes"] * np.float32(1.05)}
        assert not compare(street, outputs, worse, BY_CPU).within(BY_CPU)
