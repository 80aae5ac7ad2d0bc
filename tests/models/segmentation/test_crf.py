"""The fully connected CRF and the filter that makes it fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.segmentation.crf import CRF, refine, smoothness_filter
from models.segmentation.permutohedral import Lattice


def brute_force_kernel(features):
    """(N, d) -> (N, N)"""
    distance = ((features[:, None] - features[None]) ** 2).sum(-1)
    return np.exp(-0.5 * distance)


def brute_force_refine(frame, probabilities, crf):
    """Every pair of pixels, in float64."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[:height, :width]
    place = np.stack([x, y], -1).reshape(-1, 2).astype(float)
    colour = frame.reshape(-1, 3) / crf.appearance_levels
    kernels = [
        crf.appearance_weight
        * symmetric(brute_force_kernel(np.hstack([place / crf.appearance_pixels, colour]))),
        crf.smoothness_weight * symmetric(brute_force_kernel(place / crf.smoothness_pixels)),
    ]
    said = np.log(probabilities.reshape(len(probabilities), -1).T.clip(1e-6)).astype(float)
    thought = softmax(said)
    for _ in range(crf.iterations):
        thought = softmax(said + sum(kernel @ thought for kernel in kernels))
    return thought.T.reshape(probabilities.shape)


def symmetric(kernel):
    root = np.sqrt(kernel.sum(1))
    return kernel / root[:, None] / root[None]


def softmax(values):
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def noisy_scene(height=24, width=32, noise=6.0):
    """A disc and a band before a sky; a network that sees them coarsely, and is often wrong."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    truth = np.zeros((height, width), np.int64)
    truth[(y - 0.45 * height) ** 2 + (x - 0.4 * width) ** 2 < (0.28 * height) ** 2] = 1
    truth[y > 0.75 * height] = 2
    colours = np.array([(120, 170, 220), (190, 60, 50), (90, 90, 95)])
    frame = np.clip(colours[truth] + rng.normal(0, noise, (height, width, 3)), 0, 255)
    cell = 4
    coarse = truth[cell // 2 :: cell, cell // 2 :: cell]
    seen = np.kron(coarse, np.ones((cell, cell), np.int64))[:height, :width]
    seen = np.where(rng.random(truth.shape) < 0.15, rng.integers(0, 3, truth.shape), seen)
    probabilities = np.full((3, height, width), 0.2, np.float32)
    np.put_along_axis(probabilities, seen[None], 0.6, 0)
    return frame.astype(np.uint8), probabilities, truth


@pytest.mark.parametrize(("iterations", "levels"), [(1, 10.0), (5, 10.0), (10, 20.0)])
def test_the_fast_way_agrees_with_every_pair_of_pixels(iterations, levels):
    """The lattice's bell is not quite Gauss's: chances differ by little, labels hardly ever."""
    frame, probabilities, _ = noisy_scene()
    crf = CRF(iterations=iterations, appearance_levels=levels, appearance_pixels=12)
    exact = brute_force_refine(frame, probabilities, crf)
    found = refine(frame, probabilities, crf)
    assert found.dtype == np.float32
    assert np.abs(found - exact).mean() < 0.02
    assert (found.argmax(0) == exact.argmax(0)).mean() > 0.99
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_it_finds_the_edges_that_the_network_missed():
    frame, probabilities, truth = noisy_scene(92, 120)
    before = (probabilities.argmax(0) == truth).mean()
    after = (refine(frame, probabilities, CRF(appearance_levels=13)).argmax(0) == truth).mean()
    assert before < 0.9
    assert after > 0.99


def test_without_weights_or_iterations_nothing_changes():
    frame, probabilities, _ = noisy_scene()
    for crf in (CRF(iterations=0), CRF(appearance_weight=0, smoothness_weight=0)):
        np.testing.assert_allclose(refine(frame, probabilities, crf), probabilities, atol=1e-6)


def test_a_sure_and_even_picture_stays_what_it_is():
    frame = np.full((9, 7, 3), 90, np.uint8)
    probabilities = np.zeros((2, 9, 7), np.float32)
    probabilities[1] = 1
    assert refine(frame, probabilities).argmax(0).min() == 1


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="one size"):
        refine(np.zeros((4, 5, 3), np.uint8), np.zeros((2, 5, 4), np.float32))


@pytest.mark.parametrize(("dimensions", "bound"), [(1, 0.01), (2, 0.02), (3, 0.03)])
def test_the_lattice_is_a_gaussian_filter(dimensions, bound):
    """Means of a smooth and of a noisy signal over a dense cloud of points."""
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 4, (3000, dimensions)).astype(np.float32)
    values = np.stack([np.sin(features[:, 0]), rng.random(3000)], 1).astype(np.float32)
    kernel = brute_force_kernel(features)
    exact = kernel @ values / kernel.sum(1, keepdims=True)
    lattice = Lattice(features)
    ones = lattice(torch.ones(3000, 1))
    found = (lattice(torch.from_numpy(values)) / ones).numpy()
    assert np.abs(found - exact).mean() < bound


def test_corners_of_a_point_share_it_out():
    features = np.random.default_rng(1).normal(0, 3, (500, 5)).astype(np.float32)
    lattice = Lattice(features)
    torch.testing.assert_close(lattice.weights.sum(1), torch.ones(500))
    assert lattice.weights.min() > -1e-5
    assert lattice.index.max().item() == lattice.corners - 1


def test_a_point_hears_the_near_ones_and_not_the_far_ones():
    features = np.zeros((3, 5), np.float32)
    features[1] = 0.1
    features[2] = 30.0
    heard = Lattice(features)(torch.tensor([[0.0], [1.0], [5.0]]))
    assert heard[0] > 0
    assert heard[1] > 0
    alone = Lattice(features[2:])(torch.tensor([[5.0]]))
    torch.testing.assert_close(heard[2:], alone)


def test_the_smoothing_filter_is_the_sum_over_all_pixels():
    values = torch.rand(11 * 14, 2, generator=torch.Generator().manual_seed(0))
    y, x = np.mgrid[:11, :14]
    place = np.stack([x, y], -1).reshape(-1, 2) / 3.0
    expected = torch.from_numpy(brute_force_kernel(place)).float() @ values
    found = smoothness_filter(np.zeros((11, 14, 3), np.uint8), CRF())(values)
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=1e-3)
