"""The table of the family: every word in it leads to a network that keeps the common promise."""

from __future__ import annotations

import pytest
import torch

from models.data.batches import MaskBatch, TrainingBatch
from models.detection.losses import Truth
from models.network import DETECTION_OUTPUTS, INSTANCE_OUTPUTS, SEMANTIC_OUTPUTS
from models.papers import ON_TRUNKS, PAPERS
from tests.models.detectors import frames

OUTPUTS = {
    "detection": DETECTION_OUTPUTS,
    "instance": INSTANCE_OUTPUTS,
    "semantic": SEMANTIC_OUTPUTS,
}
SMALL = [*sorted(ON_TRUNKS), "unet_mobilenet_v2", "mobilenet_v2_fpn"]
SIZE_HW = (96, 128)


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_every_network_says_what_it_is(name):
    if name.startswith(("ssd", "overfeat")):  # they run themselves once when they are built
        network = PAPERS[name](3)
    else:
        with torch.device("meta"):
            network = PAPERS[name](3)
    if name in ("mobilenet_v2_fpn",):
        network.output_form = "candidates"
    outputs = network.outputs
    assert outputs == OUTPUTS[network.task] or set(DETECTION_OUTPUTS) < set(outputs)
    assert network.num_classes == 3
    assert (network.proposer is None) == (network.regions == 0)


@pytest.mark.parametrize("name", SMALL)
def test_every_paper_learns_and_answers_by_the_same_calls(name):
    torch.manual_seed(0)
    network = PAPERS[name](3)
    if name == "sppnet":
        network.scales = (96, 128)  # the papers' 1200 pixels take a while
    pixels = frames(2, SIZE_HW)
    if network.task == "semantic":
        labels = torch.randint(0, 3, (2, *SIZE_HW), dtype=torch.uint8)
        labels[:, :5] = 255
        losses = network.losses(MaskBatch(pixels, labels))
    else:
        truth = Truth(
            torch.tensor([[20.0, 20, 80, 70], [90, 30, 120, 90]]),
            torch.tensor([1, 2]),
            torch.zeros(0, 4),
        )
        regions = [truth.boxes + torch.tensor([3.0, -2, 4, 5]), torch.tensor([[0.0, 0, 40, 40]])]
        losses = network.losses(TrainingBatch(pixels, [truth, truth], regions))
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())

    network.eval().prepare(SIZE_HW)
    given = [pixels]
    if network.proposer:
        regions = torch.zeros(2, 8, 4)  # of the thousands that it may be given
        regions[:, 0] = torch.tensor([10.0, 10, 90, 90])
        given.append(regions)
    with torch.inference_mode():
        found = dict(zip(network.outputs, network(*given), strict=True))
    if network.task == "semantic":
        assert found["classes"].shape == (2, *SIZE_HW)
        assert found["classes"].dtype == torch.uint8
    else:
        assert found["boxes"].shape == (*found["scores"].shape, 4)
        assert found["labels"].dtype == torch.int64
        assert found["exact"].dtype == torch.bool
