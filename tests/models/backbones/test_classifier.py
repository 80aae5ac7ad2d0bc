"""Classifiers: torchvision's to the last bit, with and without a top, and carried elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from models import published
from models.backbones.build import BACKBONES, backbone
from models.backbones.classifier import TOPS, classifier
from models.backbones.features import load_classifier
from models.data.pictures import read_picture
from models.pixels import Normalise
from models.published import WeightsError

SMALL = ("resnet18", "mobilenet_v2", "mobilenet_v3_large")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """torchvision's classifiers with random weights for 7 classes."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name in SMALL:
        torch.manual_seed(0)
        files[name] = folder / f"{name}.pth"
        network = torchvision.models.get_model(name, weights=None, num_classes=7)
        torch.save(network.state_dict(), files[name])
    return files


@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_says_what_that_of_torchvision_says(name, files):
    theirs = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    theirs.load_state_dict(torch.load(files[name]))
    frames = torch.randint(0, 256, (2, 65, 97, 3), dtype=torch.uint8)
    with torch.inference_mode():
        ours = classifier(name, 7, weights=files[name]).eval()(frames)
        torch.testing.assert_close(ours, theirs(Normalise()(frames)))


def test_every_trunk_has_a_classifier_with_and_without_a_top():
    assert TOPS.keys() == BACKBONES.keys()
    features = {"alexnet": 9216, "vgg16": 25088, "resnet18": 512, "resnet50": 2048}
    features |= {"mobilenet_v2": 1280, "mobilenet_v3_large": 960}
    frames = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    for name, channels in features.items():
        with torch.device("meta"):
            bare, topped = classifier(name, 5, top=False).eval(), classifier(name, 5).eval()
            assert bare(frames.to("meta")).shape == (1, channels)
            assert topped(frames.to("meta")).shape == (1, 5)


@pytest.mark.parametrize("name", SMALL)
def test_for_another_number_of_classes_only_the_last_layer_starts_anew(name, files):
    own = classifier(name, 3, weights=files[name]).network.state_dict()
    given = torch.load(files[name])
    other = [n for n, x in own.items() if x.shape != given[n].shape]
    assert len(other) == 2
    assert all(n.startswith(f"{TOPS[name]}.") for n in other)
    assert all(torch.equal(own[n], given[n]) for n in own if n not in other)


def quadrants(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose class is the colour of most of them."""
    torch.manual_seed(0)
    labels = torch.arange(count) % 3
    frames = torch.randint(0, 80, (count, 32, 32, 3), dtype=torch.uint8)
    for frame, label in zip(frames, labels, strict=True):
        frame[4:, 4:, label] += 150
    return frames, labels


def taught(network: nn.Module, steps: int) -> float:
    frames, labels = quadrants(12)
    learning = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learning, 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(network(frames), labels).backward()
        optimiser.step()
    with torch.no_grad():
        return float((network.eval()(frames).argmax(1) == labels).float().mean())


def test_shallow_learning_takes_features_to_another_task_and_leaves_them_as_they_were(files):
    animals = classifier("resnet18", 3, weights=files["resnet18"]).learns("shallow")
    before = {name: x.clone() for name, x in animals.network.state_dict().items()}
    assert taught(animals, 40) == 1.0
    changed = {n for n, x in animals.network.state_dict().items() if not torch.equal(x, before[n])}
    assert changed == {"fc.weight", "fc.bias"}  # and no statistics of a batch norm


def test_deep_learning_changes_the_features_too(files):
    animals = classifier("resnet18", 3, weights=files["resnet18"]).learns("shallow").learns("deep")
    before = animals.network.conv1.weight.clone()
    taught(animals.train(), 2)
    assert not torch.equal(animals.network.conv1.weight, before)


def test_only_the_top_of_a_shallow_learner_is_in_training_mode(files):
    animals = classifier("mobilenet_v2", 3).learns("shallow").eval().train()
    assert not animals.network.features.training
    assert animals.network.classifier.training
    assert not animals.eval().network.classifier.training


def test_what_a_classifier_has_learned_starts_a_trunk(files):
    animals = classifier("mobilenet_v2", 3, weights=files["mobilenet_v2"]).eval()
    trunk = backbone("mobilenet_v2", (16,)).eval()
    load_classifier(trunk, animals.network.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(trunk(images)[16], animals.network.features[:14](images))


def test_the_weights_at_hand_know_an_ambulance(shared_data):
    file = shared_data / "weights" / "mobilenet_v2_imagenet_torchvision.pth"
    network = classifier("mobilenet_v2", 1000, weights=file).eval()
    folder = shared_data / "det_vehicles"
    names = torchvision.models.MobileNet_V2_Weights.DEFAULT.meta["categories"]
    content = json.loads((folder / "val.json").read_text())
    (number,) = (c["id"] for c in content["categories"] if c["name"] == "ambulance")
    large = {
        a["image_id"]
        for a in content["annotations"]
        if a["category_id"] == number and a["bbox"][2] * a["bbox"][3] > 80_000
    }
    files = [i["file_name"] for i in content["images"] if i["id"] in large][:6]
    pictures = np.stack([read_picture(folder / "images" / name) for name in files])
    frames = torch.from_numpy(pictures)
    with torch.inference_mode():
        likely = network(frames).topk(3).indices.tolist()
    assert sum("ambulance" in [names[i] for i in row] for row in likely) >= 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read weights"),
        (b"no pickle", "cannot read weights"),
        ([1, 2], "holds a list, not a state dict"),
        ({"fc.bias": torch.zeros(7)}, "does not hold a ResNet of this kind: 120 weights"),
    ],
)
def test_weights_that_are_none_are_refused_with_the_reason(tmp_path, content, words):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(WeightsError, match=words):
        classifier("resnet18", 7, weights=file)


def test_without_a_network_the_way_out_is_named(monkeypatch):
    def offline(*words, **more):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(WeightsError, match=r"fetch the file mobilenet_v2-7ebf99e0\.pth elsewhere"):
        published.state_of("mobilenet_v2", "DEFAULT")


def test_an_unknown_classifier_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown classifier 'lenet'; known: alexnet, vgg16"):
        classifier("lenet", 3)
    with pytest.raises(ValueError, match=r"unknown backbone 'lenet'; known: alexnet, vgg16"):
        backbone("lenet", (16,))
