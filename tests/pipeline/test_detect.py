"""From the engine's arrays to detections in pixels of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.detect import OwnThresholds, Shown, detect, low_threshold
from pipeline.errors import ConfigError, ModelMismatch
from pipeline.frame import Batch, Frame, Result
from pipeline.model_file.reading import ModelFile
from pipeline.placement import Placement
from pipeline.settings import DetectionSettings
from tests.pipeline.frames import blank

INPUT_HW = (100, 200)


def model_file(**changes: Any) -> ModelFile:
    values: dict[str, Any] = {
        "path": Path("m.onnx"),
        "task": "detection",
        "output_form": "candidates",
        "class_names": ("person", "car", "bus"),
        "input_size_hw": INPUT_HW,
        "fit": "letterbox",
        "outputs": ("boxes", "scores", "labels", "exact", "count"),
        "score_threshold": 0.5,
        "nms_iou": 0.5,
        "max_detections": 100,
        "precision_check": None,
    }
    return ModelFile(**values | changes)


@dataclass
class Answered:
    """An answer that is there."""

    outputs: dict[str, np.ndarray]

    def result(self) -> dict[str, np.ndarray]:
        return self.outputs


Row = tuple[Sequence[float], float, int]


def answer(rows: Sequence[Sequence[Row]], frames: Sequence[Frame], slots: int = 8) -> Any:
    """A batch of the frames and the arrays that say `rows` (box, score, class) of each."""
    boxes = np.zeros((len(rows), slots, 4), np.float32)
    scores, labels = np.zeros((len(rows), slots), np.float32), np.zeros((len(rows), slots), int)
    for n, found in enumerate(rows):
        for k, (box, score, label) in enumerate(found):
            boxes[n, k], scores[n, k], labels[n, k] = box, score, label
    placements = tuple(Placement.letterbox(frame.size_hw, INPUT_HW) for frame in frames)
    images = np.zeros((len(frames), *INPUT_HW, 3), np.uint8)
    outputs = {
        "boxes": boxes,
        "scores": scores,
        "labels": labels.astype(np.int64),
        "exact": np.ones(len(rows), bool),
    }
    return Batch(tuple(frames), images, placements), Answered(outputs)


def one(rows: Sequence[Row], frame: Frame | None = None, **settings: Any) -> Result:
    """The result for one frame of the input's own size (200x100)."""
    answers = [answer([rows], [frame or blank(200, 100)])]
    (result,) = detect(answers, model_file(), DetectionSettings(**settings))
    return result


def test_boxes_come_home_to_the_pixels_of_the_frame() -> None:
    # A 400x400 frame lies in columns 50 to 150 of the input, four times smaller.
    result = one([((60, 10, 80, 30), 0.9, 1)], blank(400, 400))
    np.testing.assert_allclose(result.detections.boxes, [[40, 40, 120, 120]], atol=1e-4)
    assert result.detections.class_ids.tolist() == [1]
    assert result.detections.scores.tolist() == [np.float32(0.9)]


def test_a_box_is_clipped_to_the_frame_and_dropped_when_it_lies_in_a_bar() -> None:
    rows = [((30, 10, 80, 30), 0.9, 1), ((5, 5, 45, 45), 0.8, 1)]
    result = one(rows, blank(400, 400))
    np.testing.assert_allclose(result.detections.boxes, [[0, 40, 120, 120]], atol=1e-4)


def test_the_files_threshold_counts_unless_another_is_given() -> None:
    rows = [((0, 0, 20, 20), 0.6, 1), ((50, 50, 90, 90), 0.3, 1)]
    assert len(one(rows).detections) == 1
    assert len(one(rows, threshold=0.25).detections) == 2
    assert len(one(rows, threshold=0.7).detections) == 0


def test_a_score_equal_to_the_threshold_is_enough() -> None:
    assert len(one([((0, 0, 20, 20), 0.5, 1)]).detections) == 1


