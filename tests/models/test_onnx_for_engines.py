"""Changes of the graph for the sake of engines: cheaper there, and the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

from models.judging.runners import the_core
from models.model_file.channels_last import MARK, flatten_channels_last
from models.model_file.own_biases import give_own_biases
from models.quantization.layers import feature_layers, widened

RNG = np.random.default_rng(3)
SHAPE = (4, 6, 3, 5)


def built(nodes, outputs, stored, shapes) -> ModelProto:
    """A graph from maps (N, 6, 3, 5)."""
    value = make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "heads",
        [value("maps", TensorProto.FLOAT, ["N", *SHAPE[1:]])],
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
        value_info=[value(name, TensorProto.FLOAT, sides) for name, sides in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def regions() -> ModelProto:
    """Pooled maps, flattened, before two layers that share their rows."""
    stored = {"half": np.float32(0.5), "row": np.array([-1, 90])}
    stored |= {"fc6.weight": normal(7, 90), "fc6.bias": normal(7)}
    stored |= {"other.weight": normal(2, 90), "fc7.weight": normal(3, 7)}
    nodes = [
        make_node("Mul", ["maps", "half"], ["bins"]),
        make_node("Reshape", ["bins", "row"], ["rows"]),
        make_node("Gemm", ["rows", "fc6.weight", "fc6.bias"], ["fc6"], transB=1),
        make_node("Gemm", ["rows", "other.weight"], ["other"], transB=1),
        make_node("Gemm", ["fc6", "fc7.weight"], ["fc7"], transB=1),
    ]
    shapes = {"bins": ["N", *SHAPE[1:]], "rows": ["N", 90]}
    return built(nodes, ["fc7", "other"], stored, shapes)


def answers(model: ModelProto, maps: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"maps": maps})


def changed(model: ModelProto, change) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return copy


def test_layers_of_turned_maps_give_the_same_numbers_and_keep_their_weights():
    plain, maps = regions(), normal(*SHAPE)
    turned = changed(plain, flatten_channels_last)
    for a, b in zip(answers(plain, maps), answers(turned, maps), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    kept = {t.name: numpy_helper.to_array(t) for t in turned.graph.initializer}
    for tensor in plain.graph.initializer:
        assert (kept[tensor.name] == numpy_helper.to_array(tensor)).all()
    marked = {n.output[0] for n in turned.graph.node if any(MARK in name for name in n.input)}
    assert {"fc6", "other", "rows"} <= marked and "fc7" not in marked


def test_a_weight_is_turned_when_it_is_widened_and_its_layer_keeps_its_name():
    plain, maps = regions(), normal(*SHAPE)
    wide = widened(changed(plain, flatten_channels_last))
    assert [node.op_type for node in wide.graph.node if node.op_type == "Transpose"] == [
        "Transpose"
    ]
    assert [layer.name for layer in feature_layers(wide)] == ["fc6"]
    for a, b in zip(answers(plain, maps), answers(wide, maps), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def reads_rows_elsewhere(model: ModelProto) -> None:
    model.graph.node.append(make_node("Relu", ["rows"], ["rest"]))
    model.graph.output.append(make_tensor_value_info("rest", TensorProto.FLOAT, None))


def has_columns_as_rows(model: ModelProto) -> None:
    model.graph.node[2].attribute[0].i = 0
    weight = next(t for t in model.graph.initializer if t.name == "fc6.weight")
    weight.CopyFrom(numpy_helper.from_array(normal(90, 7), "fc6.weight"))


@pytest.mark.parametrize("difference", [reads_rows_elsewhere, has_columns_as_rows])
def test_rows_that_mean_something_else_to_somebody_stay(difference):
    plain = changed(regions(), difference)
    assert changed(plain, flatten_channels_last) == plain


def shared_head() -> ModelProto:
    """A layer with ReLU on two levels, and the predictor of both."""
    stored = {"zoom": np.array([1, 1, 2, 2], np.float32)}
    stored |= {"head.weight": normal(6, 6, 3, 3), "head.bias": normal(6)}
    stored |= {"predictor.weight": normal(2, 6, 1, 1)}
    nodes = [make_node("Resize", ["maps", "", "zoom"], ["large"], mode="nearest")]
    for name in ("maps", "large"):
        layer = [name, "head.weight", "head.bias"]
        nodes += [
            make_node("Conv", layer, [f"{name}/conv"], name=f"{name}/conv", pads=[1] * 4),
            make_node("Relu", [f"{name}/conv"], [f"{name}/relu"], name=f"{name}/relu"),
            make_node("Conv", [f"{name}/relu", "predictor.weight"], [f"{name}/out"]),
        ]
    return built(nodes, ["maps/out", "large/out"], stored, {})


def test_own_biases_are_copies_and_the_first_keeps_its_name():
    plain, maps = shared_head(), normal(*SHAPE)
    own = changed(plain, give_own_biases)
    biases = [node.input[2] for node in own.graph.node if len(node.input) == 3][1:]
    assert biases[0] == "head.bias" and len(set(biases)) == 2
    for a, b in zip(answers(plain, maps), answers(own, maps), strict=True):
        assert (a == b).all()


def separate_relus(model: ModelProto) -> int:
    """Passes over maps that OpenVINO makes for the ReLUs alone."""
    loaded = the_core().read_model(model.SerializeToString())
    loaded.reshape(list(SHAPE))
    compiled = the_core().compile_model(loaded, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    joined = [
        str(info["originalLayersNames"].value)
        for info in told
        if "Convolution" not in str(info["layerType"].value)
    ]
    return sum("relu" in names for names in joined)


def test_openvino_joins_a_layer_and_its_relu_once_the_bias_is_its_own():
    plain = shared_head()
    assert separate_relus(changed(plain, give_own_biases)) == 0
    # Should this fail, OpenVINO has learned it, and models/model_file/own_biases.py can go.
    assert separate_relus(plain) == 2
