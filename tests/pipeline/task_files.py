"""Small model files of the other tasks: classes of pixels, masks of objects, given regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.pipeline.model_files import ENTRY, HEIGHT, SLOTS, WIDTH, graph

PIXEL_NAMES = ("dark", "grey", "bright")
PALETTE = ((200, 30, 40), (20, 180, 60), (40, 60, 220))
REGIONS = 6

SEMANTIC: dict[str, Any] = {
    "schema": 1,
    "task": "semantic",
    "class_names": list(PIXEL_NAMES),
    "palette": [list(colour) for colour in PALETTE],
    "input_size_hw": [HEIGHT, WIDTH],
    "fit": "letterbox",
    "outputs": ["classes"],
    "provenance": {"architecture": "thresholds"},
}
INSTANCE = ENTRY | {"task": "instance", "outputs": [*ENTRY["outputs"], "masks"]}
REGIONAL = ENTRY | {"proposer": "corners", "regions": REGIONS}

_value = helper.make_tensor_value_info


def brightness_class(rgb: np.ndarray) -> np.ndarray:
    """What `write_semantic` computes, in numpy: (..., 3) uint8 -> (...) uint8, 0 to 2."""
    return (rgb.astype(np.float32).mean(-1) / np.float32(86)).astype(np.uint8)


def write_semantic(
    path: Path,
    entry: dict[str, Any] | None = None,
    more: float = 0,
    kind: int = TensorProto.UINT8,
) -> Path:
    """A class by brightness; `more` is added to every class, `kind` is the type of the answer."""
    height, width = (entry or {}).get("input_size_hw", (HEIGHT, WIDTH))
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[3], keepdims=0),
        helper.make_node("Div", ["mean", "step"], ["steps"]),
        helper.make_node("Floor", ["steps"], ["floor"]),
        helper.make_node("Add", ["floor", "more"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["classes"], to=kind),
    ]
    content = helper.make_graph(
        nodes,
        "brightness",
        [_value("frames", TensorProto.UINT8, ["n", height, width, 3])],
        [_value("classes", kind, ["n", height, width])],
        [
            numpy_helper.from_array(np.array(86, np.float32), "step"),
            numpy_helper.from_array(np.array(more, np.float32), "more"),
        ],
    )
    return _write(path, content, SEMANTIC | (entry or {}))


def write_instance(path: Path, entry: dict[str, Any] | None = None) -> Path:
    """The detector of `model_files`; masks are the lower three quarters of the boxes."""
    content = graph()
    most = np.zeros((1, 1, 28, 28), np.float32)
    most[..., 7:, :] = 1
    content.initializer.extend(
        [
            numpy_helper.from_array(most, "most"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
            numpy_helper.from_array(np.array([2, 3]), "last"),
        ]
    )
    content.node.extend(
        [
            helper.make_node("Mul", ["scores", "nothing"], ["zeros"]),
            helper.make_node("Unsqueeze", ["zeros", "last"], ["cell"]),
            helper.make_node("Add", ["cell", "most"], ["masks"]),
        ]
    )
    content.output.append(_value("masks", TensorProto.FLOAT, ["n", SLOTS, 28, 28]))
    return _write(path, content, INSTANCE | (entry or {}))


def write_regional(path: Path, entry: dict[str, Any] | None = None) -> Path:
    """Takes every region with an area for a car of score 0.9, whatever the picture shows."""
    nodes = [
        helper.make_node("Split", ["regions", "pair"], ["low", "high"], axis=2),
        helper.make_node("Sub", ["high", "low"], ["sides"]),
        helper.make_node("ReduceMin", ["sides"], ["side"], axes=[2], keepdims=0),
        helper.make_node("Greater", ["side", "zero"], ["filled"]),
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["white"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Less", ["white", "much"], ["exact"]),
        helper.make_node("Where", ["filled", "sure", "zero"], ["scores"]),
        helper.make_node("Cast", ["filled"], ["labels"], to=TensorProto.INT64),
        helper.make_node("Identity", ["regions"], ["boxes"]),
    ]
    constants = {"zero": 0.0, "sure": 0.9, "much": 1e6}
    content = helper.make_graph(
        nodes,
        "regions",
        [
            _value("frames", TensorProto.UINT8, ["n", HEIGHT, WIDTH, 3]),
            _value("regions", TensorProto.FLOAT, ["n", REGIONS, 4]),
        ],
        [
            _value("boxes", TensorProto.FLOAT, ["n", REGIONS, 4]),
            _value("scores", TensorProto.FLOAT, ["n", REGIONS]),
            _value("labels", TensorProto.INT64, ["n", REGIONS]),
            _value("exact", TensorProto.BOOL, ["n"]),
        ],
        [
            *(numpy_helper.from_array(np.array(v, np.float32), k) for k, v in constants.items()),
            numpy_helper.from_array(np.array([2, 2]), "pair"),
        ],
    )
    return _write(path, content, REGIONAL | (entry or {}))


def _write(path: Path, content: onnx.GraphProto, entry: dict[str, Any]) -> Path:
    model = helper.make_model(content, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"boxstream": json.dumps(entry)})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
