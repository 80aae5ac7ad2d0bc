"""Privacy blur: what is hidden, how well, for how long, and in which pictures."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import run_stream
from pipeline.detect import OwnThresholds, Shown, detect, thresholds_by_class
from pipeline.drawing.blur import (
    BLOCKS,
    FORGOTTEN_SECONDS,
    LAYERS,
    SMALLEST_BLOCK_PIXELS,
    _Memory,
    blurred_classes,
    conceal,
    covered,
    detect_also_blurred,
    grow,
    pixelate,
    united,
)
from pipeline.drawing.render import render
from pipeline.errors import ConfigError
from pipeline.frame import Detections, Frame, Result
from pipeline.model_file.reading import ModelFile
from pipeline.settings import DetectionSettings, RenderSettings
from pipeline.yuv import own_yuv420p, planes
from tests.pipeline.frames import blank, frame_of
from tests.pipeline.test_detect import Row, answer

NAMES = ("person", "bicycle", "car")
BLUR = RenderSettings(blur=("person",), blur_threshold=0.1, blur_frames=0)
ONLY_BLUR = replace(BLUR, enabled=False)
DETECTION = DetectionSettings(threshold=0.5)


@pytest.fixture
def model() -> ModelFile:
    """A model file, as far as class names and thresholds go."""
    return ModelFile(
        path=Path("m.onnx"),
        task="detection",
        output_form="candidates",
        class_names=NAMES,
        input_size_hw=(64, 64),
        fit="letterbox",
        outputs=("boxes", "scores", "labels"),
        score_threshold=0.5,
        nms_iou=0.5,
        max_detections=100,
        precision_check=None,
    )


def found(*rows: tuple[float, ...]) -> Detections:
    """Detections from rows of x1, y1, x2, y2, score, class id."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def noise(width: int = 320, height: int = 180, seed: int = 0) -> av.VideoFrame:
    """A picture in which every pixel tells something."""
    picture, random = av.VideoFrame(width, height, "yuv420p"), np.random.default_rng(seed)
    for plane in planes(picture):
        plane[:] = random.integers(0, 256, plane.shape)
    return picture


def blurred(picture: av.VideoFrame, *rows: tuple[float, ...]) -> list[np.ndarray]:
    copy = own_yuv420p(picture)
    pixelate(planes(copy), boxes(*rows))
    return [plane.copy() for plane in planes(copy)]


# How it looks


