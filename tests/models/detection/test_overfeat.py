"""OverFeat: three tasks from one network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.detection.overfeat import OUR_LAYERS, OverFeat, OverFeatSettings, assemble, overfeat
from models.network import DETECTION_OUTPUTS
from tests.models.detection.toys import (
    ENGINES,
    ap50,
    exported,
    learn,
    overlap,
    painted,
    tiny_trunk,
    truth,
)

pytestmark = pytest.mark.timeout(600)  # for busy machines; a quiet one needs a tenth

FRAME_HW = (120, 201)
SETTINGS = OverFeatSettings(short_sides=(112, 144), scales_per_step=2)


def toy(settings: OverFeatSettings = SETTINGS) -> OverFeat:
    torch.manual_seed(0)
    layers = OUR_LAYERS._replace(classifier=(64,), regressor=(64,))
    return assemble(tiny_trunk(), layers, 96, 3, settings)


@pytest.fixture(scope="module")
def batch():
    return painted(4, FRAME_HW, columns=2)


@pytest.fixture(scope="module")
def learned(batch) -> OverFeat:
    network = toy()
    learn(network, batch, steps=120, rate=4e-3)
    return network.prepare(FRAME_HW)


def test_four_pictures_are_learned(learned, batch):
    assert ap50(learned.detect(batch.frames), batch.truths) > 0.9


def test_a_picture_is_classified_by_its_best_windows(learned, batch):
    shares = learned.classify(batch.frames)
    assert shares.shape == (4, 3)
    for share, known in zip(shares, batch.truths, strict=True):
        present = set(known.class_ids.tolist())
        assert set(share.topk(len(present)).indices.tolist()) == present


def test_one_box_is_localised_for_each_likely_class(learned, batch):
    for found, known in zip(learned.localise(batch.frames, most=2), batch.truths, strict=True):
        assert len(set(found.class_ids.tolist())) == len(found.class_ids) <= 2
        best = found.boxes[0].tolist()
        same = known.boxes[known.class_ids == int(found.class_ids[0])].tolist()
        assert max(overlap(best, box) for box in same) > 0.5


def test_an_empty_picture_holds_nothing(learned):
    grey = torch.full((1, *FRAME_HW, 3), 95, dtype=torch.uint8)
    (found,) = learned.detect(grey)
    assert not (found.scores > 0.5).any()


@pytest.mark.parametrize("frame_hw", [FRAME_HW, (97, 333), (41, 30)])
def test_slots_are_what_every_network_promises(frame_hw):
    network = toy().eval().prepare(frame_hw)
    frames = torch.randint(0, 256, (2, *frame_hw, 3), dtype=torch.uint8)
    with torch.inference_mode():
        boxes, scores, labels, exact = network(frames)
    assert network.outputs == DETECTION_OUTPUTS
    assert boxes.shape == (*scores.shape, 4)
    assert boxes.dtype == scores.dtype == torch.float32
    assert (labels.dtype, exact.dtype) == (torch.int64, torch.bool)
    assert (scores.diff(dim=1) <= 0).all()
    assert (scores > 0).any()
    filled = boxes[scores > 0]
    height, width = frame_hw
    assert (filled[:, 2:] > filled[:, :2]).all()
    assert (filled >= 0).all()
    assert (filled <= torch.tensor([width, height, width, height])).all()
    assert (boxes[scores == 0] == 0).all()


def test_before_it_has_learned_the_box_of_a_window_is_the_window():
    network = toy(replace(SETTINGS, short_sides=(96,), min_score=0.0)).eval()
    torch.nn.init.zeros_(network.regressor[-1].weight)
    network.prepare((48, 48))  # half the size of a window
    with torch.inference_mode():
        boxes, *_ = network(torch.zeros(1, 48, 48, 3, dtype=torch.uint8))
    torch.testing.assert_close(boxes, torch.tensor([[[0.0, 0, 48, 48]] * 3]))


def test_too_few_slots_are_confessed():
    network = toy(replace(SETTINGS, candidates=5, min_score=0.0)).eval().prepare((100, 100))
    with torch.inference_mode():
        *_, exact = network(torch.zeros(1, 100, 100, 3, dtype=torch.uint8))
    assert not exact.any()
    network.settings = replace(network.settings, candidates=10_000)
    with torch.inference_mode():
        *_, exact = network(torch.zeros(1, 100, 100, 3, dtype=torch.uint8))
    assert exact.all()


def test_a_batch_without_objects_teaches_the_classifier_only():
    network, nothing = toy(), truth([], [])
    batch = replace(painted(2, (120, 130), columns=1), truths=[nothing, nothing])
    losses = network.losses(batch)
    assert losses["class"] > 0
    assert losses["box"] == 0
    sum(losses.values()).backward()
    assert network.backbone.body["0"][0].weight.grad.abs().sum() > 0


def test_losses_stay_float32_under_autocast(batch):
    with torch.autocast("cpu", torch.bfloat16):
        losses = toy().losses(batch)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.fixture(scope="module")
def file(learned, batch, tmp_path_factory):
    path = tmp_path_factory.mktemp("overfeat") / "overfeat.onnx"
    exported(learned, batch.frames[:2], path)
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 3])
def test_an_engine_finds_what_torch_finds(learned, batch, file, engine, count):
    frames = batch.frames[:count]
    with torch.inference_mode():
        boxes, scores, labels, exact = (x.numpy() for x in learned(frames))
    found = ENGINES[engine](file, frames)
    clear = scores > 0.2  # the order of equal scores is nobody's promise
    np.testing.assert_allclose(found[1], scores, atol=1e-3)
    np.testing.assert_array_equal(found[3], exact)
    for row in range(count):
        order, own = np.lexsort(found[0][row][clear[row]].T), np.lexsort(boxes[row][clear[row]].T)
        np.testing.assert_allclose(
            found[0][row][clear[row]][order], boxes[row][clear[row]][own], atol=0.1
        )
        assert sorted(found[2][row][clear[row]]) == sorted(labels[row][clear[row]])


def test_frames_of_another_size_are_refused(learned):
    with pytest.raises(ValueError, match=r"prepared for frames of \(120, 201\), got \(10, 10\)"):
        learned(torch.zeros(1, 10, 10, 3, dtype=torch.uint8))


def test_a_network_that_still_learns_is_not_prepared():
    with pytest.raises(ValueError, match="call eval"):
        toy().prepare(FRAME_HW)


def test_an_unknown_backbone_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="overfeat_fast, overfeat_accurate, alexnet"):
        overfeat("lenet", 3)


@pytest.mark.parametrize(
    ("backbone", "millions"), [("overfeat_fast", 145), ("overfeat_accurate", 144)]
)
def test_the_models_of_the_paper_have_as_many_weights_as_table_4_says(backbone, millions):
    with torch.device("meta"):
        network = overfeat(backbone, 999)  # and the background
    parts = (network.backbone, network.classifier)
    weights = sum(p.numel() for part in parts for p in part.parameters() if p.ndim > 1)
    assert weights // 1_000_000 == millions


def test_the_shared_trunk_looks_through_windows_of_96_pixels():
    settings = OverFeatSettings(short_sides=(96, 144))
    network = overfeat("mobilenet_v2", 6, settings=settings).eval().prepare((72, 128))
    assert network.corners.shape[0] == sum(
        ((h - 96) // 16 + 1) * ((w - 96) // 16 + 1) for h, w in network.sizes((72, 128))
    )
    with torch.inference_mode():
        boxes, *_ = network(torch.zeros(1, 72, 128, 3, dtype=torch.uint8))
    assert boxes.shape == (1, 6 * len(network.corners), 4)
