"""The int8 graph against a twin in NumPy, and what engines make of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.judging.runners import the_core
from models.onnx_lint import lint
from models.quantization.layers import constants, feature_layers
from models.quantization.noise import largest_inputs, noise_of_layers, watched
from models.quantization.qdq import Rounding, quantised, rounded_weight
from tests.models.quantization.toys import noise_frames, toy, with_concat, with_rows, write_toy

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


def test_a_relu6_becomes_a_relu_where_rounding_cuts_off_at_6_and_changes_nothing():
    model, plain = rounded(), rounded()
    kinds = {node.output[0]: node for node in model.graph.node}
    assert kinds["stem6"].op_type == kinds["deep6"].op_type == "Relu"
    for node in plain.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Clip"
            node.input.extend(["low", "high"])
    ends = [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 6))]
    plain.graph.initializer.extend(ends)
    frame = noise_frames(1, seed=3)[0]
    assert (watched(model, ["scores"])(frame)[0] == watched(plain, ["scores"])(frame)[0]).all()


def test_a_relu6_before_a_float_layer_stays():
    model = toy()
    layers = feature_layers(model)
    largest = largest_inputs(model, layers, FRAMES)
    kept = quantised(model, [x for x in layers if x.name != "project"], Rounding(largest, {}))
    assert {n.output[0]: n.op_type for n in kept.graph.node}["deep6"] == "Clip"


def test_parts_of_a_concat_are_rounded_with_the_scale_of_the_whole(tmp_path):
    model = with_concat()
    layers = feature_layers(model)
    largest = largest_inputs(model, layers, FRAMES)
    assert largest["both"] >= largest["stem6"]
    noise = noise_of_layers(model, layers, largest, FRAMES)
    graph = quantised(model, layers, Rounding(largest, {}))
    joined = next(node for node in graph.graph.node if node.op_type == "Concat")
    assert list(joined.input) == ["both_part0_rounded", "both_part1_rounded"]
    assert lint(write_toy(tmp_path / "m.onnx", graph)) == []
    alone = quantised(model, [x for x in layers if x.name == "project"], Rounding(largest, {}))
    plain, other = watched(model, ["projected"]), watched(alone, ["projected"])
    apart = np.concatenate([other(f)[0] - plain(f)[0] for f in FRAMES])
    assert noise["project"].before == pytest.approx((apart**2).mean(), rel=1e-3)


def test_openvino_runs_every_rounded_layer_in_int8(tmp_path):
    path = write_toy(tmp_path / "m.onnx", rounded())
    compiled = the_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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
    assert len(faults) == 2 and "zero point must be int8 or float8, and 0" in faults[0]


def test_an_old_opset_is_refused():
    model = toy()
    model.opset_import[0].CopyFrom(helper.make_opsetid("", 13))
    with pytest.raises(ValueError, match="export again"):
        quantised(model, feature_layers(model), Rounding({}, {}))


def test_what_is_only_moved_is_rounded_where_it_was_made():
    model = with_rows()
    layers = [layer for layer in feature_layers(model) if layer.name == "fc"]
    largest = largest_inputs(model, layers, FRAMES)
    graph = quantised(model, layers, Rounding(largest, {}))
    kinds = {name: node for node in graph.graph.node for name in node.output}
    assert kinds["rows_rounded"].input[0] == "turned_rounded"
    assert kinds["turned_rounded"].input[0] == "sum_rounded"
    assert kinds["sum_int8"].op_type == "QuantizeLinear"
    assert not {"rows", "turned"} & kinds.keys()
    rows, fc = watched(graph, ["rows_rounded", "fc"])(FRAMES[0])
    (plain,) = watched(model, ["rows"])(FRAMES[0])
    step = largest["rows"] / 127
    np.testing.assert_allclose(rows, np.clip(np.rint(plain / step), -128, 127) * step, rtol=1e-5)
    noise = noise_of_layers(model, layers, largest, FRAMES[:1])
    difference = fc - watched(model, ["fc"])(FRAMES[0])[0]
    assert noise["fc"].before == pytest.approx(float((difference**2).mean()), rel=1e-3)
