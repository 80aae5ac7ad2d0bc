"""Masks as run lengths, against COCO's own tools and a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.rle import class_rles, rle_in


def rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask that is the whole picture."""
    return rle_in(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def counts_by_hand(mask: np.ndarray) -> list[int]:
    """Run lengths, pixel by pixel."""
    counts, value, run = [], 0, 0
    for pixel in (mask != 0).ravel(order="F").tolist():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return [*counts, run]


def text_by_hand(counts: list[int]) -> str:
    """COCO's compression, number by number (after the description of its format)."""
    text = ""
    for i, count in enumerate(counts):
        left = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            group = left & 0x1F
            left >>= 5
            more = left != (-1 if group & 0x10 else 0)
            text += chr((group | 0x20 if more else group) + 48)
    return text


def blobs(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 2, (height // 5 + 1, width // 5 + 1), np.uint8)
    return np.repeat(np.repeat(coarse, 5, 0), 5, 1)[:height, :width]


MASKS = {
    "one pixel": np.ones((1, 1), np.uint8),
    "no pixel of one": np.zeros((1, 1), np.uint8),
    "empty": np.zeros((7, 5), np.uint8),
    "full": np.full((7, 5), 255, np.uint8),
    "a row": np.eye(1, 9, 3, dtype=np.uint8),
    "noise": np.random.default_rng(0).integers(0, 2, (61, 83), np.uint8),
    "blobs": blobs(240, 427, 1),
    "long runs": np.pad(np.ones((900, 700), np.uint8), 50),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_text_is_that_of_a_loop(mask: np.ndarray) -> None:
    assert rle(mask) == {"size": list(mask.shape), "counts": text_by_hand(counts_by_hand(mask))}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_cocos_tools_read_the_mask_and_write_the_same(mask: np.ndarray) -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="the extra 'models' is not installed")
    binary = np.asfortranarray(mask != 0).astype(np.uint8, order="F")
    assert tools.encode(binary)["counts"].decode() == rle(mask)["counts"]
    np.testing.assert_array_equal(tools.decode(rle(mask)), binary)


@pytest.mark.parametrize("top_left", [(0, 0), (3, 0), (0, 4), (2, 5), (3, 6)])
@pytest.mark.parametrize("size_hw", [(9, 11), (7, 11), (6, 10)])
def test_a_mask_inside_of_a_picture_is_that_of_the_whole_picture(
    top_left: tuple[int, int], size_hw: tuple[int, int]
) -> None:
    (top, left), (height, width) = top_left, size_hw
    for seed in range(5):
        rng = np.random.default_rng(seed)
        shape = rng.integers(1, (height - top + 1, width - left + 1))
        mask = (rng.random(shape) < 0.7).astype(np.uint8)
        whole = np.zeros(size_hw, np.uint8)
        whole[top : top + shape[0], left : left + shape[1]] = mask
        assert rle_in(mask, top_left, size_hw) == rle(whole)


def test_a_column_that_ends_at_the_bottom_goes_on_at_the_top_of_the_next() -> None:
    assert rle(np.ones((4, 3), np.uint8))["counts"] == text_by_hand([0, 12])


def test_the_classes_of_a_map_are_those_of_one_mask_each() -> None:
    classes = np.repeat(np.random.default_rng(2).integers(0, 5, (31, 9), np.uint8), 4, axis=1)
    classes[classes == 3] = 200
    found = class_rles(classes)
    assert list(found) == [0, 1, 2, 4, 200]
    for class_id, mask in found.items():
        assert mask == rle((classes == class_id).astype(np.uint8))


def test_a_map_of_one_class_is_one_run() -> None:
    assert class_rles(np.full((3, 4), 7, np.uint8)) == {
        7: {"size": [3, 4], "counts": text_by_hand([0, 12])}
    }
