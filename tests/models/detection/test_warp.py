"""Crops of R-CNN against cropping and stretching by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.detection.warp import Warp


def warped_by_hand(image: Tensor, region: list[float], warp: Warp) -> Tensor:
    """(3, H, W), region in its pixels -> (3, size, size), pixel by pixel.

    The region lands on the crop without its ``context_pixels``; a pixel of the crop shows the
    picture where its own middle lies, bilinearly; what lies more than half a pixel outside is 0.
    """
    x1, y1, x2, y2 = region
    height, width = image.shape[1:]
    inner = warp.size - 2 * warp.context_pixels
    crop = torch.zeros(3, warp.size, warp.size)
    for i in range(warp.size):
        for j in range(warp.size):
            y = y1 + (y2 - y1) * (i + 0.5 - warp.context_pixels) / inner
            x = x1 + (x2 - x1) * (j + 0.5 - warp.context_pixels) / inner
            if -0.5 <= y <= height + 0.5 and -0.5 <= x <= width + 0.5:
                crop[:, i, j] = bilinear(image, y - 0.5, x - 0.5)
    return crop


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """(3, H, W) between the middles of its pixels, which are the whole numbers."""
    height, width = image.shape[1:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (left + 1 - x) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (left + 1 - x) + image[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


@pytest.mark.parametrize("context_pixels", [0, 5])
def test_a_crop_equals_the_one_made_by_hand(context_pixels):
    torch.manual_seed(0)
    images, warp = torch.randn(2, 3, 37, 53), Warp(24, context_pixels)
    regions = torch.tensor(
        [
            [[3.2, 4.1, 30.7, 21.9], [0.0, 0.0, 53.0, 37.0], [40.0, 30.0, 52.5, 36.5]],
            [[10.0, 2.0, 12.0, 36.0], [50.0, 0.0, 53.0, 3.0], [17.3, 9.9, 29.4, 30.1]],
        ]
    )
    crops = warp(images, regions).reshape(2, 3, 3, 24, 24)
    for n in range(2):
        for r in range(3):
            expected = warped_by_hand(images[n], regions[n, r].tolist(), warp)
            torch.testing.assert_close(crops[n, r], expected, atol=2e-4, rtol=1e-4)


def test_a_crop_is_what_cutting_out_and_resizing_gives():
    torch.manual_seed(0)
    image = torch.randn(1, 3, 60, 80)
    crop = Warp(48, 0)(image, torch.tensor([[[10.0, 20.0, 34.0, 52.0]]]))
    expected = F.interpolate(image[..., 20:52, 10:34], (48, 48), mode="bilinear")
    # At the edge resizing knows nothing of the pixels next to it.
    torch.testing.assert_close(crop[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])


def test_the_region_lies_within_exactly_16_pixels_of_context():
    images = torch.zeros(1, 3, 300, 300)
    images[..., 100:200, 60:260] = 1.0
    crop = Warp(227, 16)(images, torch.tensor([[[60.0, 100.0, 260.0, 200.0]]]))[0, 0]
    for profile in (crop[113], crop[:, 113]):
        inside = (profile > 0.5).nonzero()[:, 0].tolist()
        assert inside == list(range(16, 227 - 16))


def test_what_lies_outside_the_picture_is_the_mean():
    crop = Warp(32, 8)(torch.ones(1, 3, 40, 40), torch.tensor([[[0.0, 0.0, 20.0, 20.0]]]))[0]
    assert (crop[:, :7] == 0).all()
    assert (crop[:, :, :7] == 0).all()
    assert (crop[:, 8:, 8:] == 1).all()


def test_more_samples_hide_a_pattern_too_fine_for_the_crop():
    stripes = (torch.arange(224) % 2).float().expand(1, 3, 224, 224).contiguous()
    region = torch.tensor([[[0.0, 0.0, 224.0, 224.0]]])
    assert Warp(56, 0, samples=4)(stripes, region).std() < 1e-3
    assert Warp(45, 0, samples=1)(stripes, region).std() > 0.1
