"""Where a frame lies in the network's input: forth and back, over thousands of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.frame import Placement

sides = st.one_of(st.integers(1, 64), st.integers(65, 16384))
sizes = st.tuples(sides, sides)
input_sizes = st.tuples(st.integers(1, 1344), st.integers(1, 1344))


def random_boxes(frame_hw: tuple[int, int], n: int = 16) -> np.ndarray:
    rng = np.random.default_rng(frame_hw)
    height, width = frame_hw
    points = rng.uniform(0, 1, (n, 2, 2)) * (width, height)
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return np.vstack([boxes, [0, 0, width, height]]).astype(np.float32)


def assert_round_trip(placement: Placement) -> None:
    """Back at home within a fiftieth of a pixel of the input (float32 carries no more)."""
    boxes = random_boxes(placement.frame_hw)
    home = placement.to_frame(placement.to_input(boxes))
    coarse = max(f / s for f, s in zip(placement.frame_hw, placement.scaled_hw, strict=True))
    assert home.dtype == np.float32
    np.testing.assert_allclose(home, boxes, rtol=1e-6, atol=1e-3 * max(1.0, coarse / 5))


@given(sizes, input_sizes)
@settings(max_examples=1000, deadline=None)
def test_a_letterboxed_box_comes_home_for_every_size(
    frame_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    assert_round_trip(Placement.letterbox(frame_hw, input_hw))


@given(sizes, input_sizes)
@settings(max_examples=500, deadline=None)
def test_a_stretched_box_comes_home_for_every_size(
    frame_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    placement = Placement.stretch(frame_hw, input_hw)
    assert placement.scaled_hw == input_hw
    assert placement.top_left == (0, 0)
    assert_round_trip(placement)


@given(sizes, input_sizes)
@settings(max_examples=1000, deadline=None)
def test_a_letterbox_is_centred_inside_the_input_and_fills_one_side(
    frame_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    placement = Placement.letterbox(frame_hw, input_hw)
    pairs = zip(placement.scaled_hw, input_hw, placement.top_left, strict=True)
    bars = []
    for scaled, limit, start in pairs:
        assert 1 <= scaled <= limit
        assert start >= 0
        assert start + scaled <= limit
        bars.append((start, limit - scaled - start))
    assert all(abs(before - after) <= 1 for before, after in bars)
    assert (0, 0) in bars


@given(sizes, input_sizes)
@settings(max_examples=1000, deadline=None)
def test_a_letterbox_keeps_the_aspect_ratio_to_half_a_pixel(
    frame_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    placement = Placement.letterbox(frame_hw, input_hw)
    ratio = min(i / f for f, i in zip(frame_hw, input_hw, strict=True))
    for scaled, side in zip(placement.scaled_hw, frame_hw, strict=True):
        assert abs(scaled - side * ratio) <= 0.5 or scaled == 1


@pytest.mark.parametrize("fit", [Placement.letterbox, Placement.stretch])
def test_the_whole_frame_is_the_whole_picture_in_the_input(fit) -> None:  # type: ignore[no-untyped-def]
    placement = fit((361, 641), (320, 576))
    box = placement.to_input(np.array([[0, 0, 641, 361]], np.float32))[0]
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    np.testing.assert_allclose(box, [left, top, left + width, top + height], atol=1e-4)


def test_a_known_letterbox() -> None:
    placement = Placement.letterbox((720, 1280), (320, 576))
    assert placement.scaled_hw == (320, 569)
    assert placement.top_left == (0, 3)


def test_boxes_in_the_bars_are_clipped_to_the_frame() -> None:
    placement = Placement.letterbox((100, 100), (100, 300))
    home = placement.to_frame(np.array([[0, 10, 150, 90], [0, 0, 50, 100]], np.float32))
    np.testing.assert_allclose(home, [[0, 10, 50, 90], [0, 0, 0, 100]])


def test_no_boxes_are_mapped_to_no_boxes() -> None:
    placement = Placement.letterbox((100, 100), (100, 300))
    none = np.zeros((0, 4), np.float32)
    assert placement.to_frame(none).shape == placement.to_input(none).shape == (0, 4)