def test_empty_slots_are_no_detections_even_at_threshold_zero() -> None:
    assert len(one([((0, 0, 20, 20), 0.6, 1)], threshold=0.0).detections) == 1


def test_a_class_may_have_a_threshold_of_its_own() -> None:
    rows = [((0, 0, 20, 20), 0.6, 0), ((50, 0, 70, 20), 0.6, 1), ((90, 0, 99, 20), 0.2, 2)]
    found = one(rows, class_thresholds={"person": 0.7, "bus": 0.1}).detections
    assert found.class_ids.tolist() == [1, 2]


def test_a_threshold_for_an_unknown_class_names_the_nearest_at_once() -> None:
    settings = DetectionSettings(class_thresholds={"peson": 0.5})
    with pytest.raises(ConfigError, match="did you mean 'person'"):
        detect([], model_file(), settings)  # not iterated
    with pytest.raises(ConfigError, match="did you mean 'person'"):
        Shown(model_file(), settings)


def test_duplicates_are_suppressed_within_their_class() -> None:
    rows = [((0, 0, 20, 20), 0.9, 1), ((1, 0, 21, 20), 0.8, 1), ((0, 1, 20, 21), 0.7, 2)]
    assert one(rows).detections.class_ids.tolist() == [1, 2]
    assert one(rows, nms="class_agnostic").detections.class_ids.tolist() == [1]
    assert len(one(rows, nms_iou=0.95).detections) == 3


def test_soft_suppression_drops_what_falls_below_the_threshold() -> None:
    rows = [((0, 0, 20, 20), 0.9, 1), ((0, 0, 20, 12), 0.8, 1)]  # overlap 0.6 leaves 0.32
    assert len(one(rows, nms="soft").detections) == 1
    found = one(rows, nms="soft", threshold=0.3).detections
    np.testing.assert_allclose(found.scores, [0.9, 0.32], atol=1e-6)


def test_merged_boxes_lie_between_those_that_went_in() -> None:
    rows = [((0, 0, 20, 20), 0.8, 1), ((2, 0, 22, 20), 0.8, 1)]
    found = one(rows, nms="merge").detections
    np.testing.assert_allclose(found.boxes, [[1, 0, 21, 20]], atol=1e-5)
    np.testing.assert_allclose(found.scores, [1 - 0.2 / 1.8], atol=1e-6)


def test_no_more_than_the_most_wanted_come_through_and_those_are_the_best() -> None:
    rows = [((20 * k, 0, 20 * k + 10, 10), 0.6 + 0.04 * k, 1) for k in range(8)]
    found = one(rows, max_detections=3).detections
    np.testing.assert_allclose(found.scores, [0.88, 0.84, 0.8], atol=1e-6)


def test_boxes_with_nan_or_infinite_numbers_are_dropped() -> None:
    nan, inf = float("nan"), float("inf")
    rows = [
        ((nan, 0, 20, 20), 0.9, 1),
        ((0, 0, inf, 20), 0.9, 1),
        ((0, 0, 20, 20), nan, 1),
        ((0, 0, 20, 20), 0.7, 1),
    ]
    assert one(rows).detections.scores.tolist() == [np.float32(0.7)]


def test_boxes_without_area_are_dropped() -> None:
    rows = [((5, 5, 5, 20), 0.9, 1), ((20, 5, 10, 9), 0.9, 1), ((30, 3, 40, 3), 0.8, 0)]
    assert len(one(rows).detections) == 0


def test_a_class_beyond_the_names_is_a_broken_model() -> None:
    with pytest.raises(ModelMismatch, match=r"class 7.*3 classes"):
        one([((0, 0, 20, 20), 0.9, 7)])
    with pytest.raises(ModelMismatch, match="class -1"):
        one([((0, 0, 20, 20), 0.9, -1)])


