"""Which window learns which object."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from models.detection.losses import NEITHER
from models.detection.sliding import Windows
from models.detection.windows import (
    Contents,
    Lesson,
    WindowRule,
    contents,
    draw,
    edges_in,
    scaled_truth,
    window_losses,
)
from tests.models.detection.toys import truth

RULE = WindowRule(inside=0.5, smallest=0.4, largest=1.0, margin=1.5)


def slow_contents(window, objects, rule):
    """Verdict and object of one window, from the words of the rule."""
    x1, y1, x2, y2 = window
    own, near = [], False
    for number, (a1, b1, a2, b2) in enumerate(objects):
        shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
        inside = shared / ((a2 - a1) * (b2 - b1))
        length = max(a2 - a1, b2 - b1) / (x2 - x1)
        if inside >= rule.inside and rule.smallest <= length <= rule.largest:
            apart = math.dist(((x1 + x2) / 2, (y1 + y2) / 2), ((a1 + a2) / 2, (b1 + b2) / 2))
            own.append((apart, number))
        near |= (
            inside >= rule.inside / 2
            and rule.smallest / rule.margin <= length <= rule.largest * rule.margin
        )
    return (1, min(own)[1]) if own else (NEITHER if near else 0, None)


def test_contents_agree_with_the_slow_twin():
    torch.manual_seed(0)
    corner = torch.rand(12, 2) * 200
    boxes = torch.cat([corner, corner + 8 + 120 * torch.rand(12, 2)], 1)
    known = truth(boxes.tolist(), list(range(12)))
    windows = Windows(96, 16)((240, 304))
    found = contents(windows, known, RULE)
    expected = [slow_contents(w, boxes.tolist(), RULE) for w in windows.tolist()]
    assert {verdict for verdict, _ in expected} == {1, 0, NEITHER}
    assert found.verdict.tolist() == [verdict for verdict, _ in expected]
    for i, (_, number) in enumerate(expected):
        if number is not None:
            assert found.class_ids[i] == number
            side = edges_in(windows[i : i + 1], boxes[number : number + 1])
            torch.testing.assert_close(found.edges[i : i + 1], side)


def test_edges_are_counted_from_the_windows_corner_in_its_sides():
    window, box = torch.tensor([[10.0, 20, 110, 120]]), torch.tensor([[10.0, 70, 60, 145]])
    torch.testing.assert_close(edges_in(window, box), torch.tensor([[0.0, 0.5, 0.5, 1.25]]))


def test_a_picture_without_objects_is_all_background():
    found = contents(Windows(96, 16)((96, 128)), truth([], []), RULE)
    assert found.verdict.tolist() == [0, 0, 0]


def test_nothing_is_said_about_windows_in_a_region_of_which_nothing_is_known():
    windows = Windows(96, 96)((96, 192))
    known = truth([], [], ignored=[[96, 0, 192, 60]])
    assert contents(windows, known, RULE).verdict.tolist() == [0, NEITHER]


def test_the_truth_of_a_frame_is_stretched_with_it():
    known = truth([[10, 10, 20, 30]], [2], ignored=[[0, 0, 50, 50]])
    scaled = scaled_truth(known, (100, 200), (200, 300), torch.device("cpu"))
    assert scaled.boxes.tolist() == [[15, 20, 30, 60]]
    assert scaled.ignored.tolist() == [[0, 0, 75, 100]]


def in_windows(verdict: list[int]) -> Contents:
    count = len(verdict)
    return Contents(torch.tensor(verdict), torch.arange(count), torch.rand(count, 4))


def test_half_of_the_background_are_the_worst_mistakes():
    torch.manual_seed(0)
    found = in_windows([1] * 4 + [0] * 100 + [NEITHER] * 10)
    logits = torch.zeros(114, 3)
    logits[[50, 70], 1] = 9.0  # sure of what is not there
    logits[110:, 1] = 99.0  # neither: nobody minds
    lesson = draw(found, logits, most=16)
    assert lesson.windows[:4].sort().values.tolist() == [0, 1, 2, 3]
    assert {50, 70} <= set(lesson.windows[4:].tolist())
    assert lesson.labels[:4].tolist() == (lesson.windows[:4] + 1).tolist()
    assert lesson.labels[4:].tolist() == [0] * 4
    assert lesson.windows.max() < 104


@pytest.mark.parametrize("verdict", [[NEITHER] * 3, [0], [1] * 50, []])
def test_a_lesson_takes_what_there_is(verdict):
    lesson = draw(in_windows(verdict), torch.zeros(len(verdict), 60), most=16)
    assert len(lesson.windows) == min(sum(v == 1 for v in verdict), 8) + verdict.count(0)


def test_losses_are_the_means_over_windows_and_over_objects():
    torch.manual_seed(0)
    logits, edges = torch.randn(2, 5, 3), torch.randn(2, 5, 8)
    first = Lesson(torch.tensor([4, 0]), torch.tensor([2, 0]), torch.rand(2, 4))
    second = Lesson(torch.tensor([1]), torch.tensor([0]), torch.rand(1, 4))
    entropy, error = window_losses(logits, edges, [first, second])
    rows, labels = torch.stack([logits[0, 4], logits[0, 0], logits[1, 1]]), torch.tensor([2, 0, 0])
    torch.testing.assert_close(entropy, F.cross_entropy(rows, labels))
    torch.testing.assert_close(error, (edges[0, 4, 4:] - first.edges[0]).square().sum())


def test_losses_of_nothing_are_zero_and_still_have_a_gradient():
    logits = torch.zeros(1, 4, 3, requires_grad=True)
    edges = torch.zeros(1, 4, 8, requires_grad=True)
    nothing = Lesson(
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)
    )
    losses = window_losses(logits, edges, [nothing])
    assert [x.item() for x in losses] == [0, 0]
    sum(losses).backward()
    assert logits.grad is not None
