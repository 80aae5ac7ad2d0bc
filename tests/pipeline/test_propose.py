"""Regions for models that are told where to look."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.frame import Batch
from pipeline.placement import Placement
from pipeline.propose import propose
from tests.pipeline.frames import blank

INPUT_HW = (40, 60)


def batch(*sizes_wh: tuple[int, int]) -> Batch:
    """Frames of those sizes in letterboxes; the bars are 114, each frame its number."""
    frames = tuple(blank(*size, index=i) for i, size in enumerate(sizes_wh))
    placements = tuple(Placement.letterbox(frame.size_hw, INPUT_HW) for frame in frames)
    images = np.full((len(frames), *INPUT_HW, 3), 114, np.uint8)
    for i, (image, at) in enumerate(zip(images, placements, strict=True)):
        (top, left), (height, width) = at.top_left, at.scaled_hw
        image[top : top + height, left : left + width] = i
    return Batch(frames, images, placements)


def test_the_proposer_sees_no_bars_and_its_boxes_lie_on_the_picture() -> None:
    seen = []

    def corners(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)

    given = batch((60, 40), (40, 40), (120, 20))
    (found,) = propose([given], corners, most=3)
    assert [np.unique(image).tolist() for image in seen] == [[0], [1], [2]]
    assert found.regions is not None and found.regions.dtype == np.float32
    assert found.regions[:, 0].tolist() == [[0, 0, 60, 40], [10, 0, 50, 40], [0, 15, 60, 25]]
    assert not found.regions[:, 1:].any()  # empty slots
    for boxes, at in zip(found.regions, found.placements, strict=True):
        height, width = at.frame_hw
        assert at.to_frame(boxes[:1]).tolist() == [[0, 0, width, height]]


@pytest.mark.parametrize("count", [0, 2, 3, 7])
def test_of_too_many_regions_the_first_are_kept_and_too_few_are_filled_up(count: int) -> None:
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    (found,) = propose([batch((60, 40))], lambda _image: boxes, most=3)
    assert found.regions is not None
    kept = min(count, 3)
    np.testing.assert_array_equal(found.regions[0, :kept], boxes[:3])
    assert found.regions.shape == (1, 3, 4) and not found.regions[0, kept:].any()


def test_a_proposer_that_gives_no_boxes_at_all_is_named() -> None:
    with pytest.raises(ValueError, match=r"gives \(R, 4\) boxes, this one \(5,\)"):
        list(propose([batch((60, 40))], lambda _image: np.zeros(5, np.float32), most=3))