def mosaic_slowly(area: np.ndarray, across: int, down: int) -> np.ndarray:
    """The slow twin: block by block, the mean of its pixels."""
    height, width = area.shape
    out = area.copy()
    for row in range(down):
        for column in range(across):
            top, bottom = row * height // down, (row + 1) * height // down
            left, right = column * width // across, (column + 1) * width // across
            block = area[top:bottom, left:right].astype(int)
            out[top:bottom, left:right] = (block.sum() + block.size // 2) // block.size
    return out


@given(
    st.integers(0, 150).map(lambda n: 2 * n),
    st.integers(0, 80).map(lambda n: 2 * n),
    st.integers(1, 100).map(lambda n: 2 * n),
    st.integers(1, 100).map(lambda n: 2 * n),
)
def test_a_box_becomes_blocks_of_its_mean_and_the_rest_stays(x, y, wide, high) -> None:
    picture, right, bottom = noise(), min(320, x + wide), min(180, y + high)
    block = max(SMALLEST_BLOCK_PIXELS, max(right - x, bottom - y) / BLOCKS)
    across, down = max(1, int((right - x) / block)), max(1, int((bottom - y) / block))
    after = blurred(picture, (x, y, x + wide, y + high))
    for plane, seen, step in zip(planes(picture), after, (1, 2, 2), strict=True):
        expected = plane.copy()
        area = np.s_[y // step : bottom // step, x // step : right // step]
        expected[area] = mosaic_slowly(plane[area], across, down)
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("high", [16, 40, 100, 300, 1000])
def test_a_person_is_left_with_too_few_blocks_to_be_recognised(high: int) -> None:
    """At most 8 blocks from head to foot: a head is an eighth of that."""
    before, after = noise(600, 1080), blurred(noise(600, 1080), (20, 20, 20 + high / 2, 20 + high))
    luma = after[0][20 : 20 + high, 20 : 20 + high // 2]
    assert not (luma == planes(before)[0][20 : 20 + high, 20 : 20 + high // 2]).all()
    assert (np.diff(luma.astype(int), axis=0) != 0).any(axis=1).sum() <= BLOCKS - 1
    assert (np.diff(luma.astype(int), axis=1) != 0).any(axis=0).sum() <= BLOCKS - 1
    steps = np.flatnonzero((np.diff(luma.astype(int), axis=0) != 0).any(axis=1))
    assert len(steps) == 0 or np.diff([0, *(steps + 1), high]).min() >= SMALLEST_BLOCK_PIXELS


def test_two_pictures_that_differ_only_within_blocks_become_the_same() -> None:
    first, second = noise(64, 64), noise(64, 64)
    for plane, side in zip(planes(second), (8, 4, 4), strict=True):  # 64 pixels make 8 blocks of 8
        for y in range(0, plane.shape[0], side):
            for x in range(0, plane.shape[1], side):
                plane[y : y + side, x : x + side] = plane[y : y + side, x : x + side][::-1, ::-1]
    assert (planes(first)[0] != planes(second)[0]).any()
    whole = (0, 0, 64, 64)
    for a, b in zip(blurred(first, whole), blurred(second, whole), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [(2, 2), (2, 200), (318, 178)])
def test_boxes_of_any_kind_hide_at_least_what_they_hold(size: tuple[int, int]) -> None:
    width, height = size
    random = np.random.default_rng(1)
    for row in random.uniform(-30, 350, (50, 4)).tolist():
        x1, y1, x2, y2 = row
        after = blurred(noise(width, height), tuple(row))
        if x1 < x2 and y1 < y2:
            left, top = max(0, int(x1)), max(0, int(y1))
            right, bottom = min(width, int(np.ceil(x2))), min(height, int(np.ceil(y2)))
            luma = after[0][top:bottom, left:right]
            assert len(np.unique(luma)) <= BLOCKS * BLOCKS
    whole = blurred(noise(width, height), (-np.inf, -np.inf, np.inf, np.inf))
    assert len(np.unique(whole[0])) <= BLOCKS * BLOCKS


def test_empty_boxes_and_those_outside_change_nothing() -> None:
    picture = noise()
    after = blurred(
        picture, (5, 5, 5, 9), (9, 9, 5, 5), (-9, -9, -1, -1), (400, 0, 500, 9), (np.nan, 0, 0, 9)
    )
    for a, b in zip(after, planes(picture), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_box_at_the_edge_hides_the_column_that_pads_an_odd_picture() -> None:
    after = blurred(noise(319, 179), (200, 100, 319, 179))
    assert after[0].shape == (180, 320)
    np.testing.assert_array_equal(after[0][100:, 319], after[0][100:, 318])
    assert len(np.unique(after[0][100:, 200:])) <= BLOCKS * BLOCKS


# What is hidden


def test_what_is_blurred_lies_below_what_is_shown(model) -> None:
    everything = found(
        (10, 10, 50, 90, 0.9, 0), (60, 10, 90, 90, 0.2, 0), (100, 10, 140, 90, 0.05, 0),
        (150, 10, 190, 90, 0.9, 2),
    )  # fmt: skip  # a table
    shown = Shown(model, DETECTION)
    (hidden,) = conceal([Result(blank(320, 180), everything)], model, shown, BLUR)
    np.testing.assert_array_equal(hidden.private, grow(everything.boxes[:2]))
    (seen,) = shown.filter([hidden])
    assert seen.detections.scores.tolist() == pytest.approx([0.9, 0.9])
    np.testing.assert_array_equal(seen.private, hidden.private)


def test_what_is_shown_is_always_blurred_even_if_that_changes_on_the_way(model) -> None:
    faint = Result(blank(320, 180), found((10, 10, 50, 90, 0.05, 0)))
    shown = Shown(model, DETECTION)
    concealed = conceal([faint, faint], model, shown, BLUR)
    assert len(next(concealed).private) == 0
    shown.change(0.5, {"person": 0.03})
    assert len(next(concealed).private) == 1


def test_what_is_shown_of_one_source_alone_is_blurred_there(model) -> None:
    faint = Result(blank(320, 180), found((10, 10, 50, 90, 0.05, 0)))
    other = Result(replace(faint.frame, source="another"), faint.detections)
    shown = Shown(model, DETECTION)
    shown.change_of("another", OwnThresholds(0.03), {"another"})
    assert [len(each.private) for each in conceal([faint, other], model, shown, BLUR)] == [0, 1]


def test_all_classes_can_be_blurred_with_one_word(model) -> None:
    assert blurred_classes(replace(BLUR, blur=("all",)), model).all()
    assert blurred_classes(BLUR, model).tolist() == [True, False, False]


def test_the_detector_is_asked_for_what_is_blurred_and_for_nothing_else(model) -> None:
    mixed = DetectionSettings(threshold=0.5, class_thresholds={"car": 0.3, "person": 0.6})
    asked = detect_also_blurred(mixed, BLUR, model)
    assert thresholds_by_class(model, asked).tolist() == pytest.approx([0.1, 0.5, 0.3])
    assert detect_also_blurred(mixed, RenderSettings(), model) is mixed


def test_nobody_stays_readable_because_few_are_shown(model) -> None:
    people: list[Row] = [((20 * i, 10, 20 * i + 12, 60), 0.9 - 0.02 * i, 0) for i in range(8)]
    few = replace(DETECTION, max_detections=3)
    seen, hidden = shown_and_hidden(people, few, model)
    assert (len(seen), len(hidden)) == (3, 8)
    assert seen.scores.tolist() == pytest.approx([0.9, 0.88, 0.86])


def test_nobody_stays_readable_under_something_of_another_class(model) -> None:
    rider: list[Row] = [((50, 10, 90, 90), 0.9, 1), ((51, 11, 91, 91), 0.8, 0)]
    seen, hidden = shown_and_hidden(rider, replace(DETECTION, nms="class_agnostic"), model)
    assert seen.class_ids.tolist() == [1]
    assert len(hidden) == 1


def shown_and_hidden(
    rows: list[Row], settings: DetectionSettings, model: ModelFile
) -> tuple[Detections, np.ndarray]:
    """What the whole line shows and blurs of one frame in which `rows` are found."""
    answers = [answer([rows], [blank(200, 100)])]
    results = detect(answers, model, detect_also_blurred(settings, BLUR, model))
    shown = Shown(model, settings)
    (result,) = shown.filter(conceal(results, model, shown, BLUR))
    assert result.private is not None
    return result.detections, result.private


def test_an_unknown_class_is_refused_before_the_first_frame(model) -> None:
    with pytest.raises(ConfigError, match=r"render\.blur: unknown class 'persn'.*'person'.*all"):
        conceal([], model, Shown(model, DETECTION), replace(BLUR, blur=("persn",)))


def test_without_a_wish_nothing_is_hidden(model) -> None:
    result = Result(blank(320, 180), found((10, 10, 50, 90, 0.9, 0)))
    unchanged = conceal([result], model, Shown(model, DETECTION), RenderSettings())
    assert list(unchanged) == [result]
    assert result.private is None


# For how long


def at(index: int, source: str = "a", **changes: object) -> Frame:
    return replace(blank(320, 180, source, index), arrival=index / 25, **changes)


def test_a_box_stays_hidden_for_as_many_frames_as_asked_and_no_longer(model) -> None:
    box = found((10, 10, 50, 90, 0.9, 0))
    results = [Result(at(0), box), *(Result(at(i), Detections.none()) for i in range(1, 6))]
    three = replace(BLUR, blur_frames=3)
    concealed = conceal(results, model, Shown(model, DETECTION), three)
    assert [len(result.private) for result in concealed] == [1, 1, 1, 1, 0, 0]


def test_a_box_that_hides_an_earlier_one_replaces_it() -> None:
    memory = _Memory(3)
    memory.with_recent(at(0), boxes((10, 10, 50, 90)))
    assert len(memory.with_recent(at(1), boxes((12, 11, 52, 91)))) == 1
    assert len(memory.with_recent(at(2), boxes((40, 10, 80, 90)))) == 2  # it went on


@given(
    st.lists(
        st.lists(st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2), max_size=4),
        max_size=8,
    ),
    st.integers(0, 3),
)
def test_whatever_was_found_lately_is_hidden_now(frames, hold) -> None:
    memory = _Memory(hold)
    history: list[np.ndarray] = []
    for index, rows in enumerate(frames):
        history.append(boxes(*((x, y, x + w, y + h) for x, y, w, h in rows)))
        private = memory.with_recent(at(index), history[-1])
        for earlier in history[-1 - hold :]:
            assert covered(earlier, private).all()


def walking(people: int, frames: int) -> Iterator[np.ndarray]:
    """Boxes of people who walk to and fro in 1920x1080, frame by frame."""
    random = np.random.default_rng(0)
    place, most = random.uniform(0, 1, (people, 2)), np.array([1800, 850])
    step = random.normal(0, 8, (people, 2)) / most
    for _ in range(frames):
        place += step
        step[(place < 0) | (place > 1)] *= -1
        corner = place * most
        yield np.hstack([corner, corner + np.array([70, 200])]).astype(np.float32)


@pytest.mark.parametrize("hold", [3, 16, 25, 100, 250])
def test_however_long_boxes_are_remembered_all_are_hidden_by_few(hold: int) -> None:
    people, memory = 10, _Memory(hold)
    history = list(walking(people, hold + 60))
    for index, found_now in enumerate(history):
        private = memory.with_recent(at(index), found_now)
        assert len(private) <= people * (LAYERS + 2)
        if index % 13 == 0:
            recent = np.concatenate(history[max(0, index - hold) : index + 1])
            assert covered(recent, private).all()


@pytest.mark.parametrize("hold", [0, 1, 16, 17, 100, 1000])
def test_a_box_is_hidden_no_more_than_an_eighth_longer_than_asked_for(hold: int) -> None:
    memory = _Memory(hold)
    counts = [len(memory.with_recent(at(0), boxes((10, 10, 50, 90))))]
    counts += [len(memory.with_recent(at(n), boxes())) for n in range(1, hold + hold // 8 + 3)]
    assert hold + 1 <= sum(counts) <= hold + 1 + hold // 8


def test_boxes_are_united_only_where_little_is_hidden_for_nothing() -> None:
    walker = united(boxes((10, 10, 50, 90)), boxes((14, 11, 54, 91)))
    assert walker.tolist() == [[10, 10, 54, 91]]
    apart = united(boxes((10, 10, 50, 90)), boxes((200, 100, 240, 180)))
    assert apart.tolist() == [[10, 10, 50, 90], [200, 100, 240, 180]]
    assert united(boxes(), boxes((1, 2, 3, 4), (1, 2, 3, 4))).tolist() == [[1, 2, 3, 4]]
    first = boxes((10, 10, 50, 90))
    united(first, boxes((10, 10, 60, 90)))
    assert first.tolist() == [[10, 10, 50, 90]], "what was given is left alone"


def test_sources_remember_their_own_boxes_only() -> None:
    memory = _Memory(3)
    memory.with_recent(at(0, "front"), boxes((10, 10, 50, 90)))
    assert len(memory.with_recent(at(1, "rear"), boxes())) == 0
    assert len(memory.with_recent(at(1, "front"), boxes())) == 1


def test_a_new_connection_or_another_size_starts_afresh() -> None:
    memory = _Memory(3)
    memory.with_recent(at(0), boxes((10, 10, 50, 90)))
    assert len(memory.with_recent(at(1, generation=1), boxes())) == 0
    memory.with_recent(at(2, generation=1), boxes((10, 10, 50, 90)))
    larger = replace(blank(640, 360), generation=1)
    assert len(memory.with_recent(larger, boxes())) == 0


def test_sources_that_come_and_go_leave_nothing_behind() -> None:
    memory = _Memory(3)
    for index in range(1000):
        frame = replace(at(0, f"camera {index}"), arrival=index * FORGOTTEN_SECONDS)
        memory.with_recent(frame, boxes((10, 10, 50, 90)))
    gc.collect()
    assert len(memory._sources) <= 2


# In which pictures


def rendered(settings: RenderSettings, private: np.ndarray | None) -> Result:
    frame = frame_of(noise())
    detections = found((100, 40, 200, 120, 0.9, 0))
    (result,) = render([Result(frame, detections, private=private)], NAMES, settings)
    return result


def test_pictures_are_blurred_also_when_nothing_is_drawn() -> None:
    private = boxes((100, 40, 200, 120))
    result = rendered(ONLY_BLUR, private)
    for seen, expected in zip(
        planes(result.annotated), blurred(noise(), *private.tolist()), strict=True
    ):
        np.testing.assert_array_equal(seen, expected)
    assert (result.annotated.pts, result.annotated.time_base) == (0, Fraction(1, 25))


def test_boxes_are_drawn_over_what_is_blurred() -> None:
    private = boxes((100, 40, 200, 120))
    luma = planes(rendered(replace(BLUR, labels=False, scores=False), private).annotated)[0]
    hidden = blurred(noise(), *private.tolist())[0]
    np.testing.assert_array_equal(luma[44:116, 104:196], hidden[44:116, 104:196])
    assert (luma[38:40, 98:202] == luma[38, 98]).all()  # the outline around it


def test_a_frame_in_which_nothing_is_private_is_not_copied_for_nothing() -> None:
    assert rendered(ONLY_BLUR, boxes()).annotated is None
    assert rendered(ONLY_BLUR, None).annotated is None


def test_the_decoders_picture_is_left_alone() -> None:
    frame = frame_of(noise())
    before = [plane.copy() for plane in planes(frame.picture)]
    result = Result(frame, Detections.none(), private=boxes((0, 0, 320, 180)))
    list(render([result], NAMES, ONLY_BLUR))
    for a, b in zip(planes(frame.picture), before, strict=True):
        np.testing.assert_array_equal(a, b)


def detail(picture: np.ndarray, box: list[float]) -> float:
    """Mean difference of neighbouring pixels inside a box: what there is to be read."""
    x1, y1, x2, y2 = map(round, box)
    inside = picture[y1:y2, x1:x2].astype(int)
    return float(np.abs(np.diff(inside, axis=0)).mean() + np.abs(np.diff(inside, axis=1)).mean())


def test_the_whole_line_blurs_what_it_finds_and_counts_it_in_zones(tmp_path: Path) -> None:
    source = "synthetic://street?seed=3&size=640x360&fps=25&seconds=0.2"
    zone = "zones.all={polygon: [[0, 0], [1, 0], [1, 1], [0, 1]], classes: [car, bus]}"
    for name, blur in (("clear", "[]"), ("hidden", "[car]")):
        out = [f"{tmp_path / name}/", str(tmp_path / f"{name}.jsonl")]
        words = ["--no-draw", "--quiet", "--set", f"render.blur={blur}", zone]
        report = str(tmp_path / "report.json")
        assert run_stream.main([source, "--out", *out, *words, "--report", report]) == 0
    for line in map(json.loads, (tmp_path / "hidden.jsonl").read_text().splitlines()):
        cars = [found["box"] for found in line["detections"] if found["label"] == "car"]
        assert cars and line["zones"]["all"]["car"] == len(cars) and "bus" in line["zones"]["all"]
        clear, hidden = (
            cv2.imread(str(tmp_path / name / f"{line['frame']:06d}.jpg"))
            for name in ("clear", "hidden")
        )
        for box in cars:
            assert detail(hidden, box) < 0.7 * detail(clear, box)