def test_every_frame_of_a_batch_gets_its_own_row_in_order() -> None:
    frames = [blank(200, 100, index=0), blank(400, 200, index=1), blank(200, 100, "b")]
    rows: list[list[Row]] = [[((0, 0, 20, 20), 0.9, 0)], [((0, 0, 20, 20), 0.8, 1)], []]
    results = list(detect([answer(rows, frames)], model_file(), DetectionSettings()))
    assert [result.frame for result in results] == frames
    assert [result.detections.class_ids.tolist() for result in results] == [[0], [1], []]
    np.testing.assert_allclose(results[1].detections.boxes, [[0, 0, 40, 40]], atol=1e-4)


def test_rows_beyond_the_frames_are_ignored() -> None:
    batch, padded = answer([[((0, 0, 20, 20), 0.9, 0)]] * 4, [blank(200, 100)] * 4)
    short = Batch(batch.frames[:2], batch.images[:2], batch.placements[:2])
    assert len(list(detect([(short, padded)], model_file(), DetectionSettings()))) == 2


def test_the_detections_form_needs_no_suppression_but_its_count() -> None:
    rows = [((0, 0, 20, 20), 0.9, 1), ((1, 0, 21, 20), 0.8, 1), ((2, 0, 22, 20), 0.7, 1)]
    batch, answered = answer([rows], [blank(200, 100)])
    answered.outputs["count"] = np.array([2])
    model = model_file(output_form="detections")
    (result,) = detect([(batch, answered)], model, DetectionSettings())
    assert len(result.detections) == 2  # they overlap, and stay; the third is beyond the count
    (result,) = detect([(batch, answered)], model, DetectionSettings(max_detections=1))
    assert result.detections.scores.tolist() == [np.float32(0.9)]


def test_frames_whose_answer_is_not_certified_are_reported() -> None:
    frames = [blank(200, 100, index=index) for index in range(3)]
    batch, answered = answer([[]] * 3, frames)
    answered.outputs["exact"] = np.array([True, False, True])
    told: list[Frame] = []
    results = detect([(batch, answered)], model_file(), DetectionSettings(), told.append)
    assert len(list(results)) == 3
    assert told == [frames[1]]


def test_showing_after_a_low_threshold_is_the_same_as_thresholding_first() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (60, 2))
    boxes = np.hstack([corner, corner + rng.uniform(10, 40, (60, 2))])
    scores = np.sort(rng.uniform(0, 1, 60))[::-1]
    rows = list(zip(boxes, scores, rng.integers(0, 3, 60), strict=True))
    answers = [answer([rows], [blank(200, 100)], slots=60)]
    settings = DetectionSettings(threshold=0.4, class_thresholds={"bus": 0.7})
    (direct,) = detect(answers, model_file(), settings)
    low = detect(answers, model_file(), low_threshold(settings))
    (shown,) = Shown(model_file(), settings).filter(low)
    np.testing.assert_array_equal(shown.detections.boxes, direct.detections.boxes)
    np.testing.assert_array_equal(shown.detections.scores, direct.detections.scores)
    assert (one([], blank(2, 2)).detections.boxes.shape) == (0, 4)


def test_what_its_own_threshold_hides_takes_nobodys_place() -> None:
    cars: list[Row] = [((30 * k, 0, 30 * k + 20, 20), 0.6, 1) for k in range(5)]
    answers = [answer([[*cars, ((0, 50, 20, 90), 0.55, 0)]], [blank(200, 100)])]
    settings = DetectionSettings(class_thresholds={"car": 0.9}, max_detections=5)
    low = detect(answers, model_file(), low_threshold(settings))
    (shown,) = Shown(model_file(), settings).filter(low)
    assert shown.detections.class_ids.tolist() == [0]


