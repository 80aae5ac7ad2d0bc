"""One object: what it is and where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.detection.localization import Localization, in_frame, localization, targets
from models.network import DETECTION_OUTPUTS
from tests.models.detection.toys import (
    ENGINES,
    exported,
    learn,
    overlap,
    painted,
    tiny_trunk,
    truth,
)

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

FRAME_HW = (75, 101)


def toy() -> Localization:
    torch.manual_seed(0)
    return Localization(tiny_trunk(), num_classes=3, image_hw=(64, 64), hidden=64)


@pytest.fixture(scope="module")
def batch():
    return painted(4, FRAME_HW, columns=1)


@pytest.fixture(scope="module")
def learned(batch) -> Localization:
    empty = replace(
        batch,
        frames=torch.cat([batch.frames, torch.full((1, *FRAME_HW, 3), 95, dtype=torch.uint8)]),
        truths=[*batch.truths, truth([], [])],
    )
    network = toy()
    learn(network, empty, steps=150, rate=1e-3)
    return network.prepare(FRAME_HW)


def test_four_pictures_are_learned(learned, batch):
    with torch.inference_mode():
        boxes, scores, labels, exact = learned(batch.frames)
    assert exact.all()
    for i, known in enumerate(batch.truths):
        assert labels[i] == known.class_ids
        assert scores[i] > 0.5
        assert overlap(boxes[i, 0].tolist(), known.boxes[0].tolist()) > 0.8


def test_an_empty_picture_shows_nothing(learned):
    grey = torch.full((1, *FRAME_HW, 3), 95, dtype=torch.uint8)
    with torch.inference_mode():
        assert learned(grey)[1] < 0.5


@pytest.mark.parametrize("frame_hw", [(64, 64), (33, 201), (1, 1)])
def test_there_is_one_slot_as_every_network_promises_them(frame_hw):
    network = toy().eval().prepare(frame_hw)
    frames = torch.randint(0, 256, (2, *frame_hw, 3), dtype=torch.uint8)
    with torch.inference_mode():
        boxes, scores, labels, exact = network(frames)
    assert network.outputs == DETECTION_OUTPUTS
    assert (boxes.shape, scores.shape, labels.shape, exact.shape) == (
        (2, 1, 4),
        (2, 1),
        (2, 1),
        (2,),
    )
    assert (boxes.dtype, scores.dtype) == (torch.float32, torch.float32)
    assert (labels.dtype, exact.dtype) == (torch.int64, torch.bool)


def test_the_largest_object_is_meant():
    known = truth([[0, 0, 10, 10], [20, 10, 60, 50], [5, 5, 30, 10]], [2, 1, 0])
    labels, boxes = targets([known], (100, 200))
    assert labels.tolist() == [2]
    torch.testing.assert_close(boxes, torch.tensor([[0.2, 0.3, 0.2, 0.4]]))


def test_a_picture_without_objects_shows_nothing_unless_nobody_knows():
    nothing, unknown = truth([], []), truth([], [], ignored=[[0, 0, 5, 5]])
    assert targets([nothing, unknown], (10, 10)).labels.tolist() == [0, -1]


def test_targets_and_boxes_are_each_others_inverse():
    known = truth([[20, 10, 61, 50]], [1])
    back = in_frame(targets([known], (75, 101)).boxes, (75, 101))
    torch.testing.assert_close(back, known.boxes)


def test_boxes_stay_in_the_frame_and_are_never_turned_over():
    boxes = in_frame(torch.tensor([[0.9, 0.9, 0.6, 0.6], [0.5, 0.5, -0.2, 0.2]]), (100, 200))
    torch.testing.assert_close(boxes[0], torch.tensor([120.0, 60, 200, 100]))
    torch.testing.assert_close(boxes[1], torch.tensor([100.0, 40, 100, 60]))


def test_both_losses_reach_the_shared_features_and_alpha_weighs_the_box(batch):
    network = toy()
    losses = network.losses(batch)
    for loss in losses.values():
        network.zero_grad()
        loss.backward(retain_graph=True)
        assert network.backbone.body["0"][0].weight.grad.abs().sum() > 0
    network.alpha *= 2
    assert network.losses(batch)["box"].item() == pytest.approx(2 * losses["box"].item())


@pytest.mark.parametrize("ignored", [[], [[0, 0, 9, 9]]])
def test_a_batch_without_objects_teaches_no_box(batch, ignored):
    losses = toy().losses(replace(batch, truths=[truth([], [], ignored)] * 4))
    assert losses["box"] == 0
    assert (losses["class"] == 0) == bool(ignored)
    sum(losses.values()).backward()


def test_losses_stay_float32_under_autocast(batch):
    with torch.autocast("cpu", torch.bfloat16):
        losses = toy().losses(batch)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.fixture(scope="module")
def file(learned, batch, tmp_path_factory):
    path = tmp_path_factory.mktemp("localization") / "localization.onnx"
    exported(learned, batch.frames[:2], path)
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 4])
def test_an_engine_finds_what_torch_finds(learned, batch, file, engine, count):
    with torch.inference_mode():
        expected = learned(batch.frames[:count])
    for ours, theirs in zip(expected, ENGINES[engine](file, batch.frames[:count]), strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-2)


def test_frames_of_another_size_are_refused(learned):
    with pytest.raises(ValueError, match="call prepare"):
        learned(torch.zeros(1, 10, 10, 3, dtype=torch.uint8))


def test_a_network_that_still_learns_is_not_prepared():
    with pytest.raises(ValueError, match="call eval"):
        toy().prepare(FRAME_HW)


def test_a_trunk_is_chosen_by_its_name():
    network = localization("mobilenet_v2", 6, image_hw=(96, 128)).eval().prepare((50, 60))
    assert network.training is False
    with torch.inference_mode():
        boxes, *_ = network(torch.zeros(1, 50, 60, 3, dtype=torch.uint8))
    assert boxes.shape == (1, 1, 4)
    with pytest.raises(ValueError, match="unknown backbone 'lenet'"):
        localization("lenet", 6)
