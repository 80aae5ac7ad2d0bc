"""Masks of objects on their way through thresholds, suppression and the frame's edge."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.detect import detect
from pipeline.frame import Batch, Detections, Result
from pipeline.instances import patch
from pipeline.placement import Placement
from pipeline.settings import DetectionSettings
from pipeline.sinks.records import record
from tests.pipeline.frames import blank
from tests.pipeline.test_detect import Answered, model_file

FRAME_WH = (100, 80)
INPUT_HW = (100, 200)  # the frame lies at 37 or 38 pixels from the left


def found_in(
    boxes: list[list[float]], scores: list[float], masks: np.ndarray, nms: str = "class_aware"
) -> Detections:
    """What the line makes of an answer with these boxes, in pixels of the frame."""
    frame = blank(*FRAME_WH)
    placement = Placement.letterbox(frame.size_hw, INPUT_HW)
    given = Batch((frame,), np.zeros((1, *INPUT_HW, 3), np.uint8), (placement,))
    outputs = {
        "boxes": placement.to_input(np.array(boxes, np.float32))[None],
        "scores": np.array([scores], np.float32),
        "labels": np.zeros((1, len(scores)), np.int64),
        "masks": masks[None],
    }
    names = ("boxes", "scores", "labels", "masks")
    model = model_file(task="instance", outputs=names, class_names=("car",))
    (result,) = detect([(given, Answered(outputs))], model, DetectionSettings(nms=nms))
    return result.detections


def numbered(count: int) -> np.ndarray:
    """(count, 28, 28) masks that hold their number."""
    return np.tile(np.arange(count, dtype=np.float32)[:, None, None] / 10, (1, 28, 28))


@pytest.mark.parametrize("nms", ["class_aware", "class_agnostic", "soft"])
def test_each_object_keeps_its_own_mask(nms: str) -> None:
    boxes = [[10, 10, 20, 20], [50, 50, 70, 70], [51, 50, 71, 70], [30, 10, 40, 20]]
    found = found_in(boxes, [0.6, 0.9, 0.2, 0.7], numbered(4), nms)
    assert found.masks is not None
    assert found.masks[:, 0, 0].tolist() == pytest.approx([0.1, 0.3, 0.0])
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_a_box_that_the_frames_edge_cuts_has_the_rest_of_its_mask() -> None:
    right = np.zeros((1, 28, 28), np.float32)
    right[..., 14:] = 1  # of a box of which the left half lies outside of the frame
    found = found_in([[-40, 10, 40, 60]], [0.9], right)
    assert found.masks is not None and found.boxes.tolist() == [[0, 10, 40, 60]]
    assert found.masks[0, :, 1:].min() > 0.9
    below = np.zeros((1, 28, 28), np.float32)
    below[:, 7:14] = 1
    found = found_in([[20, 40, 60, 120]], [0.9], below)  # the lower half lies outside
    assert found.masks is not None and found.boxes[0].round(3).tolist() == [20, 40, 60, 80]
    assert found.masks[0, :13].max() < 0.1 and found.masks[0, 15:].min() > 0.7


def test_the_cut_mask_covers_the_pixels_that_the_whole_one_covered() -> None:
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 2, (1, 4, 4)), np.ones((1, 7, 7))).astype(np.float32)
    whole = np.array([-30.0, -10.0, 130.0, 110.0], np.float32)
    found = found_in([whole.tolist()], [0.9], mask)
    assert found.masks is not None
    size = (FRAME_WH[1], FRAME_WH[0])
    expected, cut = patch(mask[0], whole, size), patch(found.masks[0], found.boxes[0], size)
    assert expected is not None and cut is not None
    assert np.mean(expected.inside == cut.inside) > 0.95


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own
def test_the_line_of_a_frame_holds_masks_as_large_as_the_frame() -> None:
    tools = pytest.importorskip("pycocotools.mask", reason="the extra 'models' is not installed")
    frame = blank(*FRAME_WH)
    half = np.zeros((1, 28, 28), np.float32)
    half[:, :, :14] = 1
    box = np.array([[20, 30, 60, 50]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64), half)
    (entry,) = json.loads(json.dumps(record(Result(frame, found), ["car"])))["detections"]
    expected = np.zeros((80, 100), np.uint8)
    expected[30:50, 20:40] = 1
    np.testing.assert_array_equal(tools.decode(entry["mask"]), expected)
