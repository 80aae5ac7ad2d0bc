"""Which layers may lose precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models.model_file.input_sizes import at_size
from models.model_file.onnx_file import halve_weights
from models.quantization.layers import all_layers, feature_layers, widened
from models.quantization.noise import watched
from tests.models.quantization.toys import noise_frames, toy

ZOO = Path(__file__).parents[3] / "models" / "zoo"


def test_every_layer_of_the_toy_but_its_predictor_may_lose_precision():
    assert [one.name for one in all_layers(toy())] == ["stem", "depthwise", "project", "head"]
    assert [one.name for one in feature_layers(toy())] == ["stem", "depthwise", "project"]


def test_the_predictors_of_the_street_detector_stay_float():
    graph = widened(at_size(onnx.load(ZOO / "street.onnx"), (320, 576)))
    rounded = {one.name for one in feature_layers(graph)}
    rest = {one.name for one in all_layers(graph)} - rounded
    assert rest == {
        *("rpn.head.cls_logits", "rpn.head.bbox_pred"),
        *("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"),
    }
    assert {"backbone.body.0.0", "rpn.head.conv.0.0", "roi_heads.box_head.fc7"} <= rounded


def test_of_the_road_model_all_but_the_classifier_may_lose_precision():
    graph = widened(onnx.load(ZOO / "road_segmentation.onnx"))
    rest = [one.name for one in all_layers(graph) if one not in feature_layers(graph)]
    assert rest == ["decoder.classify"]


def test_halved_weights_are_widened_to_what_they_were_rounded_to():
    half = toy()
    halve_weights(half)
    wide = widened(half)
    assert not any(node.op_type == "Cast" and "weight" in node.input[0] for node in wide.graph.node)
    stored = {t.name: numpy_helper.to_array(t) for t in toy().graph.initializer}
    found = {t.name: numpy_helper.to_array(t) for t in wide.graph.initializer}
    rounded = stored["project.weight"].astype(np.float16).astype(np.float32)
    assert (found["project.weight"] == rounded).all()
    frame = noise_frames(1)[0]
    assert (watched(half, ["scores"])(frame)[0] == watched(wide, ["scores"])(frame)[0]).all()
