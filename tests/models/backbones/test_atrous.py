"""Dilation instead of strides: what was computed before is still there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.backbones.alexnet import alexnet
from models.backbones.atrous import PhasedConv2d, atrous
from models.backbones.features import load_classifier
from models.backbones.mobilenet import mobilenet_v2, mobilenet_v3_large
from models.backbones.resnet import resnet18, resnet50
from models.backbones.vgg import vgg16

# MobileNetV3 is not here: its blocks look at the mean of the whole map, which changes.
TRUNKS = {"mobilenet_v2": mobilenet_v2, "resnet18": resnet18, "resnet50": resnet50, "vgg16": vgg16}


@pytest.mark.parametrize("output_stride", [16, 8, 4])
@pytest.mark.parametrize("name", TRUNKS)
def test_every_nth_cell_of_the_finer_map_is_what_the_coarse_map_was(name, output_stride):
    torch.manual_seed(0)
    coarse = TRUNKS[name]((32,)).eval()
    fine = TRUNKS[name]((32,)).eval()
    fine.load_state_dict(coarse.state_dict())
    atrous(fine, output_stride)
    images = torch.randn(1, 3, 64, 128)
    with torch.inference_mode():
        expected, found = coarse(images)[32], fine(images)[32]
    skip = 32 // output_stride
    assert found.shape[2:] == (64 // output_stride, 128 // output_stride)
    assert expected.std() > 0
    scale = expected.abs().max()
    torch.testing.assert_close(found[..., ::skip, ::skip] / scale, expected / scale)


def test_the_finer_maps_of_the_trunk_do_not_change():
    torch.manual_seed(0)
    plain = mobilenet_v2((4, 8, 16)).eval()
    dense = mobilenet_v2((4, 8, 16, 32)).eval()
    atrous(dense, 16).body.load_state_dict(plain.body.state_dict(), strict=False)
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        for stride, features in plain(images).items():
            torch.testing.assert_close(dense(images)[stride], features)


def test_weights_of_a_classifier_still_fit_and_sizes_may_be_odd():
    backbone = atrous(mobilenet_v3_large((8, 32)), 16).eval()
    state = {f"features.{k}": v for k, v in backbone.body.state_dict().items()}
    load_classifier(backbone, state)
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 65, 99))
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(9, 13), (5, 7)]


def test_multi_grid_changes_the_last_convolutions_only():
    plain, gridded = atrous(resnet50(), 16), atrous(resnet50(), 16, (1, 2, 4))

    def rates(backbone):
        return [
            m.dilation[0]
            for m in backbone.modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        ]

    assert rates(plain)[-3:] == [1, 2, 2]
    assert rates(gridded)[-3:] == [2, 4, 8]
    assert rates(plain)[:-3] == rates(gridded)[:-3]
    with torch.inference_mode():
        assert gridded.eval()(torch.randn(1, 3, 64, 64))[32].shape[2:] == (4, 4)


@pytest.mark.parametrize("size_hw", [(12, 12), (13, 19), (2, 3)])
@pytest.mark.parametrize("rate", [2, 3, 4])
def test_sorted_by_phases_a_convolution_with_holes_gives_and_learns_the_same(rate, size_hw):
    torch.manual_seed(rate)
    plain = nn.Conv2d(6, 6, 3, padding=rate, dilation=rate, groups=6, bias=False).double()
    phased = PhasedConv2d.of(plain)
    images = torch.randn(2, 6, *size_hw, dtype=torch.float64, requires_grad=True)
    towards = torch.randn(2, 6, *size_hw, dtype=torch.float64)
    expected, found = plain(images), phased(images)
    torch.testing.assert_close(found, expected)
    inputs = (images, plain.weight)  # shared
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, towards), torch.autograd.grad(expected, inputs, towards)
    )
    assert torch.equal(phased.eval()(images), expected)


def test_depthwise_convolutions_of_a_dense_trunk_are_phased_and_keep_their_names():
    names = mobilenet_v2((32,)).state_dict().keys()
    dense = atrous(mobilenet_v2((32,)), 8)
    phased = [m for m in dense.modules() if isinstance(m, PhasedConv2d)]
    assert [m.dilation[0] for m in phased] == [2] * 7 + [4] * 3
    assert dense.state_dict().keys() == names


def test_the_stride_of_the_trunk_itself_changes_nothing():
    torch.manual_seed(0)
    backbone = resnet18().eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = backbone(images)[32]
        assert torch.equal(atrous(backbone, 32)(images)[32], before)


def test_strides_that_cannot_be_had_are_refused():
    with pytest.raises(ValueError, match="output stride of 3"):
        atrous(resnet18(), 3)
    with pytest.raises(ValueError, match="output stride of 64"):
        atrous(resnet18(), 64)
    with pytest.raises(ValueError, match="pooling of 3 cells"):
        atrous(alexnet((32,)), 16)
