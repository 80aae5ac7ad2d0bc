"""Networks that are being trained, made ready to be judged."""

import pytest
import torch
from torch import nn

from models.network_judges import folded
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
