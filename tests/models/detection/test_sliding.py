"""A classifier that slides, against one that is carried from window to window."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.overfeat import (
    ACCURATE,
    FAST,
    Layer,
    map_stride,
    overfeat_trunk,
    window_pixels,
)
from models.detection.overfeat import PAPER_SCALES, Layers, OverFeat, OverFeatSettings, assemble
from models.detection.sliding import Windows, dense_head, offset_max_pool, pyramid


def pooled_with_offset(maps: Tensor, size: int, dy: int, dx: int) -> Tensor:
    """Non-overlapping pooling of what is left when rows and columns are skipped (fig. 3 b)."""
    return F.max_pool2d(maps[:, :, dy:, dx:], size)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("map_hw", [(15, 15), (17, 20), (13, 22)])
def test_offset_pooling_agrees_with_one_pooling_for_each_offset(size, map_hw):
    torch.manual_seed(0)
    maps = torch.randn(2, 4, *map_hw)
    pooled = offset_max_pool(maps, size)
    for dy in range(size):
        for dx in range(size):
            own = pooled_with_offset(maps, size, dy, dx)
            torch.testing.assert_close(pooled[:, :, dy::size, dx::size], own, rtol=0, atol=0)


@pytest.mark.parametrize("size", [2, 3])
def test_a_dilated_head_on_all_offsets_is_the_plain_head_on_each(size):
    torch.manual_seed(0)
    maps, cells = torch.randn(1, 4, 17, 20), 5 if size == 3 else 6
    head = dense_head(4, (8, 8), 3, cells=cells, pool=size, dropout=0.0)
    plain = nn.Sequential(nn.Conv2d(4, 8, cells), *list(head)[1:])
    plain[0].load_state_dict(head[0].state_dict())
    dense = head(offset_max_pool(maps, size))
    for dy in range(size):
        for dx in range(size):
            own = plain(pooled_with_offset(maps, size, dy, dx))  # fig. 3 c and d
            torch.testing.assert_close(dense[:, :, dy::size, dx::size], own)


def narrow(layers: tuple[Layer, ...], padding: int | None = None) -> tuple[Layer, ...]:
    """A table with fewer channels, and with another zero padding where it has any."""
    return tuple(
        layer._replace(
            channels=layer.channels // 32,
            padding=layer.padding if padding is None else min(padding, layer.padding),
        )
        for layer in layers
    )


def lively(network: OverFeat) -> OverFeat:
    """Weights with which every layer still says something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


TABLES = {"fast": (FAST, 6, 231), "accurate": (ACCURATE, 5, 221)}


def small(table: str, padding: int | None = None) -> OverFeat:
    layers, cells, _ = TABLES[table]
    layers = narrow(layers, padding)
    sizes = Layers(layers[-1].pool, cells, classifier=(16, 16), regressor=(16, 8), dropout=0.5)
    pixels = window_pixels(layers, cells)
    return lively(assemble(overfeat_trunk(layers), sizes, pixels, 3, OverFeatSettings()))


@pytest.mark.parametrize("table", TABLES)
def test_the_dense_evaluation_is_the_sliding_window_computed_naively(table):
    """Without zero padding, of which a window in the middle of a picture sees nothing."""
    network = small(table, padding=0)
    side, stride = network.windows.pixels, network.windows.stride
    images = torch.randn(1, 3, side + 4 * stride, side + 7 * stride)
    with torch.inference_mode():
        logits, edges = network.look(images)
        crops = [
            images[:, :, y : y + side, x : x + side]
            for x1, y1, x2, y2 in network.windows(images.shape[-2:]).tolist()
            for x, y in [(int(x1), int(y1))]
            if (x2 - x1, y2 - y1) == (side, side)
        ]
        one_by_one = [network.look(crop) for crop in crops]
    assert len(crops) == 5 * 8
    naive_logits, naive_edges = (torch.cat(part, 1) for part in zip(*one_by_one, strict=True))
    assert naive_logits.std() > 0.1
    torch.testing.assert_close(logits, naive_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(edges, naive_edges, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("table", TABLES)
def test_the_zero_padding_of_the_tables_is_felt_at_a_windows_border_only(table):
    network = small(table)
    side, stride = network.windows.pixels, network.windows.stride
    layers = TABLES[table][0]
    deep = sum(layer.padding for layer in layers)
    images = torch.randn(1, 3, side + 2 * stride, side + 2 * stride)
    with torch.inference_mode():
        (whole,) = network.backbone(images).values()
        crop = images[:, :, stride : stride + side, stride : stride + side]
        (own,) = network.backbone(crop).values()
    height, width = own.shape[-2:]
    shared = whole[:, :, 1 : 1 + height, 1 : 1 + width]
    inner = (..., slice(deep, height - deep), slice(deep, width - deep))
    torch.testing.assert_close(shared[inner], own[inner], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shared, own, rtol=1e-2)


@pytest.mark.parametrize("table", TABLES)
def test_a_window_of_the_paper_is_as_large_as_its_table_says(table):
    layers, cells, side = TABLES[table]
    assert window_pixels(layers, cells) == side
    trunk = overfeat_trunk(narrow(layers))
    (features,) = trunk(torch.zeros(1, 3, side, side)).values()
    assert features.shape[-2:] == (cells * layers[-1].pool,) * 2
    assert trunk.strides == (map_stride(layers),) == ({"fast": 16, "accurate": 12}[table],)


@pytest.mark.parametrize(
    ("image_hw", "before_hw", "classes_hw"),
    [
        ((245, 245), (17, 17), (3, 3)),
        ((281, 317), (20, 23), (6, 9)),
        ((317, 389), (23, 29), (9, 15)),
        ((389, 461), (29, 35), (15, 21)),
        ((425, 497), (32, 38), (18, 24)),  # the paper prints 35; 24 needs 38
        ((461, 569), (35, 44), (21, 30)),
    ],
)
def test_the_six_scales_give_the_maps_of_table_5(image_hw, before_hw, classes_hw):
    network = small("accurate")
    assert image_hw[0] in PAPER_SCALES
    assert network.windows.fit(image_hw, image_hw[0]) == image_hw
    with torch.device("meta"):
        images = torch.empty(1, 3, *image_hw)
    network = network.to("meta")
    (features,) = network.backbone(images).values()
    assert features.shape[-2:] == before_hw
    assert network.classifier(offset_max_pool(features, 3)).shape[-2:] == classes_hw
    assert len(network.windows(image_hw)) == classes_hw[0] * classes_hw[1]


@pytest.mark.parametrize("size_hw", [(33, 1000), (97, 96), (480, 360), (1, 1)])
@pytest.mark.parametrize("short", [50, 96, 200])
def test_windows_cover_a_picture_of_any_size_to_the_last_pixel(size_hw, short):
    windows = Windows(96, 16)
    fitted = windows.fit(size_hw, short)
    boxes = windows(fitted)
    assert boxes[0].tolist() == [0, 0, 96, 96]
    assert boxes[-1, 2:].tolist() == list(fitted[::-1])
    assert len(boxes.unique(dim=0)) == len(boxes)
    assert abs(min(fitted) - max(short, 96)) <= 8


def test_each_scale_is_made_of_the_next_larger_one():
    images = torch.rand(1, 3, 90, 120)
    scaled = pyramid(images, [(30, 40), (90, 120), (120, 160)])
    assert [tuple(x.shape[-2:]) for x in scaled] == [(30, 40), (90, 120), (120, 160)]
    again = F.interpolate(scaled[2], size=(90, 120), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scaled[1], again)
