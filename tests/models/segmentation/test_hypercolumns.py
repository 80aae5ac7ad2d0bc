"""Hypercolumns: dense, and as masks for boxes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.segmentation.hypercolumns import (
    BoxRefiner,
    ColumnParts,
    columns,
    grid_shares,
    hypercolumns,
    sum_enlarged,
)
from tests.models.segmentation.engines import ENGINES, agreement, enliven, write_onnx
from tests.models.segmentation.scenes import CLASSES, SCENE_HW, learned_by_heart, scenes
from tests.models.segmentation.small_trunk import small_trunk


@pytest.mark.parametrize("hidden", [None, 32])
def test_four_pictures_are_learned_by_heart(hidden):
    torch.manual_seed(0)
    network = hypercolumns(
        small_trunk((2, 4, 8, 16, 32)), CLASSES, strides=(2, 4, 8), hidden=hidden
    )
    assert learned_by_heart(network, steps=80, rate=3e-2) > 0.95


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "mobilenet_v2", "mobilenet_v3_large"])
def test_frames_of_any_size_get_a_class_for_every_pixel(backbone):
    network = hypercolumns(backbone, 5).eval()
    for frame_hw in ((33, 50), (61, 83)):
        frames = torch.randint(0, 256, (2, *frame_hw, 3), dtype=torch.uint8)
        with torch.inference_mode():
            (classes,) = network.prepare(frame_hw)(frames)
        assert classes.dtype == torch.uint8
        assert classes.shape == (2, *frame_hw)


def test_classifying_the_parts_equals_classifying_the_stacked_column():
    torch.manual_seed(0)
    features = {
        4: torch.randn(2, 5, 13, 17),
        8: torch.randn(2, 7, 7, 9),
        16: torch.randn(2, 3, 4, 5),
    }
    parts = ColumnParts({4: 5, 8: 7, 16: 3}, 6)
    with torch.no_grad():
        for part in parts.of_stride.values():
            torch.nn.init.normal_(part.weight)
            torch.nn.init.normal_(part.bias)
    stacked = columns(features, (13, 17))
    assert stacked.shape == (2, 15, 13, 17)
    weight, bias = parts.whole()
    expected = torch.einsum("oc,nchw->nohw", weight, stacked) + bias[:, None, None]
    torch.testing.assert_close(sum_enlarged(parts(features), (13, 17)), expected)


def test_engines_see_the_same_classes(tmp_path):
    torch.manual_seed(0)
    frames = scenes().frames
    network = enliven(hypercolumns(small_trunk(), CLASSES, hidden=16), frames).prepare(SCENE_HW)
    with torch.inference_mode():
        (classes,) = network(frames)
    assert len(classes.unique()) > 1
    write_onnx(network, SCENE_HW, tmp_path / "m.onnx")
    for run in ENGINES.values():
        assert agreement(classes, run(tmp_path / "m.onnx", frames)) >= 0.999
        assert agreement(classes[:1], run(tmp_path / "m.onnx", frames[:1])) >= 0.999


def test_the_shares_of_the_grid_are_those_of_bilinear_interpolation():
    shares = grid_shares(5, 50)
    torch.testing.assert_close(shares.sum(0), torch.ones(50, 50))
    assert shares[0, 0, 0] == 1  # in the corner the corner's classifier speaks alone
    middle = shares[:, 24:26, 24:26].mean((1, 2))
    assert middle.argmax() == 12
    by_hand = (1 - abs((24 + 0.5) / 10 - 0.5 - 2)) ** 2
    assert shares[12, 24, 24].item() == pytest.approx(by_hand)


def loop_masks(refiner, features, boxes, frame_hw):
    """Cell by cell: its column, every classifier's opinion, and who is heard."""
    weight, bias = refiner.parts.whole()
    masks = torch.zeros(len(boxes), refiner.cells, refiner.cells)
    for r, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for i in range(refiner.cells):
            for j in range(refiner.cells):
                x = x1 + (x2 - x1) * (j + 0.5) / refiner.cells
                y = y1 + (y2 - y1) * (i + 0.5) / refiner.cells
                column = torch.cat([at(m[0], x, y, frame_hw) for m in features.values()])
                opinions = (weight @ column + bias).sigmoid()
                masks[r, i, j] = (opinions * refiner.shares[:, i, j]).sum()
    return masks


def at(maps, x, y, frame_hw):
    """(C, h, w) at a place in pixels of the frame, bilinear."""
    height, width = maps.shape[1:]
    column = min(max(x * width / frame_hw[1] - 0.5, 0), width - 1)
    row = min(max(y * height / frame_hw[0] - 0.5, 0), height - 1)
    left, top = int(column), int(row)
    right, below = min(left + 1, width - 1), min(top + 1, height - 1)
    u, v = column - left, row - top
    upper = (1 - u) * maps[:, top, left] + u * maps[:, top, right]
    return (1 - v) * upper + v * ((1 - u) * maps[:, below, left] + u * maps[:, below, right])


def test_masks_agree_with_the_loop_version():
    torch.manual_seed(0)
    refiner = BoxRefiner({4: 3, 8: 2}, grid=3, cells=7)
    for part in refiner.parts.of_stride.values():
        torch.nn.init.normal_(part.weight)
    features = {4: torch.randn(1, 3, 8, 10), 8: torch.randn(1, 2, 4, 5)}
    boxes = torch.tensor([[2.0, 3.0, 20.0, 30.0], [0.0, 0.0, 40.0, 32.0], [30.5, 8.0, 39.0, 9.0]])
    with torch.no_grad():
        masks = refiner(features, boxes[None], (32, 40))
        expected = loop_masks(refiner, features, boxes, (32, 40))
    torch.testing.assert_close(masks[0], expected, atol=1e-5, rtol=1e-4)


def test_boxes_get_the_masks_of_their_objects():
    """A disc in a box: no box holds it, but its pixels can be told from the others."""
    torch.manual_seed(0)
    batch = scenes()
    masks = torch.stack([batch.labels == 1, batch.labels == 2], 1)
    boxes = torch.tensor([[surrounding(mask) for mask in pair] for pair in masks])
    trunk = small_trunk((2, 4, 8))
    refiner = BoxRefiner(trunk.channels, grid=3, cells=28)
    images = batch.frames.permute(0, 3, 1, 2) / 127.5 - 1
    optimiser = torch.optim.AdamW([*trunk.parameters(), *refiner.parameters()], lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        refiner.loss(trunk(images), boxes, masks, SCENE_HW).backward()
        optimiser.step()
    with torch.no_grad():
        found = refiner(trunk(images), boxes, SCENE_HW)
    assert found.shape == (4, 2, 28, 28)
    for n in range(4):
        for r in range(2):
            x1, y1, x2, y2 = boxes[n, r].int().tolist()
            size = (y2 - y1, x2 - x1)
            stretched = F.interpolate(found[n, r][None, None], size=size, mode="bilinear")[0, 0]
            truth = masks[n, r, y1:y2, x1:x2]
            overlap = ((stretched > 0.5) & truth).sum() / ((stretched > 0.5) | truth).sum()
            assert overlap > 0.85


def surrounding(mask):
    """x1, y1, x2, y2 of the pixels that are set."""
    y, x = mask.nonzero().unbind(1)
    return [x.min().item(), y.min().item(), x.max().item() + 1.0, y.max().item() + 1.0]


def test_no_boxes_get_no_masks():
    refiner = BoxRefiner({4: 3}, cells=7)
    assert refiner({4: torch.randn(2, 3, 8, 8)}, torch.zeros(2, 0, 4), (32, 32)).shape == (
        2,
        0,
        7,
        7,
    )
