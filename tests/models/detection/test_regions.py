"""Which regions are learned from, and how scores and boxes become slots."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from models.boxes import clip, decode, encode
from models.data.batches import TrainingBatch
from models.detection.fast_rcnn import multi_task_losses
from models.detection.losses import RoiSample, Truth
from models.detection.regions import (
    REGION_SETTINGS,
    Sampling,
    best_slots,
    draw,
)
from models.network import prepared_size

HARD = Sampling(64, 0.25, (0.1, 0.5))
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def scene(seed: int, objects: int = 3) -> tuple[Tensor, Truth]:
    """(250, 4) regions on a picture of 200 x 200, and the truth."""
    torch.manual_seed(seed)
    corner = torch.rand(objects, 2) * 120
    truth = torch.cat([corner, corner + 30 + torch.rand(objects, 2) * 40], 1)
    near = truth.repeat(50, 1) + torch.randn(50 * objects, 4) * 10
    corner = torch.rand(250 - len(near), 2) * 150
    far = torch.cat([corner, corner + 5 + torch.rand(len(corner), 2) * 40], 1)
    return torch.cat([near, far]), Truth(truth, torch.arange(objects) % 2, torch.zeros(0, 4))


def batch_of(*scenes: tuple[Tensor, Truth]) -> TrainingBatch:
    regions, truths = zip(*scenes, strict=True)
    frames = torch.zeros(len(scenes), 200, 200, 3, dtype=torch.uint8)
    return TrainingBatch(frames, list(truths), list(regions))


def test_what_is_drawn_is_what_a_loop_over_the_regions_finds_right():
    regions, truth = scene(0)
    drawn = draw(batch_of((regions, truth)), HARD, WEIGHTS)
    boxes, labels, targets = drawn.boxes[0], drawn.labels[0], drawn.targets[0]
    assert len(boxes) == 64
    assert int((labels > 0).sum()) == 16
    everything = torch.cat([regions, truth.boxes])
    for box, label, target in zip(boxes, labels.tolist(), targets, strict=True):
        assert (everything == box).all(1).any()
        overlaps = box_iou(box[None], truth.boxes)[0]
        best = int(overlaps.argmax())
        if label > 0:
            assert overlaps[best] >= 0.5
            assert label == int(truth.class_ids[best]) + 1
            expected = encode(truth.boxes[best], box, WEIGHTS)
            torch.testing.assert_close(target, expected)
        else:
            assert label == 0
            assert 0.1 <= overlaps[best] < 0.5


def test_no_region_is_drawn_twice():
    drawn = draw(batch_of(scene(0)), Sampling(250, 0.25), WEIGHTS)
    used = drawn.boxes[0][drawn.labels[0] >= 0]
    assert len(used.unique(dim=0)) == len(used)


def test_true_boxes_are_regions_too():
    _, truth = scene(1)
    far_away = torch.tensor([[190.0, 190.0, 199.0, 199.0]])
    drawn = draw(batch_of((far_away, truth)), HARD, WEIGHTS)
    objects = drawn.boxes[0][drawn.labels[0] > 0]
    assert {tuple(b) for b in objects.tolist()} == {tuple(b) for b in truth.boxes.tolist()}


def test_a_picture_without_objects_gives_easy_background():
    regions, _ = scene(2)
    nothing = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    drawn = draw(batch_of((regions, nothing)), HARD, WEIGHTS)
    assert (drawn.labels == 0).all()


def test_hard_background_goes_before_easy_background():
    _, truth = scene(3, objects=1)
    x1, y1, x2, y2 = truth.boxes[0].tolist()
    width = x2 - x1
    hard = [
        [x1 + (0.4 + 0.02 * i) * width, y1, x2 + (0.4 + 0.02 * i) * width, y2] for i in range(5)
    ]
    easy = [[i, 190.0, i + 5.0, 199.0] for i in range(30)]
    drawn = draw(
        batch_of((torch.tensor(hard + easy), truth)), replace(HARD, per_picture=12), WEIGHTS
    )
    background = drawn.boxes[0][drawn.labels[0] == 0]
    overlaps = box_iou(background, truth.boxes)[:, 0]
    assert len(background) == 11
    assert int((overlaps >= 0.1).sum()) == 5


def test_empty_slots_and_the_unknown_are_not_drawn_as_background():
    regions, truth = scene(4)
    unknown = Truth(truth.boxes, truth.class_ids, torch.tensor([[0.0, 0.0, 200.0, 100.0]]))
    slots = torch.cat([torch.zeros(50, 4), regions])
    drawn = draw(batch_of((slots, unknown)), Sampling(128), WEIGHTS)
    background = drawn.boxes[0][drawn.labels[0] == 0]
    assert len(background) > 5
    visible = (background[:, 3] - background[:, 1]).clamp(min=1e-6)
    assert (((background[:, 3].clamp(max=100) - background[:, 1]) / visible) <= 0.5).all()
    assert (visible > 1e-3).all()


def test_a_batch_without_regions_is_refused():
    batch = replace(batch_of(scene(0)), regions=None)
    with pytest.raises(ValueError, match="learns from regions"):
        draw(batch, HARD, WEIGHTS)


def test_the_losses_are_equations_1_to_3():
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, 6, 4), torch.randn(2, 6, 4, 4) * 2
    labels = torch.tensor([[1, 3, 0, 0, 0, -1], [2, 0, 0, 0, -1, -1]])
    targets = torch.randn(2, 6, 4)
    found = multi_task_losses(
        logits, deltas, RoiSample(torch.zeros(2, 6, 4), labels, targets, torch.zeros_like(labels))
    )
    classification, box, used = 0.0, 0.0, 0
    for n in range(2):
        for r in range(6):
            label = int(labels[n, r])
            if label < 0:
                continue
            used += 1
            exponents = logits[n, r].double().exp()
            classification -= float((exponents[label] / exponents.sum()).log())
            if label > 0:
                for x in (deltas[n, r, label] - targets[n, r]).tolist():
                    box += 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5
    assert float(found["class"]) == pytest.approx(classification / used, rel=1e-5)
    assert float(found["box"]) == pytest.approx(box / used, rel=1e-5)


def slots_by_loops(
    scores: Tensor, deltas: Tensor, regions: Tensor
) -> list[tuple[float, int, list[float]]]:
    """One picture's (region, class) pairs above the least score, best first."""
    found = []
    for r, region in enumerate(regions):
        if region[2] <= region[0] or region[3] <= region[1]:
            continue
        for c in range(scores.shape[1]):
            if scores[r, c] > REGION_SETTINGS.min_score:
                box = clip(decode(deltas[r, c], region, WEIGHTS)[None, None], (100, 150))[0, 0]
                found.append((float(scores[r, c]), c, box.tolist()))
    return sorted(found, key=lambda f: -f[0])


