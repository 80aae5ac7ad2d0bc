"""What rounding does to each layer by itself."""

from __future__ import annotations

import numpy as np
import pytest

from models.quantization.layers import feature_layers
from models.quantization.noise import Noise, largest_inputs, noise_of_layers, watched
from models.quantization.qdq import Rounding, quantised
from tests.models.quantization.toys import noise_frames, toy

FRAMES = noise_frames(3)


def test_noise_is_what_a_graph_with_one_rounded_layer_differs_by():
    model = toy()
    layers = feature_layers(model)
    largest = largest_inputs(model, layers, FRAMES)
    found = noise_of_layers(model, layers, largest, FRAMES)
    for layer in layers:
        alone = quantised(model, [layer], Rounding(largest, {}))
        plain, other = watched(model, [layer.output]), watched(alone, [layer.output])
        apart = np.concatenate([other(frame)[0] - plain(frame)[0] for frame in FRAMES])
        assert found[layer.name].before == pytest.approx((apart**2).mean(), rel=1e-3)
        assert found[layer.name].offset == pytest.approx(apart.mean((0, 2, 3)), abs=1e-5)


def test_without_its_offset_a_layer_is_less_noisy():
    one = Noise(signal=1.0, before=0.01, offset=np.full(4, 0.09, np.float32))
    assert one.decibels_before == pytest.approx(20.0)
    assert one.decibels == pytest.approx(10 * np.log10(1 / (0.01 - 0.0081)), abs=1e-3)


def test_a_layer_without_noise_is_no_division_by_zero():
    assert Noise(0.0, 0.0, np.zeros(2, np.float32)).decibels == 0
    assert Noise(1.0, 0.0, np.zeros(2, np.float32)).decibels == pytest.approx(120)
