"""Small model files for tests: a real graph with convolutions, 24 slots, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.engines import Engine, Purpose, load_engine
from pipeline.model_file.content import content_sha256
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings

HEIGHT, WIDTH = 32, 48
SLOTS = (HEIGHT // 8) * (WIDTH // 8)
CLASSES = ("person", "car", "bus")
ENGINES = ["openvino", "onnxruntime"]

ENTRY: dict[str, Any] = {
    "schema": 1,
    "task": "detection",
    "output_form": "candidates",
    "class_names": list(CLASSES),
    "input_size_hw": [HEIGHT, WIDTH],
    "fit": "letterbox",
    "outputs": ["boxes", "scores", "labels", "exact"],
    "score_threshold": 0.5,
    "nms_iou": 0.5,
    "max_detections": 100,
    "nms_body": "fixpoint",
    "provenance": {"architecture": "two convolutions"},
}


def write_model(path: Path, entry: dict[str, Any] | None = None, key: str = "boxstream") -> Path:
    """Write the graph with a metadata entry; `entry` overrides values of `ENTRY`."""
    model = helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"other": "x", key: json.dumps(ENTRY | (entry or {}))})
    onnx.save(model, path)
    return path


def write_int8_form(original: Path, entry: dict[str, Any] | None = None) -> Path:
    """A file beside the original that says it is its form in int8, and answers something else.

    `entry` overrides values of its metadata. Nothing in it is int8: which file is run is a matter
    of what it says, and of its answers.
    """
    told = {
        "arithmetic": "int8",
        "made_from": {"file": original.name, "sha256": content_sha256(original)},
        "precision_check": {"f32": 0.42, "bf16": 0.42, "original": 0.42},
    }
    path = write_model(original.with_name(f"{original.stem}_int8.onnx"), told | (entry or {}))
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "second":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "second"))
    onnx.save(model, path)
    return path


def graph(height: int = HEIGHT, width: int = WIDTH) -> onnx.GraphProto:
    """Frames -> convolutions of stride 4 and 2 -> boxes, best class and its score, per cell."""
    slots = (height // 8) * (width // 8)
    rng = np.random.default_rng(5)
    weights = {
        "first": rng.normal(0, 0.005, (8, 3, 4, 4)),
        "second": rng.normal(0, 0.5, (4 + len(CLASSES), 8, 2, 2)),
    }
    constants = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    constants += [
        numpy_helper.from_array(np.array([0, 4 + len(CLASSES), -1]), "rows"),
        numpy_helper.from_array(np.array([4, len(CLASSES)]), "parts"),
        numpy_helper.from_array(np.array(2.0, np.float32), "two"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "first"], ["c1"], strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "second"], ["c2"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("Reshape", ["c2", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["cells"], perm=[0, 2, 1]),
        helper.make_node("Split", ["cells", "parts"], ["boxes", "logits"], axis=2),
        helper.make_node("Sigmoid", ["logits"], ["classes"]),
        helper.make_node("ReduceMax", ["classes"], ["scores"], axes=[2], keepdims=0),
        helper.make_node("ArgMax", ["classes"], ["labels"], axis=2, keepdims=0),
        helper.make_node("ReduceMax", ["scores"], ["best"], axes=[1], keepdims=0),
        helper.make_node("Less", ["best", "two"], ["exact"]),
    ]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "cells",
        [value("frames", TensorProto.UINT8, ["n", height, width, 3])],
        [
            value("boxes", TensorProto.FLOAT, ["n", slots, 4]),
            value("scores", TensorProto.FLOAT, ["n", slots]),
            value("labels", TensorProto.INT64, ["n", slots]),
            value("exact", TensorProto.BOOL, ["n"]),
        ],
        constants,
    )


def load(
    model: ModelFile,
    name: str,
    purpose: Purpose = "recording",
    all_sizes: bool = False,
    **settings: Any,
) -> Engine:
    """Load into an engine, f32 on two threads unless told otherwise."""
    asked = EngineSettings(name=name, **{"precision": "f32", "threads": 2} | settings)
    return load_engine(model, asked, purpose=purpose, all_sizes=all_sizes)


def images(n: int, seed: int = 0) -> np.ndarray:
    """(n, H, W, 3) uint8 noise of the size that `graph` takes."""
    return np.random.default_rng(seed).integers(0, 256, (n, HEIGHT, WIDTH, 3), dtype=np.uint8)
