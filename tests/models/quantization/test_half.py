"""The float16 graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from models.model_file.input_sizes import at_size
from models.onnx_lint import lint
from models.quantization.half import halved
from models.quantization.layers import constants, feature_layers, widened
from models.quantization.noise import watched
from tests.models.quantization.toys import noise_frames, toy, write_toy

STREET = Path(__file__).parents[3] / "models" / "zoo" / "street.onnx"


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    known = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in known.graph.value_info}


def test_scores_differ_by_no_more_than_float16_does():
    model, frame = toy(), noise_frames(1)[0]
    (wanted,), (found,) = (
        watched(one, ["scores"])(frame) for one in (model, halved(model, feature_layers(model)))
    )
    assert 0 < np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()


def test_features_are_float16_and_scores_float32():
    types = types_of(halved(toy(), feature_layers(toy())))
    half = {name for name, kind in types.items() if kind == TensorProto.FLOAT16}
    assert half == {
        f"{n}_half" for n in ("image", "stem", "stem6", "deep", "deep6", "projected", "sum")
    }
    assert types["scores"] == types["sum"] == TensorProto.FLOAT


def test_one_cast_leads_in_and_one_leads_out():
    model = halved(toy(), feature_layers(toy()))
    casts = [(n.input[0], n.output[0]) for n in model.graph.node if n.name.endswith("/cast")]
    assert casts == [("image", "image_half"), ("sum_half", "sum")]
    assert "stem.weight" not in constants(model)


def test_of_the_street_detector_regions_scores_and_boxes_stay_float32(tmp_path):
    graph = widened(at_size(onnx.load(STREET), (320, 576)))
    half = halved(graph, feature_layers(graph))
    onnx.save(half, tmp_path / "m.onnx")
    assert lint(tmp_path / "m.onnx") == []
    types = types_of(half) | {t.name: t.data_type for t in half.graph.initializer}
    careful = {"TopK", "RoiAlign", "Softmax", "Exp", "GatherElements", "ReduceMax", "Greater"}
    for node in half.graph.node:
        kinds = {types.get(name) for name in node.input}
        if node.op_type in careful:
            assert TensorProto.FLOAT16 not in kinds, node.name
        if node.op_type == "Conv" and "rpn.head.cls" not in node.input[1] + node.input[0]:
            predicts = "cls_logits" in node.input[1] or "bbox_pred" in node.input[1]
            assert (TensorProto.FLOAT16 in kinds) != predicts, node.name


def test_a_constant_beyond_float16_is_refused():
    model = toy()
    bias = next(t for t in model.graph.initializer if t.name == "stem.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(64, 1e5, np.float32), "stem.bias"))
    with pytest.raises(ValueError, match="beyond float16"):
        halved(model, feature_layers(model))


def test_it_suits_tensorrt_as_it_is(tmp_path):
    half = halved(toy(), feature_layers(toy()))
    assert lint(write_toy(tmp_path / "m.onnx", half)) == []