def test_no_more_than_the_most_wanted_are_shown_of_all_that_is_found() -> None:
    rows: list[Row] = [((20 * k, 0, 20 * k + 10, 10), 0.6 + 0.04 * k, 1) for k in range(8)]
    settings = DetectionSettings(max_detections=3)
    low = list(detect([answer([rows], [blank(200, 100)])], model_file(), low_threshold(settings)))
    (shown,) = Shown(model_file(), settings).filter(low)
    assert (len(low[0].detections), len(shown.detections)) == (8, 3)
    np.testing.assert_allclose(shown.detections.scores, [0.88, 0.84, 0.8], atol=1e-6)


def test_a_low_threshold_is_never_above_the_wanted_one() -> None:
    assert low_threshold(DetectionSettings(threshold=0.0)).threshold == 0
    assert low_threshold(DetectionSettings(threshold=0.001)).threshold == 0.001
    assert low_threshold(DetectionSettings(class_thresholds={"car": 0.002})).threshold == 0.002
    assert low_threshold(DetectionSettings(), recommended=0.002).threshold == 0.002
    assert low_threshold(DetectionSettings(threshold=0.3), recommended=0.002).threshold == 0.01
    lowered = low_threshold(DetectionSettings(threshold=0.9, class_thresholds={"car": 0.8}))
    assert lowered.threshold == 0.01
    assert lowered.class_thresholds == {}


def test_thresholds_can_be_changed_while_the_line_runs():
    settings = DetectionSettings(threshold=0.5)
    shown = Shown(model_file(), settings)
    assert set(shown.thresholds.tolist()) == {0.5}
    name = model_file().class_names[1]
    shown.change(0.25, {name: 0.75})
    assert shown.thresholds.tolist()[:2] == [0.25, 0.75]
    with pytest.raises(ConfigError, match="unknown class 'bicicle'"):
        shown.change(None, {"bicicle": 0.5})
    assert shown.thresholds.tolist()[:2] == [0.25, 0.75], "a refused change changes nothing"


def test_one_source_can_have_thresholds_of_its_own():
    names = model_file().class_names
    shown = Shown(model_file(), DetectionSettings(threshold=0.5, class_thresholds={names[1]: 0.7}))
    there = {"door", "yard"}

    def lowest(source: str) -> list[float]:
        return [round(value, 2) for value in shown.thresholds_for(source).tolist()[:2]]

    shown.change_of("door", OwnThresholds(0.25), there)
    assert (lowest("door"), lowest("yard")) == ([0.25, 0.7], [0.5, 0.7])
    shown.change_of("door", OwnThresholds(0.25, {names[0]: 0.1}), there)
    assert lowest("door") == [0.1, 0.25], "its classes replace those of the line"
    shown.change(0.6, {names[1]: 0.9})
    assert (lowest("door"), lowest("yard")) == ([0.1, 0.25], [0.6, 0.9])
    shown.change_of("door", OwnThresholds(None, {}), there)
    assert lowest("door") == [0.6, 0.6]
    shown.change(0.4, {})
    assert lowest("door") == [0.4, 0.4], "what it has not of its own follows the line"
    with pytest.raises(ConfigError, match="unknown class 'bicicle'"):
        shown.change_of("door", OwnThresholds(0.9, {"bicicle": 0.5}), there)
    assert shown.own("door") == OwnThresholds(None, {}), "a refused change changes nothing"
    shown.change_of("door", OwnThresholds(0.9), there)
    shown.change_of("yard", OwnThresholds(), {"yard"})
    assert shown.own("door") == OwnThresholds(), "nothing is kept of what has left"
    assert lowest("door") == lowest("yard") == [0.4, 0.4]


def test_results_are_filtered_by_the_thresholds_of_their_source():
    rows = [((0, 0, 20, 20), 0.9, 1), ((30, 0, 50, 20), 0.4, 1)]
    low = one(rows, threshold=0.01)
    shown = Shown(model_file(), DetectionSettings(threshold=0.5))
    others = replace(low, frame=replace(low.frame, source="another"))
    shown.change_of(low.frame.source, OwnThresholds(0.3), {low.frame.source})
    assert [len(each.detections) for each in shown.filter([low, others])] == [2, 1]
