"""FCN-32s, 16s and 8s."""

from __future__ import annotations

import pytest
import torch
import torchvision

from models.segmentation.fcn import Fc6And7, fcn
from models.segmentation.semantic import enlarge
from tests.models.segmentation.engines import ENGINES, agreement, enliven, write_onnx
from tests.models.segmentation.scenes import CLASSES, learned_by_heart, scenes
from tests.models.segmentation.small_trunk import small_trunk

WAYS = [("sum", "transposed"), ("concatenate", "resize")]


@pytest.mark.parametrize(("fuse", "upsampling"), WAYS)
def test_four_pictures_are_learned_by_heart(fuse, upsampling):
    torch.manual_seed(0)
    network = fcn(small_trunk((8, 16, 32)), CLASSES, fuse=fuse, upsampling=upsampling)
    assert learned_by_heart(network, steps=60, rate=1e-2) > 0.95


@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2", "resnet50"])
@pytest.mark.parametrize(("fuse", "upsampling"), WAYS)
def test_frames_of_any_size_get_a_class_for_every_pixel(backbone, fuse, upsampling):
    network = fcn(backbone, 5, fuse=fuse, upsampling=upsampling, width=16).eval()
    for frame_hw in ((33, 50), (61, 83)):
        frames = torch.randint(0, 256, (2, *frame_hw, 3), dtype=torch.uint8)
        with torch.inference_mode():
            (classes,) = network.prepare(frame_hw)(frames)
        assert classes.dtype == torch.uint8
        assert classes.shape == (2, *frame_hw)


@pytest.mark.parametrize(("fuse", "upsampling"), WAYS)
def test_engines_see_the_same_classes(fuse, upsampling, tmp_path):
    torch.manual_seed(0)
    frames = scenes().frames
    network = fcn(small_trunk((8, 16, 32)), CLASSES, fuse=fuse, upsampling=upsampling)
    enliven(network, frames).prepare(tuple(frames.shape[1:3]))
    with torch.inference_mode():
        (classes,) = network(frames)
    assert len(classes.unique()) > 1
    write_onnx(network, tuple(frames.shape[1:3]), tmp_path / "m.onnx")
    for run in ENGINES.values():
        assert agreement(classes, run(tmp_path / "m.onnx", frames)) >= 0.999
        assert agreement(classes[:1], run(tmp_path / "m.onnx", frames[:1])) >= 0.999


def test_all_ways_of_fusing_and_upsampling_begin_as_the_same_network():
    torch.manual_seed(0)
    one = fcn(small_trunk((8, 16, 32)), CLASSES).eval()
    other = fcn(small_trunk((8, 16, 32)), CLASSES, fuse="concatenate", upsampling="resize").eval()
    other.load_state_dict(
        {k: v for k, v in one.state_dict().items() if "doubles" not in k and "enlarge" not in k},
        strict=False,
    )
    images = torch.randn(1, 3, 448, 448)
    with torch.inference_mode():
        ones, others = one.scores(images), other.scores(images)
    inner = slice(128, -128)  # transposed convolutions miss neighbours at the border
    torch.testing.assert_close(ones[..., inner, inner], others[..., inner, inner])


def test_without_skips_it_is_the_enlarged_score_of_the_last_map():
    torch.manual_seed(0)
    network = fcn(small_trunk((32,)), CLASSES, finest=32).eval()
    images = torch.randn(1, 3, 192, 256)
    with torch.inference_mode():
        coarse = network.classifiers[0](network.backbone(images)[32])
        expected = enlarge(coarse, (192, 256))
        torch.testing.assert_close(
            network.scores(images)[..., 16:-16, 16:-16], expected[..., 16:-16, 16:-16]
        )


def test_the_top_of_vgg_as_convolutions_says_what_the_classifier_says():
    torch.manual_seed(0)
    top = Fc6And7(512, 32).eval()
    layers = [torch.nn.Linear(512 * 49, 32), torch.nn.Linear(32, 32)]
    state = {
        f"classifier.{i}.{kind}": getattr(layer, kind)
        for i, layer in zip((0, 3), layers, strict=True)
        for kind in ("weight", "bias")
    }
    top.load_classifier(state)
    features = torch.rand(2, 512, 7, 7)
    expected = layers[1](layers[0](features.flatten(1)).relu()).relu()
    torch.testing.assert_close(top(features)[:, :, 3, 3], expected)


def test_the_top_has_the_shape_of_the_classifier_of_torchvision():
    with torch.device("meta"):
        layers = torchvision.models.vgg16(weights=None).classifier
        top = Fc6And7(512, 4096)
    for ours, theirs in ((top[0], layers[0]), (top[3], layers[3])):
        assert ours.weight.numel() == theirs.weight.numel()
        assert ours.bias.shape == theirs.bias.shape