def test_slots_hold_the_best_pairs_of_region_and_class():
    torch.manual_seed(0)
    corner = torch.rand(2, 30, 2) * 80
    regions = torch.cat([corner, corner + 3 + torch.rand(2, 30, 2) * 30], 2)
    regions = clip(regions, (100, 150))
    regions[0, 5:15] = 0.0
    regions[1] = 0.0
    scores, deltas = torch.rand(2, 30, 3) ** 4, torch.randn(2, 30, 3, 4)
    boxes, best, labels, exact = best_slots(
        scores, deltas, regions, (100, 150), WEIGHTS, REGION_SETTINGS
    )
    expected = slots_by_loops(scores[0], deltas[0], regions[0])
    filled = int((best[0] > 0).sum())
    assert filled == len(expected) > 20
    torch.testing.assert_close(best[0, :filled], torch.tensor([s for s, _, _ in expected]))
    assert labels[0, :filled].tolist() == [c for _, c, _ in expected]
    torch.testing.assert_close(boxes[0, :filled], torch.tensor([b for _, _, b in expected]))
    assert not best[1].any()
    assert not boxes[1].any()
    assert exact.tolist() == [True, True]


def test_slots_say_when_there_were_too_few():
    regions = torch.tensor([[[0.0, 0.0, 9.0, 9.0]]]).repeat(2, 8, 1)
    scores = torch.full((2, 8, 2), 0.5)
    scores[1] = 0.01
    settings = replace(REGION_SETTINGS, candidates=6)
    *_, exact = best_slots(scores, torch.zeros(2, 8, 2, 4), regions, (10, 10), WEIGHTS, settings)
    assert exact.tolist() == [False, True]


def test_frames_of_a_size_not_prepared_for_are_refused():
    with pytest.raises(ValueError, match=r"prepared for frames of \(8, 9\), got \(9, 8\)"):
        prepared_size(torch.zeros(1, 9, 8, 3), (8, 9))
