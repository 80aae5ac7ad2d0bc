"""What is written to a file computes the same with less."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.model_file.inference_form import for_inference


def lively(network: nn.Module) -> nn.Module:
    """In eval mode, with norms that change what they are given."""
    torch.manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for numbers in (norm.running_mean, norm.running_var, norm.weight):
                nn.init.uniform_(numbers, 0.5, 2.0)
    return network.eval()


def test_the_copy_computes_the_same_without_norms_and_not_in_place() -> None:
    network = lively(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 4, 1),
        )
    )
    pixels, state = torch.randn(2, 3, 9, 9), set(network.state_dict())
    lean = for_inference(network)
    torch.testing.assert_close(lean(pixels), network(pixels), atol=1e-5, rtol=0)
    assert isinstance(lean[1], nn.Identity) and not lean[2].inplace
    assert set(network.state_dict()) == state and network[2].inplace


class TwoWays(nn.Module):
    """The norm stands behind the second convolution in the list, and is given the sum of both."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)])
        self.rest = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, pixels: Tensor) -> Tensor:
        one, other = (way(pixels) for way in self.ways)
        return self.rest(one + other)


def test_a_norm_that_is_given_something_else_than_the_convolution_before_it_stays() -> None:
    network, pixels = lively(TwoWays()), torch.randn(2, 3, 9, 9)
    lean = for_inference(network)
    torch.testing.assert_close(lean(pixels), network(pixels), atol=1e-5, rtol=0)
    assert isinstance(lean.rest[0], nn.BatchNorm2d)
