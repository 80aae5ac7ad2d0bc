"""From coarse to fine."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.segmentation.upsampling import (
    BilinearTransposed,
    ResizeConvolve,
    bilinear_kernel,
    fitted,
)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_transposed_convolution_begins_as_bilinear_enlargement(factor):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 7)
    enlarged = BilinearTransposed(3, factor)(maps)
    expected = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    assert enlarged.shape == expected.shape
    inner = slice(factor // 2, -(factor // 2))
    torch.testing.assert_close(enlarged[..., inner, inner], expected[..., inner, inner])


@pytest.mark.parametrize("factor", [2, 8])
def test_resize_and_convolve_begins_as_bilinear_enlargement(factor):
    maps = torch.randn(2, 3, 5, 7)
    expected = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ResizeConvolve(3, factor)(maps), expected)


def test_transposed_convolution_is_zeros_inserted_and_a_convolution():
    torch.manual_seed(0)
    layer = BilinearTransposed(1, 4)
    maps = torch.randn(1, 1, 3, 5)
    spread = torch.zeros(1, 1, 9, 17)
    spread[..., ::4, ::4] = maps
    border = 8 - 2 - 1  # kernel - padding - 1
    by_hand = F.conv2d(F.pad(spread, (border,) * 4), layer.weight.flip(2, 3))
    torch.testing.assert_close(layer(maps), by_hand)


def test_the_tent_gives_every_pixel_a_weight_of_one():
    tent = bilinear_kernel(4)
    shares = sum(tent[y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4))
    torch.testing.assert_close(shares, torch.ones(4, 4))


def test_an_odd_factor_is_refused():
    with pytest.raises(ValueError, match="even"):
        BilinearTransposed(3, 3)


def test_maps_are_cut_or_repeated_to_fit():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    assert fitted(maps, (1, 2))[0, 0].tolist() == [[0, 1]]
    assert fitted(maps, (3, 2))[0, 0].tolist() == [[0, 1], [3, 4], [3, 4]]
    assert torch.equal(fitted(maps, (2, 3)), maps)
