"""The graph in float8: how engines round to it, which layers it has, and what the lint finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models import quantize
from models.judging.runners import openvino_runner
from models.model_file.input_sizes import combine, sizes_of
from models.model_file.onnx_file import halve_weights
from models.model_file.reading import description
from models.onnx_lint import lint
from models.quantization.eight_bits import FLOAT8, INT8, suits_float8
from models.quantization.gate import LEAST_SHARE
from models.quantization.layers import constants, feature_layers, layers_for
from models.quantization.noise import largest_inputs, noise_of_layers, watched
from models.quantization.origin import is_made_from
from models.quantization.qdq import Rounding, quantised
from pipeline.engines.trt_graph import operators, static_graph
from pipeline.model_file.reading import read_model_file
from tests.models.quantization.toys import (
    SIZE_HW,
    noise_frames,
    toy,
    with_concat,
    with_rows,
    write_toy,
)

FRAMES = noise_frames(4)
SMALL_HW = (16, 24)


def raised(model: ModelProto) -> ModelProto:
    """The same in the opset that float8 needs."""
    return onnx.version_converter.convert_version(model, FLOAT8.opset)


def rounded(model: ModelProto | None = None) -> ModelProto:
    """The model with float8 layers among float32 ones."""
    model = raised(model or toy())
    layers = layers_for(FLOAT8, model)
    largest = largest_inputs(model, layers, FRAMES)
    return quantised(model, layers, Rounding(largest, {}, FLOAT8))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy in float8 as the command writes it, without a gate."""
    folder = tmp_path_factory.mktemp("toy")
    original = quantize.Original(write_toy(folder / "m.onnx"), FLOAT8.opset)
    calibrated = quantize.Calibrated(original, original.fitted(FRAMES), FLOAT8)
    return write_toy(folder / "q.onnx", calibrated.rounded(frozenset()), arithmetic="f8")


# How numbers are rounded


def there_and_back(scale: np.ndarray) -> ModelProto:
    """``x`` (n,) float32 by way of float8 to ``y``, in the type of the scale."""
    types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}
    make = helper.make_node
    nodes = [
        make("Cast", ["x"], ["given"], to=types[scale.dtype]),
        make("QuantizeLinear", ["given", "scale", "zero"], ["eighth"]),
        make("DequantizeLinear", ["eighth", "scale", "zero"], ["back"]),
        make("Cast", ["back"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in ("x", "y")]
    stored = {"scale": scale, "zero": np.zeros((), FLOAT8.dtype)}
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "there and back", values[:1], values[1:], tensors)
    opset = helper.make_opsetid("", FLOAT8.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def telling_numbers() -> np.ndarray:
    """Every number of float8, every tie between two, what lies a hair beside, and the far ends."""
    every = np.arange(256, dtype=np.uint8).view(FLOAT8.dtype).astype(np.float32)
    every = np.unique(every[np.isfinite(every)])
    ties = (every[1:] + every[:-1]) / 2
    beside = [np.nextafter(ties, np.float32(end)) for end in (-np.inf, np.inf)]
    ends = np.array([449, 464, 465, 1e6, np.inf, 1e-9], np.float32)
    return np.concatenate([every, ties, *beside, ends, -ends])


@pytest.mark.parametrize("scale", [np.float32(1), np.float32(0.37), np.float16(0.0134)])
def test_files_are_judged_by_what_numpy_makes_of_the_numbers_that_matter(scale):
    steps = telling_numbers()
    x = (steps * np.float32(scale)).astype(scale.dtype).astype(np.float32)
    (found,) = openvino_runner(there_and_back(scale).SerializeToString())(x)
    steps = FLOAT8.rounded(x / np.float32(scale)).astype(np.float32)
    assert found.tolist() == (steps * np.float32(scale)).astype(scale.dtype).tolist()
    assert np.abs(steps).max() == 448  # what is beyond is cut off


def test_scales_are_float16_and_never_zero():
    for scale in (FLOAT8.scale(0.0), FLOAT8.scale(3.0), FLOAT8.rounded_scale(np.float32(1e-9))):
        assert scale > 0 and scale.dtype == np.float32
        assert scale == scale.astype(np.float16)
    assert FLOAT8.scale(3.0) == pytest.approx(3 / 448, rel=1e-3)
    assert INT8.scale(3.0) == np.float32(3 / 127)


# Which layers


def conv(groups: int = 1) -> NodeProto:
    return helper.make_node("Conv", ["x", "w"], ["y"], group=groups)


@pytest.mark.parametrize(
    ("node", "weights", "suits"),
    [
        (conv(), (64, 32, 3, 3), True),
        (conv(), (32, 32, 1, 1), True),
        (conv(), (32, 3, 3, 3), False),  # a picture
        (conv(), (32, 16, 1, 1), False),
        (conv(), (16, 32, 1, 1), False),
        (conv(), (144, 24, 1, 1), False),
        (conv(), (64, 64, 7, 7), False),
        (conv(64), (64, 1, 3, 3), False),
        (conv(2), (64, 32, 3, 3), False),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (512, 6272), True),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (5, 6272), False),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), (64, 64, 2, 2), False),
    ],
)
def test_layers_without_fast_kernels_are_left(node, weights, suits):
    assert suits_float8(node, weights) is suits


