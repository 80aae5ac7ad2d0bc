"""Matching, sampling and the losses, against torchvision's and against loops."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from models.boxes import encode
from models.detection.losses import (
    NEITHER,
    ROI_THRESHOLDS,
    RPN_THRESHOLDS,
    RoiSample,
    Truth,
    match,
    roi_losses,
    rpn_losses,
    sample,
    sample_rois,
)

NOTHING = torch.zeros(0, 4)
plain_encode = partial(encode, weights=(1.0, 1.0, 1.0, 1.0))


def random_boxes(count: int, seed: int, side: float = 200.0) -> Tensor:
    """(count, 4) boxes of 8 to 70 pixels."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    size = 8 + 62 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + size], 1)


def truth(boxes: Tensor, ignored: Tensor = NOTHING) -> Truth:
    return Truth(boxes, torch.arange(len(boxes)) % 3, ignored)


def verdict_by_loops(
    boxes: Tensor, true: Tensor, high: float, low: float, rescue: bool
) -> list[int]:
    def iou(a: Tensor, b: Tensor) -> Tensor:
        shared = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
        return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)

    table = [[float(iou(box, one)) for one in true] for box in boxes]
    verdicts = [1 if max(row) >= high else 0 if max(row) < low else -1 for row in table]
    for g in range(len(true)):
        best = max(row[g] for row in table)
        for i, row in enumerate(table):
            if rescue and best > 0 and abs(row[g] - best) < 1e-7:
                verdicts[i] = 1
    return verdicts


@pytest.mark.parametrize("thresholds", [RPN_THRESHOLDS, ROI_THRESHOLDS])
def test_matching_agrees_with_the_loop_version(thresholds):
    anchors, true = random_boxes(150, seed=1), random_boxes(9, seed=2)
    _, verdict = match(anchors, truth(true), thresholds)
    expected = verdict_by_loops(
        anchors, true, thresholds.object, thresholds.background, thresholds.rescue
    )
    assert verdict.tolist() == expected


def test_every_true_box_has_an_anchor_however_badly_it_fits():
    anchors = torch.tensor([[0.0, 0, 100, 100], [200, 200, 300, 300]])
    _, verdict = match(anchors, truth(torch.tensor([[40.0, 40, 50, 50]])), RPN_THRESHOLDS)
    assert verdict.tolist() == [1, 0]


def test_an_ignored_region_makes_neither_object_nor_background():
    anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [52, 50, 62, 60]])
    known = truth(torch.tensor([[52.0, 50, 62, 60]]), ignored=torch.tensor([[0.0, 0, 80, 80]]))
    _, verdict = match(anchors, known, ROI_THRESHOLDS)
    assert verdict.tolist() == [-1, 1, 1]  # a match outweighs the region


def test_a_picture_without_objects_is_all_background():
    index, verdict = match(random_boxes(20, 3), truth(NOTHING), RPN_THRESHOLDS)
    assert verdict.tolist() == [0] * 20 and index.tolist() == [0] * 20


def test_a_sample_is_balanced_and_filled_up_with_background():
    verdict = torch.tensor([1] * 40 + [0] * 100 + [-1] * 10)
    objects, background = sample(verdict, 64, 0.25)
    assert (len(objects), len(background)) == (16, 48)
    objects, background = sample(torch.tensor([1] + [0] * 100), 64, 0.25)
    assert (len(objects), len(background)) == (1, 63)
    assert len(set(background.tolist())) == 63


def torchvision_rpn() -> RegionProposalNetwork:
    """Takes every anchor into its sample, so that nothing is left to chance."""
    return RegionProposalNetwork(
        AnchorGenerator(((32,),), ((1.0,),)), RPNHead(4, 1), 0.7, 0.3, 10_000, 0.5, {}, {}, 0.7
    )


def test_rpn_losses_equal_torchvisions():
    anchors = random_boxes(400, seed=4)
    true = [random_boxes(5, seed=5), random_boxes(3, seed=6)]
    objectness, deltas = torch.randn(2, 400), torch.randn(2, 400, 4)
    ours = rpn_losses(
        anchors, objectness, deltas, [truth(t) for t in true], plain_encode, size=10_000
    )
    theirs = torchvision_rpn()
    labels, matched = theirs.assign_targets_to_anchors([anchors] * 2, [{"boxes": t} for t in true])
    targets = theirs.box_coder.encode(matched, [anchors] * 2)
    expected = theirs.compute_loss(
        objectness.reshape(-1, 1), deltas.reshape(-1, 4), labels, targets
    )
    torch.testing.assert_close(torch.stack(ours), torch.stack(expected))


def test_roi_losses_equal_torchvisions_and_skip_what_only_fills_up():
    labels = torch.tensor([[2, 1, 0, 0], [3, 0, -1, -1]])
    logits, deltas, targets = torch.randn(8, 4), torch.randn(8, 16), torch.randn(2, 4, 4)
    ours = roi_losses(
        logits, deltas, RoiSample(torch.zeros(2, 4, 4), labels, targets, torch.zeros_like(labels))
    )
    used = labels.flatten() >= 0
    expected = fastrcnn_loss(
        logits[used], deltas[used], [labels.flatten()[used]], [targets.reshape(-1, 4)[used]]
    )
    torch.testing.assert_close(torch.stack(ours), torch.stack(expected))


def test_true_boxes_are_among_the_proposals_and_targets_lead_to_them():
    true = truth(random_boxes(4, seed=7))
    proposals = random_boxes(50, seed=8) + 500  # far from everything
    drawn = sample_rois([proposals], [true], plain_encode, size=64, object_share=0.25)
    assert sorted(drawn.labels[0, :4].tolist()) == sorted((true.class_ids + 1).tolist())
    assert torch.equal(drawn.targets[0, :4], torch.zeros(4, 4))
    assert (drawn.labels[0, 4:54] == 0).all() and (drawn.labels[0, 54:] == -1).all()


def test_losses_of_a_batch_without_any_object_are_finite_and_teach_the_background():
    objectness = torch.randn(1, 50, requires_grad=True)
    deltas = torch.randn(1, 50, 4, requires_grad=True)
    nothing = [truth(NOTHING)]
    classification, box = rpn_losses(random_boxes(50, 9), objectness, deltas, nothing, plain_encode)
    (classification + box).backward()
    assert box == 0 and objectness.grad is not None and (objectness.grad >= 0).all()


def test_losses_of_a_picture_that_is_all_to_be_ignored_are_finite_and_teach_nothing():
    crowd = Truth(NOTHING, torch.zeros(0, dtype=torch.int64), torch.tensor([[0.0, 0, 400, 400]]))
    boxes, logits = random_boxes(50, 9), torch.randn(8, 4, requires_grad=True)
    drawn = sample_rois([boxes], [crowd], plain_encode, size=8)
    assert (drawn.labels == NEITHER).all()
    objectness = torch.randn(1, 50, requires_grad=True)
    deltas = torch.randn(1, 50, 4)
    losses = (
        *roi_losses(logits, torch.randn(8, 16), drawn),
        *rpn_losses(boxes, objectness, deltas, [crowd], plain_encode),
    )
    assert [loss.item() for loss in losses] == [0, 0, 0, 0]
    sum(losses).backward()
    assert not logits.grad.any() and not objectness.grad.any()
