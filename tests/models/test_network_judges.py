"""Networks that are being trained, made ready to be judged."""

import numpy as np
import pytest
import torch
from torch import nn

from models.detection.overfeat import OverFeatSettings, overfeat
from models.judging.network_judges import folded, network_detector
from models.ladder.scenes import scene
from models.papers import PAPERS


@pytest.mark.parametrize("name", ["deeplab_v3_plus", "fcn8s"])
def test_batch_norms_folded_into_convolutions_change_nothing_but_the_time(name):
    torch.manual_seed(0)
    network = PAPERS[name](5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fold = folded(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold.modules())
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected, found = network.eval().scores(images), fold.scores(images)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize(
    ("name", "overlap"),
    [
        ("fast_rcnn", 0.3),
        ("faster_rcnn", 0.3),
        ("ssdlite320_mobilenet_v3_large", 0.55),
        ("mobilenet_v2_fpn", 0.5),
        ("localization", 0.5),  # which names none
    ],
)
def test_a_network_is_judged_at_the_overlap_of_its_paper_unless_another_is_given(name, overlap):
    network = PAPERS[name](2).eval()
    assert network_detector(network, ("a", "b"), (64, 96)).iou_threshold == overlap
    assert network_detector(network, ("a", "b"), (64, 96), 0.0).iou_threshold == 0.0


def test_overfeat_is_judged_by_its_own_merge():
    torch.manual_seed(0)
    settings = OverFeatSettings((96, 128), min_score=0.01)
    network = overfeat("mobilenet_v2", 2, settings=settings).eval()
    picture, _, _ = scene((96, 128), np.random.default_rng(0))
    found = network_detector(network, ("a", "b"), (96, 128)).detect(picture)
    (own,) = network.detect(torch.from_numpy(picture)[None])
    assert len(found.boxes)
    np.testing.assert_allclose(found.boxes, own.boxes, atol=1e-4)
    np.testing.assert_array_equal(found.class_ids, own.class_ids)
