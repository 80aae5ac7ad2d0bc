"""Where a frame lies in the network's input: forth and back, over thousands of sizes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.placement import Placement


def some_sizes(n: int, seed: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Frame and input sizes: `n` pairs from tiny to huge, and small frames in a usual input."""
    rng = np.random.default_rng(seed)
    frames = np.exp(rng.uniform(0, np.log(16384), (n, 2))).astype(int)
    inputs = np.exp(rng.uniform(0, np.log(1344), (n, 2))).astype(int)
    small = [((h, w), (320, 576)) for h in range(1, 40) for w in range(1, 40)]
    pairs = zip(frames.tolist(), inputs.tolist(), strict=True)
    return small + [((fh, fw), (ih, iw)) for (fh, fw), (ih, iw) in pairs]


SIZES = some_sizes(4000, seed=0)
POINTS = np.random.default_rng(1).uniform(0, 1, (16, 2, 2))


def random_boxes(frame_hw: tuple[int, int]) -> np.ndarray:
    height, width = frame_hw
    points = POINTS * (width, height)
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return np.vstack([boxes, [0, 0, width, height]]).astype(np.float32)


def assert_round_trip(placement: Placement) -> None:
    """Back at home within a five-thousandth of a pixel of the input; float32 carries no more."""
    boxes = random_boxes(placement.frame_hw)
    home = placement.to_frame(placement.to_input(boxes))
    coarse = max(f / s for f, s in zip(placement.frame_hw, placement.scaled_hw, strict=True))
    assert home.dtype == np.float32
    assert np.abs(home - boxes).max() <= 1e-6 * boxes.max() + 2e-4 * max(5.0, coarse), placement


def test_a_letterboxed_box_comes_home_for_every_size() -> None:
    for frame_hw, input_hw in SIZES:
        assert_round_trip(Placement.letterbox(frame_hw, input_hw))


def test_a_stretched_box_comes_home_for_every_size() -> None:
    for frame_hw, input_hw in SIZES:
        placement = Placement.stretch(frame_hw, input_hw)
        assert placement.scaled_hw == input_hw
        assert placement.top_left == (0, 0)
        assert_round_trip(placement)


def test_a_letterbox_is_centred_inside_the_input_and_fills_one_side() -> None:
    for frame_hw, input_hw in SIZES:
        placement = Placement.letterbox(frame_hw, input_hw)
        bars = []
        for scaled, limit, start in zip(
            placement.scaled_hw, input_hw, placement.top_left, strict=True
        ):
            assert 1 <= scaled <= limit, placement
            assert start >= 0, placement
            bars.append((start, limit - scaled - start))
        assert all(after - before in (0, 1) for before, after in bars), placement
        assert (0, 0) in bars, placement


def test_a_letterbox_keeps_the_aspect_ratio_to_half_a_pixel() -> None:
    for frame_hw, input_hw in SIZES:
        placement = Placement.letterbox(frame_hw, input_hw)
        ratio = min(i / f for f, i in zip(frame_hw, input_hw, strict=True))
        for scaled, side in zip(placement.scaled_hw, frame_hw, strict=True):
            assert abs(scaled - side * ratio) <= 0.5 or scaled == 1, placement


@pytest.mark.parametrize("fit", [Placement.letterbox, Placement.stretch])
def test_the_whole_frame_is_the_whole_picture_in_the_input(fit) -> None:
    placement = fit((361, 641), (320, 576))
    box = placement.to_input(np.array([[0, 0, 641, 361]], np.float32))[0]
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    np.testing.assert_allclose(box, [left, top, left + width, top + height], atol=1e-4)


def test_a_known_letterbox() -> None:
    placement = Placement.letterbox((720, 1280), (320, 576))
    assert placement.scaled_hw == (320, 569)
    assert placement.top_left == (0, 3)


def test_pixels_that_are_not_square_are_scaled_to_what_is_shown() -> None:
    # 720x576 pixels that are 16/11 as wide as high show as much as 1047x576 square ones.
    placement = Placement.letterbox((576, 720), (320, 576), (11, 16))
    assert placement.scaled_hw == Placement.letterbox((576, 1047), (320, 576)).scaled_hw
    assert (placement.scaled_hw, placement.top_left) == ((317, 576), (1, 0))
    assert placement.frame_hw == (576, 720)
    assert_round_trip(placement)
    high = Placement.letterbox((100, 100), (100, 300), (2, 1))
    assert (high.scaled_hw, high.top_left) == ((100, 50), (0, 125))
    assert Placement.stretch((576, 720), (320, 576), (11, 16)).scaled_hw == (320, 576)


def test_boxes_in_the_bars_are_clipped_to_the_frame() -> None:
    placement = Placement.letterbox((100, 100), (100, 300))
    home = placement.to_frame(np.array([[0, 10, 150, 90], [0, 0, 50, 100]], np.float32))
    np.testing.assert_allclose(home, [[0, 10, 50, 90], [0, 0, 0, 100]])


def test_no_boxes_are_mapped_to_no_boxes() -> None:
    placement = Placement.letterbox((100, 100), (100, 300))
    none = np.zeros((0, 4), np.float32)
    assert placement.to_frame(none).shape == placement.to_input(none).shape == (0, 4)
