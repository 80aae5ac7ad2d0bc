"""torchvision's networks behind our promise."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from models.published import WeightsError
from models.segmentation.semantic import enlarge
from models.segmentation.torchvision_twins import (
    TWINS,
    VOC_CLASSES,
    torchvision_twin,
    with_published_weights,
)
from models.weights import class_names_published
from tests.models.segmentation.engines import ENGINES, agreement, enliven, write_onnx
from tests.models.segmentation.scenes import scenes


def original(name):
    """torchvision's own, with random weights and what its published weights contain."""
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    build = getattr(torchvision.models.segmentation, name)
    return build(weights=None, weights_backbone=None, num_classes=VOC_CLASSES, **options)


@pytest.mark.parametrize("name", TWINS)
def test_a_state_dict_of_torchvision_fits_and_says_the_same(name):
    torch.manual_seed(0)
    theirs = original(name).eval()
    frames = scenes().frames[:2]
    with torch.no_grad():
        for norm in theirs.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5)
                norm.running_mean.normal_(0, 0.1)
    ours = torchvision_twin(name).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = ours.normalise(frames)
    with torch.inference_mode():
        expected = theirs(images)
        found = enlarge(ours.scores(images), (61, 83))
        (classes,) = ours.prepare((61, 83))(frames)
    scale = expected["out"].abs().max()
    torch.testing.assert_close(found / scale, expected["out"] / scale, atol=1e-4, rtol=0)
    assert torch.equal(classes, expected["out"].argmax(1).to(torch.uint8))


def test_the_auxiliary_classifier_is_torchvision_s_too():
    torch.manual_seed(0)
    theirs = original("deeplabv3_mobilenet_v3_large").eval()
    ours = torchvision_twin("deeplabv3_mobilenet_v3_large").eval()
    ours.load_state_dict(theirs.state_dict())
    batch = scenes()
    losses = ours.losses(batch)
    expected = theirs(ours.normalise(batch.frames))
    for name, key, share in (("pixel", "out", 1.0), ("auxiliary", "aux", 0.5)):
        by_hand = nn.functional.cross_entropy(expected[key], batch.labels.long(), ignore_index=255)
        torch.testing.assert_close(losses[name], share * by_hand)


def test_without_the_auxiliary_classifier_there_is_one_loss():
    for network in (
        torchvision_twin("deeplabv3_mobilenet_v3_large", auxiliary=False),
        torchvision_twin("lraspp_mobilenet_v3_large"),
    ):
        assert list(network.losses(scenes())) == ["pixel"]


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_engines_see_the_same_classes(name, tmp_path):
    torch.manual_seed(0)
    frames = scenes().frames
    network = enliven(torchvision_twin(name, 5), frames).prepare((61, 83))
    with torch.inference_mode():
        (classes,) = network(frames)
    assert len(classes.unique()) > 1
    write_onnx(network, (61, 83), tmp_path / "m.onnx")
    for run in ENGINES.values():
        assert agreement(classes, run(tmp_path / "m.onnx", frames)) >= 0.999


def test_without_a_network_it_says_what_to_fetch(monkeypatch):
    def unreachable(*args, **options):
        raise URLError("no network")

    entry = torchvision.models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT
    monkeypatch.setattr(type(entry), "get_state_dict", unreachable)
    with pytest.raises(WeightsError, match=r"fetch the file lraspp_.*\.pth elsewhere"):
        with_published_weights("lraspp_mobilenet_v3_large")


def test_published_weights_are_loaded_as_they_are(monkeypatch):
    torch.manual_seed(0)
    theirs = original("lraspp_mobilenet_v3_large")
    entry = torchvision.models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT
    monkeypatch.setattr(type(entry), "get_state_dict", lambda *a, **k: theirs.state_dict())
    ours = with_published_weights("lraspp_mobilenet_v3_large")
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    names = class_names_published("lraspp_mobilenet_v3_large")
    assert len(names) == VOC_CLASSES
    assert (names[0], names[7]) == ("__background__", "car")


def test_a_name_that_torchvision_does_not_have_is_refused():
    with pytest.raises(ValueError, match="known: fcn_resnet50"):
        torchvision_twin("unet")