def test_a_layer_computes_what_numpy_computes_of_rounded_numbers():
    model = raised(toy())
    layers = [layer for layer in feature_layers(model) if layer.name == "project"]
    assert [layer.name for layer in layers_for(FLOAT8, model)] == ["project"]
    largest = largest_inputs(model, layers, FRAMES)
    graph = quantised(model, layers, Rounding(largest, {}, FLOAT8))
    data, found = watched(graph, ["deep6", "projected"])(FRAMES[0])
    stored = constants(model)
    weight = stored["project.weight"][:, :, 0, 0]
    steps = [np.abs(weight).max(1, keepdims=True) / 448, np.array(largest["deep6"] / 448)]
    channel, step = (s.astype(np.float16).astype(np.float32) for s in steps)
    w, x = (
        np.clip(value / unit, -448, 448).astype(FLOAT8.dtype).astype(np.float32) * unit
        for value, unit in ((weight, channel), (data[0], step))
    )
    expected = np.einsum("oi,ihw->ohw", w, x) + stored["project.bias"][:, None, None]
    assert np.abs(found[0] - expected).max() < 1e-4
    kept = constants(graph)
    assert kept["project.weight_f8"].dtype == FLOAT8.dtype and "project.weight" not in kept


def test_noise_is_what_a_graph_with_one_rounded_layer_differs_by():
    model = raised(toy())
    layers = layers_for(FLOAT8, model)
    largest = largest_inputs(model, layers, FRAMES)
    found = noise_of_layers(model, layers, largest, FRAMES, FLOAT8)
    plain, other = watched(model, ["projected"]), watched(rounded(), ["projected"])
    apart = np.concatenate([other(frame)[0] - plain(frame)[0] for frame in FRAMES])
    assert found["project"].before == pytest.approx((apart**2).mean(), rel=1e-3)


@pytest.mark.parametrize(
    ("model", "layers"),
    [(toy, {"Conv"}), (with_concat, {"Conv"}), (with_rows, {"Conv", "Gemm"})],
)
def test_nothing_but_what_goes_into_a_layer_is_rounded(model, layers):
    graph = rounded(model()).graph
    readers = {
        reader.op_type
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        for reader in graph.node
        if node.output[0] in reader.input
    }
    assert readers == layers
    assert {"Clip", "Add"} <= {node.op_type for node in graph.node}


def test_all_other_features_are_float16_and_scores_float32(written):
    known = onnx.shape_inference.infer_shapes(onnx.load(written), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in known.graph.value_info}
    wanted = {"stem_half": TensorProto.FLOAT16, "projected_half": TensorProto.FLOAT16}
    wanted |= {"deep6_rounded_half": TensorProto.FLOAT16, "sum_half": TensorProto.FLOAT16}
    wanted |= {"deep6_f8": FLOAT8.onnx_type, "scores": TensorProto.FLOAT}
    assert {name: types[name] for name in wanted} == wanted
    stored = constants(known)
    assert stored["deep6_scale_half"].dtype == stored["project.bias_half"].dtype == np.float16


# The lint


def change(model: ModelProto, name: str, value: np.ndarray) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def node_of(model: ModelProto, output: str) -> NodeProto:
    return next(node for node in model.graph.node if node.output[0] == output)


def of_another_type(model: ModelProto) -> None:
    other = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E5M2)
    change(model, "deep6_zero", np.zeros((), other))


def not_zero(model: ModelProto) -> None:
    change(model, "deep6_zero", np.ones((), FLOAT8.dtype))


