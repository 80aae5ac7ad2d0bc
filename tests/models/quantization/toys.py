"""A graph with all that matters when layers lose precision: residual, ReLU6, dead channel, head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

SIZE_HW = (32, 48)
ABOUT = {
    "schema": 1,
    "task": "semantic",
    "class_names": ["road", "car", "sky"],
    "input_size_hw": list(SIZE_HW),
    "fit": "stretch",
    "outputs": ["classes"],
    "provenance": {},
}


def toy(size_hw: tuple[int, int] = SIZE_HW, seed: int = 0, half: bool = False) -> ModelProto:
    """Classes of pixels: stem, a residual block with a depthwise layer, a predictor.

    Channel 0 of the stem is dead: weights near zero, a large bias.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "stem.weight": rng.normal(0, 0.4, (64, 3, 3, 3)),
        "depthwise.weight": rng.normal(0, 0.4, (64, 1, 3, 3)),
        "project.weight": rng.normal(0, 0.2, (64, 64, 1, 1)),
        "head.weight": rng.normal(0, 0.2, (3, 64, 1, 1)),
    }
    weights["stem.weight"][0] = 1e-9
    stored = {name: value.astype(np.float32) for name, value in weights.items()}
    stored |= {f"{n}.bias": _bias(rng, 64) for n in ("stem", "depthwise", "project")}
    stored |= {"head.bias": _bias(rng, 3), "low": np.float32(0), "high": np.float32(6)}
    stored["stem.bias"][0] = 2.5
    stored |= {"unit": np.float32(255)}
    make = helper.make_node
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        make("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        make("Div", ["float", "unit"], ["scaled"]),
        make("Transpose", ["scaled"], ["image"], perm=[0, 3, 1, 2]),
        make("Conv", ["image", "stem.weight", "stem.bias"], ["stem"], **pads),
        make("Clip", ["stem", "low", "high"], ["stem6"]),
        make("Conv", ["stem6", "depthwise.weight", "depthwise.bias"], ["deep"], group=64, **pads),
        make("Clip", ["deep", "low", "high"], ["deep6"]),
        make("Conv", ["deep6", "project.weight", "project.bias"], ["projected"]),
        make("Add", ["stem6", "projected"], ["sum"]),
        make("Conv", ["sum", "head.weight", "head.bias"], ["scores"]),
        make("ArgMax", ["scores"], ["class"], axis=1, keepdims=0),
        make("Cast", ["class"], ["as_float"], to=TensorProto.FLOAT),
        make("Cast", ["as_float"], ["classes"], to=TensorProto.UINT8),
    ]
    height, width = size_hw
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info("classes", TensorProto.UINT8, ["N", height, width])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def with_concat() -> ModelProto:
    """The toy, whose last inner layer sees the maps before and behind the depthwise one."""
    model = toy()
    project = next(node for node in model.graph.node if node.output[0] == "projected")
    place = list(model.graph.node).index(project)
    project.input[0] = "both"
    both = helper.make_node("Concat", ["deep6", "stem6"], ["both"], axis=1)
    model.graph.node.insert(place, both)
    weight = next(t for t in model.graph.initializer if t.name == "project.weight")
    wide = np.random.default_rng(4).normal(0, 0.2, (64, 128, 1, 1)).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(wide, "project.weight"))
    return model


def with_rows() -> ModelProto:
    """The toy with fully connected layers on top: maps, turned and flattened, in rows."""
    model, rng = toy(), np.random.default_rng(6)
    rows = SIZE_HW[0] * SIZE_HW[1] * 64
    weights = {"fc.weight": (32, rows), "last.weight": (3, 32)}
    for name, shape in weights.items():
        value = rng.normal(0, 0.01, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    row = numpy_helper.from_array(np.array([-1, rows]), "row")
    model.graph.initializer.append(row)
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["sum"], ["turned"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", ["turned", "row"], ["rows"]),
            helper.make_node("Gemm", ["rows", "fc.weight"], ["fc"], transB=1),
            helper.make_node("Gemm", ["fc", "last.weight"], ["last"], transB=1),
        ]
    )
    return model


def write_toy(path: Path, model: ModelProto | None = None, **about: object) -> Path:
    """The toy as a model file."""
    model = model or toy()
    helper.set_model_props(model, {"boxstream": json.dumps(ABOUT | about)})
    onnx.save(model, path)
    return path


def noise_frames(count: int, size_hw: tuple[int, int] = SIZE_HW, seed: int = 1) -> list[np.ndarray]:
    """Blocks of noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, size_hw[0] // 4, size_hw[1] // 4, 3), np.uint8)
    return list(small.repeat(4, 1).repeat(4, 2))


def _bias(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(0, 0.3, count).astype(np.float32)
