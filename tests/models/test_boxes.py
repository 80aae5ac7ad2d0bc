"""Boxes and their suppression, against loops written out by hand."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models.detection._utils import BoxCoder

from models.boxes import area, both_sides_at_least, clip, decode, encode, iou, overlap_more_than
from models.detection.suppression import fixpoint_nms, greedy_nms


def random_boxes(*shape: int, seed: int = 0, side: float = 100.0) -> torch.Tensor:
    """(*shape, 4), crowded enough that most overlap some other."""
    source = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=source) * side
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=source) * side / 2], -1)


def nms_by_hand(boxes, valid, labels, threshold) -> list[bool]:
    """Greedy suppression in the order of rank, one box after the other."""
    kept: list[int] = []
    for i in range(len(boxes)):
        rivals = [j for j in kept if labels[j] == labels[i]]
        if valid[i] and all(iou(boxes[i : i + 1], boxes[j : j + 1]) <= threshold for j in rivals):
            kept.append(i)
    return [i in kept for i in range(len(boxes))]


def test_iou_agrees_with_torchvision_and_is_zero_between_empty_boxes():
    a, b = random_boxes(20), random_boxes(30, seed=1)
    torch.testing.assert_close(iou(a, b), torchvision.ops.box_iou(a, b))
    assert iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0.0


def test_overlap_is_a_strict_threshold_on_iou():
    boxes = random_boxes(2, 40)
    assert torch.equal(overlap_more_than(boxes, 0.3), iou(boxes, boxes) > 0.3)
    halves = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    assert not overlap_more_than(halves, 0.5)[0, 1]


def test_coding_a_box_and_back_gives_the_box():
    boxes, anchors = random_boxes(50), random_boxes(50, seed=1)
    deltas = encode(boxes, anchors, (10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(decode(deltas, anchors, (10.0, 10.0, 5.0, 5.0)), boxes)


def test_coding_agrees_with_torchvision_also_for_absurd_deltas():
    boxes, anchors = random_boxes(50), random_boxes(50, seed=1)
    theirs = BoxCoder((10.0, 10.0, 5.0, 5.0))
    expected = theirs.encode_single(boxes, anchors)
    torch.testing.assert_close(encode(boxes, anchors, theirs.weights), expected)
    deltas = torch.randn(50, 4) * 40  # exp() must be held back
    expected = theirs.decode_single(deltas, anchors)
    torch.testing.assert_close(decode(deltas, anchors, theirs.weights), expected)


def test_clipping_takes_one_size_or_one_per_image():
    boxes = random_boxes(2, 30) - 20
    for sizes in ([(50, 60), (50, 60)], [(50, 60), (90, 30)]):
        expected = [
            torchvision.ops.clip_boxes_to_image(boxes[i], size) for i, size in enumerate(sizes)
        ]
        assert torch.equal(clip(boxes, torch.tensor(sizes)), torch.stack(expected))
    assert torch.equal(clip(boxes, (50, 60)), clip(boxes, torch.tensor([(50, 60)] * 2)))


def test_area_and_side_test_use_continuous_edges():
    box = torch.tensor([1.0, 2.0, 4.0, 2.5])
    assert area(box).item() == 1.5
    assert both_sides_at_least(box, 0.5).item() and not both_sides_at_least(box, 0.51).item()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("suppress", [greedy_nms, fixpoint_nms(40)], ids=["greedy", "fixpoint"])
def test_suppression_equals_the_loop_by_hand(suppress, threshold):
    boxes = random_boxes(3, 40)
    valid = torch.rand(3, 40) > 0.2
    labels = torch.randint(0, 3, (3, 40))
    keep, exact = suppress(boxes, valid, labels, 3, threshold)
    expected = [nms_by_hand(*group, threshold) for group in zip(boxes, valid, labels, strict=True)]
    assert keep.tolist() == expected
    assert exact.all()
    keep, _ = suppress(boxes, valid, None, 1, threshold)
    one = torch.zeros_like(labels)
    expected = [nms_by_hand(*group, threshold) for group in zip(boxes, valid, one, strict=True)]
    assert keep.tolist() == expected


def test_the_fixpoint_confesses_when_a_chain_is_longer_than_its_iterations():
    shift = torch.arange(20.0)[:, None] * 3  # each overlaps its neighbours only
    boxes = (torch.tensor([[0.0, 0.0, 10.0, 10.0]]) + shift * torch.tensor([1.0, 0.0, 1.0, 0.0]))[
        None
    ]
    valid = torch.ones(1, 20, dtype=torch.bool)
    _, short = fixpoint_nms(8)(boxes, valid, None, 1, 0.5)
    keep, full = fixpoint_nms(21)(boxes, valid, None, 1, 0.5)
    assert not short.item() and full.item()
    assert keep[0].tolist() == [i % 2 == 0 for i in range(20)]


def test_an_empty_group_keeps_nothing_and_is_exact():
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    for suppress in (greedy_nms, fixpoint_nms(2)):
        keep, exact = suppress(torch.zeros(2, 5, 4), nothing, None, 1, 0.5)
        assert not keep.any() and exact.all()
