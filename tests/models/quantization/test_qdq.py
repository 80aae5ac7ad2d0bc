"""The int8 graph against a twin in NumPy, and what engines make of it."""

from __future__ import annotations

import numpy as np
import onnx
import openvino
import pytest
from onnx import helper, numpy_helper

from models.onnx_lint import lint
from models.quantization.layers import constants, feature_layers
from models.quantization.noise import largest_inputs, noise_of_layers, watched
from models.quantization.qdq import Rounding, quantised, rounded_weight
from tests.models.quantization.toys import noise_frames, toy, write_toy

FRAMES = noise_frames(4)


def rounded(offsets: bool = True) -> onnx.ModelProto:
    model = toy()
    layers = feature_layers(model)
    largest = largest_inputs(model, layers, FRAMES)
    found = noise_of_layers(model, layers, largest, FRAMES) if offsets else {}
    return quantised(model, layers, Rounding(largest, {n: -x.offset for n, x in found.items()}))


def test_the_largest_inputs_are_those_of_every_frame():
    model = toy()
    layers = feature_layers(model)
    found = largest_inputs(model, layers, FRAMES)
    names = [layer.data for layer in layers]
    run = watched(model, names)
    values = [[np.abs(value).max() for value in run(frame)] for frame in FRAMES]
    assert found == pytest.approx(dict(zip(names, np.max(values, axis=0), strict=True)))
    assert found["image"] <= 1 and found["stem6"] <= 6


def test_a_layer_computes_what_numpy_computes_of_rounded_numbers():
    model = toy()
    layer = feature_layers(model)[2]
    largest = largest_inputs(model, feature_layers(model), FRAMES)
    graph = quantised(model, [layer], Rounding(largest, {}))
    data, found = watched(graph, ["deep6", "projected"])(FRAMES[0])
    step = np.float32(largest["deep6"] / 127)
    stored = constants(model)
    weight = stored["project.weight"][:, :, 0, 0]
    channel = np.abs(weight).max(1, keepdims=True) / 127
    x = np.clip(np.rint(data[0] / step), -128, 127) * step
    expected = np.einsum("oi,ihw->ohw", np.rint(weight / channel) * channel, x)
    expected += stored["project.bias"][:, None, None]
    assert np.abs(found[0] - expected).max() < 1e-4


def test_weights_are_stored_as_int8_and_nothing_of_them_as_float():
    stored = constants(rounded())
    assert stored["project.weight_int8"].dtype == np.int8
    assert {"stem.weight", "depthwise.weight", "project.weight"}.isdisjoint(stored)
    assert stored["head.weight"].dtype == np.float32
    assert np.abs(stored["project.weight_int8"]).max((1, 2, 3)).min() == 127


def test_the_bias_of_a_dead_channel_fits_into_32_bits():
    model = toy()
    stem = feature_layers(model)[0]
    parts = {t.name: numpy_helper.to_array(t) for t in rounded_weight(constants(model), stem)}
    steps = constants(model)["stem.bias"] / (parts["stem.weight_scale"] * 1e-4)
    assert np.abs(steps).max() <= 2**30 * 1.001


def test_offsets_taken_back_bring_the_outputs_nearer():
    wanted, (frame, *_) = watched(toy(), ["scores"]), noise_frames(1, seed=9)
    squares = [
        np.square(watched(rounded(offsets), ["scores"])(frame)[0] - wanted(frame)[0]).mean()
        for offsets in (False, True)
    ]
    assert squares[1] < squares[0]


def test_shortcuts_are_added_from_the_rounded_tensor():
    added = next(node for node in rounded().graph.node if node.op_type == "Add")
    assert list(added.input) == ["stem6_rounded", "projected"]


def test_openvino_runs_every_rounded_layer_in_int8(tmp_path):
    path = write_toy(tmp_path / "m.onnx", rounded())
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [
        str(info["primitiveType"].value).rpartition("_")[2]
        for info in told
        if "Convolution" in str(info["layerType"].value)
    ]
    assert sorted(kind.lower() for kind in kinds) == ["f32", "i8", "i8", "i8"]


def test_it_suits_tensorrt_as_it_is(tmp_path):
    assert lint(write_toy(tmp_path / "m.onnx", rounded())) == []


def test_a_zero_point_that_is_not_zero_does_not_suit_tensorrt(tmp_path):
    model = rounded()
    zero = next(t for t in model.graph.initializer if t.name == "stem6_zero")
    zero.CopyFrom(numpy_helper.from_array(np.int8(-128), "stem6_zero"))
    faults = lint(write_toy(tmp_path / "m.onnx", model))
    assert len(faults) == 2 and "zero point must be int8 and 0" in faults[0]


def test_an_old_opset_is_refused():
    model = toy()
    model.opset_import[0].CopyFrom(helper.make_opsetid("", 13))
    with pytest.raises(ValueError, match="export again"):
        quantised(model, feature_layers(model), Rounding({}, {}))
