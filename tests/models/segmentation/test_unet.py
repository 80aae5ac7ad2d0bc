"""U-Net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.segmentation.unet import Border, unet, unet_with_trunk
from tests.models.segmentation.engines import ENGINES, agreement, enliven, write_onnx
from tests.models.segmentation.scenes import CLASSES, learned_by_heart, scenes
from tests.models.segmentation.small_trunk import small_trunk

SMALL = {
    "scratch": lambda: unet(CLASSES, width=8, depth=4),
    "scratch, without batch norm": lambda: unet(CLASSES, width=8, depth=4, batch_norm=False),
    "scratch, resized": lambda: unet(CLASSES, width=8, depth=4, doubling="resize"),
    "trunk": lambda: unet_with_trunk(small_trunk(), CLASSES),
}


@pytest.mark.parametrize("name", SMALL)
def test_four_pictures_are_learned_by_heart(name):
    torch.manual_seed(0)
    rate = 1e-2 if "without" in name else 3e-2
    assert learned_by_heart(SMALL[name](), steps=80, rate=rate) > 0.95


@pytest.mark.parametrize("frame_hw", [(1, 1), (17, 33), (64, 64), (61, 83)])
def test_what_goes_in_comes_out_in_the_same_size(frame_hw):
    network = unet(3, width=2).eval()
    images = torch.randn(1, 3, *frame_hw)
    with torch.inference_mode():
        assert network.scores(images).shape == (1, 3, *frame_hw)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "mobilenet_v3_large", "resnet18", "vgg16"])
@pytest.mark.parametrize("doubling", ["transposed", "resize"])
def test_a_trunk_may_be_the_way_down_at_any_size(backbone, doubling):
    network = unet_with_trunk(backbone, 5, widths=(4, 4, 8, 8), doubling=doubling).eval()
    for frame_hw in ((33, 50), (61, 83)):
        frames = torch.randint(0, 256, (2, *frame_hw, 3), dtype=torch.uint8)
        with torch.inference_mode():
            (classes,) = network.prepare(frame_hw)(frames)
        assert classes.dtype == torch.uint8
        assert classes.shape == (2, *frame_hw)


@pytest.mark.parametrize("name", ["scratch", "trunk"])
def test_engines_see_the_same_classes(name, tmp_path):
    torch.manual_seed(0)
    frames = scenes().frames
    network = enliven(SMALL[name](), frames).prepare(tuple(frames.shape[1:3]))
    with torch.inference_mode():
        (classes,) = network(frames)
    assert len(classes.unique()) > 1
    write_onnx(network, tuple(frames.shape[1:3]), tmp_path / "m.onnx")
    for run in ENGINES.values():
        assert agreement(classes, run(tmp_path / "m.onnx", frames)) >= 0.999
        assert agreement(classes[:1], run(tmp_path / "m.onnx", frames[:1])) >= 0.999


def test_the_paper_s_network_has_the_paper_s_layers():
    with torch.device("meta"):
        network = unet(2, batch_norm=False)
    assert network.backbone.channels == {1: 64, 2: 128, 4: 256, 8: 512, 16: 1024}
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 23  # "in total the network has 23 convolutional layers"
    assert [up.mix[0].in_channels for up in network.up] == [1024, 512, 256, 128]


def test_a_skip_carries_what_the_coarse_maps_have_lost():
    torch.manual_seed(0)
    network = unet(2, width=4, depth=3, batch_norm=False).eval()
    up = network.up[-1]
    fine = torch.randn(1, 4, 16, 16, requires_grad=True)
    out = up(torch.zeros(1, 8, 8, 8), fine)
    (gradient,) = torch.autograd.grad(out[0, :, 5, 5].sum(), fine)
    assert gradient[0, :, 5, 5].abs().sum() > 0


def test_fewer_widths_start_higher_up():
    network = unet_with_trunk("mobilenet_v2", 5, widths=(8, 8, 16))
    assert network.backbone.strides == (2, 4, 8, 16)
    assert len(network.up) == 3


def loop_weights(labels, parts, border):
    """Equation 2, pixel by pixel, with the objects given."""
    weights = np.ones(labels.shape)
    for place in np.argwhere(labels == 0):
        near = sorted(
            min(np.hypot(*(place - other)) for other in np.argwhere(parts == part))
            for part in np.unique(parts[parts > 0])
        )
        spread = 2 * border.reach_pixels**2
        weights[tuple(place)] += border.weight * np.exp(-((near[0] + near[1]) ** 2) / spread)
    return weights


def test_pixels_between_objects_weigh_more():
    labels = np.zeros((12, 16), np.uint8)
    labels[2:9, 1:6], labels[3:10, 7:12], labels[5:7, 13:15] = 1, 1, 2
    labels[0, 15] = 255
    parts = np.zeros(labels.shape, int)
    parts[2:9, 1:6], parts[3:10, 7:12], parts[5:7, 13:15] = 1, 2, 3
    border = Border(weight=10, reach_pixels=2)
    weights = border.weights(labels)
    np.testing.assert_allclose(weights, loop_weights(labels, parts, border), rtol=1e-4)
    assert weights[5, 6] > 5  # the gap of one pixel
    assert weights[5, 3] == 1


def test_one_object_alone_has_no_border_to_another():
    labels = np.zeros((6, 6), np.uint8)
    assert (Border().weights(labels) == 1).all()
    labels[2:4, 2:4] = 3
    assert (Border().weights(labels) == 1).all()


def test_the_loss_hears_of_borders():
    torch.manual_seed(0)
    network = unet(CLASSES, width=4, depth=3)
    plain = network.losses(scenes())["pixel"]
    network.border = Border(weight=10, reach_pixels=5)
    weighted = network.losses(scenes())["pixel"]
    assert weighted.isfinite()
    assert weighted != plain
