"""DeepLab, v1 to v3+."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.segmentation.convolutions import conv_norm_relu, separable
from models.segmentation.deeplab import (
    ASPP,
    Fc6To8,
    SummedASPP,
    deeplab_v1,
    deeplab_v2,
    deeplab_v3,
    deeplab_v3_plus,
)
from tests.models.segmentation.engines import ENGINES, agreement, enliven, write_onnx
from tests.models.segmentation.scenes import CLASSES, learned_by_heart, scenes
from tests.models.segmentation.small_trunk import small_trunk

SMALL = {
    "v1": lambda: deeplab_v1(small_trunk(), CLASSES, output_stride=4, width=32, rate=2),
    "v2": lambda: deeplab_v2(small_trunk(), CLASSES, output_stride=4, width=32, rates=(1, 2)),
    "v3": lambda: deeplab_v3(
        small_trunk(), CLASSES, output_stride=4, width=32, rates=(1, 2), multi_grid=()
    ),
    "v3+": lambda: deeplab_v3_plus(small_trunk(), CLASSES, width=32, rates=(1, 2, 3)),
}


@pytest.mark.parametrize("version", SMALL)
def test_four_pictures_are_learned_by_heart(version):
    torch.manual_seed(0)
    network = SMALL[version]()
    network.subsample_labels = False  # every fourth label shows edges to two pixels only
    assert learned_by_heart(network, steps=60, rate=3e-2) > 0.95


@pytest.mark.parametrize(
    ("build", "backbone"),
    [
        (deeplab_v1, "mobilenet_v2"),
        (deeplab_v1, "vgg16"),
        (deeplab_v2, "resnet18"),
        (deeplab_v3, "resnet50"),
        (deeplab_v3_plus, "mobilenet_v2"),
        (deeplab_v3_plus, "mobilenet_v3_large"),
    ],
)
@pytest.mark.parametrize("frame_hw", [(33, 50), (61, 83)])
def test_frames_of_any_size_get_a_class_for_every_pixel(build, backbone, frame_hw):
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (2, *frame_hw, 3), dtype=torch.uint8)
    network = enliven(build(backbone, 11, width=16), frames).prepare(frame_hw)
    with torch.inference_mode():
        (classes,) = network(frames)
        probabilities = network.probabilities(frames)
    assert classes.dtype == torch.uint8
    assert classes.shape == (2, *frame_hw)
    chosen = probabilities.gather(1, classes[:, None].long())
    torch.testing.assert_close(chosen[:, 0], probabilities.amax(1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, *frame_hw))


@pytest.mark.parametrize("version", SMALL)
def test_engines_see_the_same_classes(version, tmp_path):
    torch.manual_seed(0)
    frames = scenes().frames
    network = enliven(SMALL[version](), frames).prepare(tuple(frames.shape[1:3]))
    with torch.inference_mode():
        (classes,) = network(frames)
    assert len(classes.unique()) > 1
    write_onnx(network, tuple(frames.shape[1:3]), tmp_path / "m.onnx")
    for run in ENGINES.values():
        assert agreement(classes, run(tmp_path / "m.onnx", frames)) >= 0.999
        assert agreement(classes[:1], run(tmp_path / "m.onnx", frames[:1])) >= 0.999


def test_summed_branches_are_the_sum_of_their_scores():
    torch.manual_seed(0)
    branches = [Fc6To8(8, 3, rate, 16) for rate in (6, 12, 18, 24)]
    aspp = SummedASPP(branches).eval()
    features = torch.randn(2, 8, 9, 7)
    expected = sum(branch(features) for branch in branches)
    torch.testing.assert_close(aspp(features), expected)


def test_image_pooling_tells_every_cell_of_all_others():
    torch.manual_seed(0)
    aspp = ASPP(4, 8, (1,)).eval()
    features = torch.randn(1, 4, 20, 20)
    changed = features.clone()
    changed[0, :, 0, 0] += 50
    assert not torch.equal(aspp(features)[0, :, 19, 19], aspp(changed)[0, :, 19, 19])


def test_large_rates_widen_the_view_without_weights():
    near, far = Fc6To8(4, 2, 1, 8), Fc6To8(4, 2, 12, 8)
    count = [sum(p.numel() for p in layer.parameters()) for layer in (near, far)]
    assert count[0] == count[1]
    features = torch.zeros(1, 4, 41, 41, requires_grad=True)
    torch.manual_seed(0)
    for layer, reach in ((near, 1), (far, 12)):
        nn.init.constant_(layer[0].bias, 1.0)
        (gradient,) = torch.autograd.grad(layer.eval()(features)[0, 0, 20, 20], features)
        seen = gradient[0].abs().sum(0).nonzero()
        assert seen.min().item() == 20 - reach
        assert seen.max().item() == 20 + reach


def test_a_separable_convolution_has_9c_plus_cc_weights_and_not_9cc():
    def weights(block):
        return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv2d))

    assert weights(separable(64, 128)) == 9 * 64 + 64 * 128
    assert weights(conv_norm_relu(64, 128, 3)) == 9 * 64 * 128


def test_an_output_stride_of_eight_keeps_the_weights_and_doubles_the_rates():
    training = deeplab_v3("resnet18", CLASSES, output_stride=16, width=8)
    testing = deeplab_v3("resnet18", CLASSES, output_stride=8, width=8)
    testing.load_state_dict(training.state_dict())

    def rates(network):
        return [m.dilation[0] for m in network.head.modules() if isinstance(m, nn.Conv2d)]

    assert [r for r in rates(training) if r > 1] == [6, 12, 18]
    assert [r for r in rates(testing) if r > 1] == [12, 24, 36]


def test_the_early_versions_learn_from_every_eighth_label():
    torch.manual_seed(0)
    network = deeplab_v1(small_trunk(), CLASSES, width=8).eval()
    batch = scenes((64, 96))
    scores = network.scores(network.normalise(batch.frames))
    assert scores.shape[2:] == (8, 12)
    expected = nn.functional.cross_entropy(
        scores, batch.labels[:, 4::8, 4::8].long(), ignore_index=255
    )
    torch.testing.assert_close(network.losses(batch)["pixel"], expected)
