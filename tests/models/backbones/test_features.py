"""Trunks keep their promise: maps by stride, torchvision's weights."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from models.backbones.alexnet import alexnet
from models.backbones.features import load_classifier
from models.backbones.mobilenet import mobilenet_v2, mobilenet_v3_large
from models.backbones.resnet import resnet18, resnet50
from models.backbones.vgg import vgg16
from models.training.run import freeze

TRUNKS = {
    "alexnet": (alexnet, (4, 8, 16, 32)),
    "vgg16": (vgg16, (1, 2, 4, 8, 16, 32)),
    "resnet18": (resnet18, (2, 4, 8, 16, 32)),
    "resnet50": (resnet50, (2, 4, 8, 16, 32)),
    "mobilenet_v2": (mobilenet_v2, (2, 4, 8, 16, 32)),
    "mobilenet_v3_large": (mobilenet_v3_large, (2, 4, 8, 16, 32)),
}


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_gives_the_maps_it_promises(name):
    build, strides = TRUNKS[name]
    backbone = build(strides).eval()
    with torch.inference_mode():
        maps = backbone(torch.rand(2, 3, 96, 160))
    assert tuple(maps) == strides
    for stride, features in maps.items():
        assert features.shape[:2] == (2, backbone.channels[stride])
        # AlexNet's layers have no padding that keeps multiples.
        assert abs(features.shape[2] - 96 / stride) <= 1
        assert abs(features.shape[3] - 160 / stride) <= 1


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_computes_what_the_classifier_of_torchvision_computes(name):
    torch.manual_seed(0)
    classifier = torchvision.models.get_model(name, weights=None).eval()
    build, strides = TRUNKS[name]
    backbone = build((strides[-1],)).eval()
    load_classifier(backbone, classifier.state_dict())
    images = torch.rand(1, 3, 64, 96)
    last = list(backbone.body)[-1]
    heard = []
    trunk = getattr(classifier, "features", classifier)
    trunk.get_submodule(last).register_forward_hook(lambda *words: heard.append(words[2]))
    with torch.inference_mode():
        classifier(images)
        (features,) = backbone(images).values()
    torch.testing.assert_close(features, heard[0])


def test_only_the_maps_that_are_wanted_are_computed():
    assert len(mobilenet_v2((8,)).body) < len(mobilenet_v2((32,)).body)


def test_a_stride_that_a_trunk_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"strides 4, 8, 16, 32; asked for \[3\]"):
        alexnet((3,))


def test_weights_of_another_classifier_are_refused():
    state = torchvision.models.mobilenet_v3_large(weights=None).state_dict()
    with pytest.raises(RuntimeError):
        load_classifier(mobilenet_v2(), state)


def test_frozen_parts_and_batch_norms_do_not_learn():
    backbone = mobilenet_v2((32,))
    freeze(nn.ModuleDict({"backbone": backbone}), trunk_parts=4)
    learning = {name for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert learning
    assert not any(name.startswith(("0.", "1.", "2.", "3.")) for name in learning)
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
