"""Pooling of windows by tables equals the loops it stands for."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor

from models.backbones.alexnet import alexnet
from models.backbones.mobilenet import mobilenet_v2
from models.backbones.resnet import resnet18
from models.backbones.vgg import vgg16
from models.detection.region_pooling import (
    centred_windows,
    first_centre_of,
    max_over_windows,
    pyramid,
    rounded_windows,
)


def pooled_by_loops(features: Tensor, window: list[int], grid: int) -> Tensor:
    """(C, h, w), cells ``x1, y1, x2, y2`` with open ends -> (C, grid, grid); empty bins are 0."""
    x1, y1, x2, y2 = window
    channels, height, width = features.shape
    bins = torch.zeros(channels, grid, grid)
    for i in range(grid):
        for j in range(grid):
            top = min(max(y1 + (i * (y2 - y1)) // grid, 0), height)
            left = min(max(x1 + (j * (x2 - x1)) // grid, 0), width)
            bottom = min(max(y1 + -(-((i + 1) * (y2 - y1)) // grid), 0), height)
            right = min(max(x1 + -(-((j + 1) * (x2 - x1)) // grid), 0), width)
            if bottom > top and right > left:
                bins[:, i, j] = features[:, top:bottom, left:right].amax((1, 2))
    return bins


def random_windows(count: int, map_hw: tuple[int, int]) -> Tensor:
    """(count, 4) cells, some one cell small, some over the border by up to two cells."""
    height, width = map_hw
    x = torch.stack([torch.randint(-1, width + 2, (count,)) for _ in range(2)]).sort(0).values
    y = torch.stack([torch.randint(-1, height + 2, (count,)) for _ in range(2)]).sort(0).values
    return torch.stack([x[0], y[0], x[1] + 1, y[1] + 1], 1)


def random_boxes(count: int, size_hw: tuple[int, int]) -> Tensor:
    height, width = size_hw
    corners = torch.rand(2, count, 2) * torch.tensor([width, height])
    return torch.cat([corners.amin(0), corners.amax(0)], 1)


@pytest.mark.parametrize("grid", [1, 2, 4, 6, 7])
@pytest.mark.parametrize("map_hw", [(5, 9), (24, 31), (1, 3)])
def test_the_maximum_by_tables_equals_the_maximum_by_loops(grid, map_hw):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *map_hw) - 2  # mostly negative: a 0 of an empty bin would show
    windows = random_windows(40, map_hw).reshape(2, 20, 4)
    bins = max_over_windows([maps], torch.zeros(2, 20, dtype=torch.long), windows, grid)
    expected = [
        pooled_by_loops(maps[i], window, grid) for i in range(2) for window in windows[i].tolist()
    ]
    assert torch.equal(bins, torch.stack(expected))


def test_windows_of_several_maps_are_pooled_each_from_its_own():
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 7, 9), torch.randn(2, 3, 20, 26), torch.randn(2, 3, 11, 13)]
    level = torch.randint(0, 3, (2, 30))
    windows = torch.stack(
        [random_windows(1, maps[m].shape[2:])[0] for m in level.flatten().tolist()]
    ).reshape(2, 30, 4)
    bins = max_over_windows(maps, level, windows, 6)
    expected = [
        pooled_by_loops(maps[level[i, r]][i], windows[i, r].tolist(), 6)
        for i in range(2)
        for r in range(30)
    ]
    assert torch.equal(bins, torch.stack(expected))


@pytest.mark.parametrize("size_hw", [(375, 500), (97, 641), (16, 16)])
def test_roi_pooling_equals_torchvision_to_the_last_bit(size_hw):
    torch.manual_seed(0)
    features = torch.randn(1, 5, size_hw[0] // 16, size_hw[1] // 16)
    boxes = random_boxes(300, size_hw)
    boxes[:20] = (boxes[:20] / 8).round() * 8  # corners half way between two cells, too
    boxes[20, 2:] = boxes[20, :2]
    windows = rounded_windows(boxes[None], 16)
    bins = max_over_windows([features], torch.zeros(1, 300, dtype=torch.long), windows, 7)
    expected = torchvision.ops.roi_pool(features, [boxes], 7, 1 / 16)
    assert torch.equal(bins, expected)


def test_gradients_of_pooling_by_tables_are_those_of_torchvision():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 12, 15, dtype=torch.float64, requires_grad=True)
    boxes, share = random_boxes(20, (96, 120)).double(), torch.randn(20, 2, 4, 4).double()
    windows = rounded_windows(boxes[None], 8)
    bins = max_over_windows([features], torch.zeros(1, 20, dtype=torch.long), windows, 4)
    (own,) = torch.autograd.grad((bins * share).sum(), features)
    theirs = torchvision.ops.roi_pool(features, [boxes], 4, 1 / 8)
    (expected,) = torch.autograd.grad((theirs * share).sum(), features)
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("grids", [(6, 3, 2, 1), (4, 2, 1)])
def test_a_pyramid_built_from_its_finest_level_has_the_bins_of_every_level(grids):
    torch.manual_seed(0)
    features = torch.randn(1, 3, 17, 23)
    windows = torch.stack([w for w in random_windows(60, (15, 21)) + 1 if (w >= 0).all()])
    windows = windows.clamp(max=17)
    windows[:, 2:] = torch.maximum(windows[:, 2:], windows[:, :2] + 1)
    level = torch.zeros(1, len(windows), dtype=torch.long)
    found = pyramid(max_over_windows([features], level, windows[None], max(grids)), grids)
    rows = [
        torch.cat([pooled_by_loops(features[0], window, n).flatten() for n in grids])
        for window in windows.tolist()
    ]
    assert found.shape[1] == 3 * {6: 50, 4: 21}[grids[0]]
    assert torch.equal(found, torch.stack(rows))


def test_levels_that_do_not_nest_are_refused():
    with pytest.raises(ValueError, match="divide the finest"):
        pyramid(torch.zeros(1, 1, 6, 6), (6, 4))


def test_a_window_holds_the_cells_whose_middle_lies_in_the_box():
    torch.manual_seed(0)
    boxes = random_boxes(300, (200, 320))
    width, height, first = 18, 11, 15.5
    windows = centred_windows(boxes[None], 16, first, torch.tensor([width, height]))[0]
    for box, window in zip(boxes.tolist(), windows.tolist(), strict=True):
        for axis, cells in ((0, width), (1, height)):
            low, high = box[axis], box[axis + 2]
            inside = [c for c in range(cells) if low < first + 16 * c < high]
            middle = math.floor(((low + high) / 2 - first) / 16 + 0.5)
            nearest = [min(max(middle, 0), cells - 1)]
            assert list(range(window[axis], window[axis + 2])) == (inside or nearest)


def test_the_windows_of_a_trunk_that_pads_half_its_filters_are_those_of_the_appendix():
    stride, boxes = 16, torch.tensor([[[33.0, 40.0, 200.0, 111.0], [16.0, 32.0, 160.0, 96.0]]])
    windows = centred_windows(boxes, stride, 0.0, torch.tensor([40, 40]))
    for box, window in zip(boxes[0].tolist(), windows[0].tolist(), strict=True):
        assert window[:2] == [math.floor(x / stride) + 1 for x in box[:2]]
        assert [end - 1 for end in window[2:]] == [math.ceil(x / stride) - 1 for x in box[2:]]


@pytest.mark.parametrize("build", [alexnet, mobilenet_v2])
def test_the_middle_of_the_first_cell_is_where_its_gradient_has_its_middle(build):
    backbone = build((16,)).eval()
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.Conv2d):  # every input counts, and alike
            torch.nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        elif isinstance(layer, torch.nn.MaxPool2d):  # of equal values only one would count
            layer.forward = lambda x, own=layer: torch.nn.functional.avg_pool2d(
                x, own.kernel_size, own.stride
            )
    images = torch.full((1, 3, 416, 416), 0.01, requires_grad=True)  # small: no ReLU6 is full
    features = backbone(images)[16]
    cell = features.shape[3] // 2  # far from the border, where padding would weigh in
    (gradient,) = torch.autograd.grad(features[0, 0, cell, cell], images)
    weight = gradient[0].sum((0, 1)).double()
    middle = float((weight * (torch.arange(416) + 0.5)).sum() / weight.sum())
    assert middle - 16 * cell == pytest.approx(first_centre_of(backbone.body, 16), abs=0.01)


def test_the_first_cell_of_vgg_has_its_middle_in_the_middle_of_16_pixels():
    # 3x3 convolutions move nothing; four 2x2 poolings halve what lies before them.
    with torch.device("meta"):  # its weights are many, and do not matter
        backbone = vgg16((16,))
    assert first_centre_of(backbone.body, 16) == 8.0


def test_the_middle_of_a_trunk_with_side_branches_is_not_guessed():
    with pytest.raises(ValueError, match="expected 16"):
        first_centre_of(resnet18((16,)).body, 16)
