"""What all segmentation networks promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.backbones.build import backbone as trunk
from models.network import IGNORED, SEMANTIC_OUTPUTS
from models.segmentation.deeplab import deeplab_v3_plus
from models.segmentation.losses import PixelLoss
from models.segmentation.semantic import SemanticNetwork
from tests.models.segmentation.scenes import scenes
from tests.models.segmentation.small_trunk import small_trunk


class Grey(SemanticNetwork):
    """Says how bright each pixel is: class 0 dark, class 1 bright."""

    def scores(self, images):
        grey = images.mean(1, keepdim=True)
        return torch.cat([-grey, grey], 1)


def test_the_class_of_a_pixel_is_its_most_likely_one():
    frames = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    frames[0, 1, 2] = 255
    network = Grey(2).eval().prepare((2, 3))
    (classes,) = network(frames)
    assert classes.tolist() == [[[0, 0, 0], [0, 0, 1]]]
    assert (network.task, network.outputs) == ("semantic", SEMANTIC_OUTPUTS)
    assert (network.proposer, network.regions) == (None, 0)


def test_prepare_fixes_the_size_and_is_for_eval_mode():
    with pytest.raises(ValueError, match="eval"):
        Grey(2).prepare((2, 3))
    network = Grey(2).eval()
    frames = torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="prepare"):
        network(frames)
    with pytest.raises(ValueError, match=r"prepared for frames of \(4, 3\), got \(2, 3\)"):
        network.prepare((4, 3))(frames)


def test_more_classes_than_a_byte_can_name_are_refused():
    with pytest.raises(ValueError, match="1 to 255"):
        Grey(256)


def loop_loss(scores, labels, weights):
    """The mean over known pixels, one after the other."""
    total = share = 0.0
    for n, y, x in np.ndindex(*labels.shape):
        label = int(labels[n, y, x])
        if label != IGNORED:
            total -= weights[label] * float(F.log_softmax(scores[n, :, y, x], 0)[label])
            share += weights[label]
    return total / share


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.5]])
def test_the_loss_is_the_weighted_mean_over_known_pixels(weights):
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, 5)
    labels = torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    labels[0, 0], labels[1, 2, 2] = IGNORED, IGNORED
    expected = loop_loss(scores, labels, weights or [1.0] * 3)
    assert PixelLoss(weights)(scores, labels).item() == pytest.approx(expected, rel=1e-5)


def test_a_picture_of_which_nothing_is_known_teaches_nothing():
    scores = torch.randn(1, 3, 4, 5, requires_grad=True)
    loss = PixelLoss([1.0, 2.0, 3.0])(scores, torch.full((1, 4, 5), IGNORED, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.abs().max() == 0


def test_the_loss_of_half_precision_scores_is_float32():
    network = deeplab_v3_plus(small_trunk(), 4, width=8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network.losses(scenes())["pixel"]
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_trunk_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="unknown backbone 'vgg'; known: alexnet, vgg16"):
        trunk("vgg", (32,))
    with pytest.raises(ValueError, match=r"strides \[4\]"):
        trunk(small_trunk((8, 32)), (4, 32))