def scale_of_zero(model: ModelProto) -> None:
    change(model, "project.weight_scale_half", np.zeros(64, np.float16))


def weights_in_float16(model: ModelProto) -> None:
    node_of(model, "projected_half").input[1] = "stem.weight_half"


def weights_from_the_data(model: ModelProto) -> None:
    node_of(model, "project.weight_rounded_half").input[0] = "deep6_f8"


def a_depthwise_layer(model: ModelProto) -> None:
    node_of(model, "projected_half").attribute.append(helper.make_attribute("group", 64))


def work_on_float8(model: ModelProto) -> None:
    node_of(model, "deep6_rounded_half").input[0] = "turned"
    turn = helper.make_node("Transpose", ["deep6_f8"], ["turned"], name="turn", perm=[0, 1, 2, 3])
    model.graph.node.append(turn)


def test_it_suits_tensorrt_as_it_is(written):
    assert lint(written) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (of_another_type, "must be int8 or float8, and 0"),
        (of_another_type, "only E4M3FN is known"),
        (not_zero, "must be int8 or float8, and 0"),
        (scale_of_zero, "its scale must be constant and above 0"),
        (weights_in_float16, "only one of what goes in and its weights is in float8"),
        (weights_from_the_data, "not constant"),
        (a_depthwise_layer, "no fast float8 kernel"),
        (work_on_float8, "Transpose 'turn': works on float8"),
    ],
)
def test_what_does_not_suit_tensorrt_is_found(
    written: Path, tmp_path: Path, spoil: Callable[[ModelProto], None], fault: str
):
    model = onnx.load(written)
    spoil(model)
    onnx.save(model, tmp_path / "m.onnx")
    assert any(fault in one for one in lint(tmp_path / "m.onnx"))


# The command


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, frame in enumerate(FRAMES):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    return folder


def run(path: Path, out: Path, *words: object) -> int:
    return quantize.main([str(path), "--out", str(out), *map(str, words)])


def test_a_file_of_two_sizes_is_written_and_says_what_it_is(tmp_path, pictures, capsys):
    graphs = [(size, toy(size)) for size in (SIZE_HW, SMALL_HW)]
    for _, graph in graphs:
        halve_weights(graph)
    path = write_toy(tmp_path / "m.onnx", combine(graphs), input_sizes_hw=[SIZE_HW, SMALL_HW])
    out = tmp_path / "m_f8.onnx"
    assert run(path, out, "--float8", "--calibrate", pictures) == 0
    assert "1 layers in float8" in capsys.readouterr().out
    model = read_model_file(out)
    assert model.arithmetic == "f8" and model.made_from is not None
    assert description(out)["rounding"]["float_layers"] == ["depthwise", "stem"]
    assert sizes_of(onnx.load(out)) == [SIZE_HW, SMALL_HW] and lint(out) == []
    for size in (SIZE_HW, SMALL_HW):
        kinds = operators(static_graph(model, size))  # what TensorRT is given
        assert {"QuantizeLinear", "DequantizeLinear"} < set(kinds)
    assert is_made_from(path, out) and not is_made_from(write_toy(tmp_path / "o.onnx"), out)


def test_what_loses_too_much_is_refused(tmp_path, pictures, capsys, monkeypatch):
    monkeypatch.setitem(LEAST_SHARE, "semantic", 1.1)
    words = ("--float8", "--calibrate", pictures)
    assert run(write_toy(tmp_path / "m.onnx"), tmp_path / "q.onnx", *words) == 6
    assert "float8 loses too much" in capsys.readouterr().err
    assert not (tmp_path / "q.onnx").exists()


def test_a_file_without_a_layer_for_it_ends_with_code_4(tmp_path, pictures, capsys):
    model = toy()
    node_of(model, "projected").attribute.append(helper.make_attribute("group", 64))
    change(model, "project.weight", np.ones((64, 1, 1, 1), np.float32))
    words = ("--float8", "--calibrate", pictures)
    assert run(write_toy(tmp_path / "m.onnx", model), tmp_path / "q.onnx", *words) == 4
    assert "no layers that may be float8" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--float8",), ("--float8", "--float16", "--calibrate", "x")])
def test_it_wants_frames_and_no_other_precision(tmp_path, words):
    with pytest.raises(SystemExit, match="2"):
        run(write_toy(tmp_path / "m.onnx"), tmp_path / "q.onnx", *words)
