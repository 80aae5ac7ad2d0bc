"""Maps go into fully connected layers as engines hold them: channels last.

A paper's layer reads a region's bins (C, h, w) as one row, channel by channel. An engine that
computes channels last holds (h, w, C) and would turn every region around, in every frame. Here the
columns of the weights are turned around instead: by operators on constants alone, which an engine
computes once, when it loads the file. So the weights are stored as they were learned.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.helper import make_node

MARK = "_channels_last"
"""Behind the name of weights that were turned around."""


def flatten_channels_last(proto: ModelProto) -> None:
    """Change, in place, every fully connected layer that reads flattened maps (N, C, h, w)."""
    flattened = _flattened_maps(proto)
    nodes, turned = list[NodeProto](), set[str]()
    for node in proto.graph.node:
        if node.op_type == "Gemm" and node.input[0] in flattened:
            channels, cells = flattened[node.input[0]]
            if node.input[1] not in turned:
                turned.add(node.input[1])
                nodes += _turned_weight(proto, node.input[1], channels, cells)
            node.input[1] += MARK
        elif node.output[0] in flattened:
            turned_map = node.input[0] + MARK
            nodes.append(make_node("Transpose", [node.input[0]], [turned_map], perm=[0, 2, 3, 1]))
            node.input[0] = turned_map
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _flattened_maps(proto: ModelProto) -> dict[str, tuple[int, int]]:
    """By tensor of rows, which only such layers read: channels and cells of its maps."""
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.value_info, *proto.graph.output)
    }
    found = dict[str, tuple[int, int]]()
    for node in proto.graph.node:
        before = shapes.get(node.input[0], []) if node.op_type in ("Reshape", "Flatten") else []
        after = shapes.get(node.output[0], [])
        if len(before) != 4 or len(after) != 2 or not all(before[1:]):
            continue
        channels, height, width = before[1:]
        is_row = channels > 1 and height * width > 1 and after[1] == channels * height * width
        if is_row and all(_reads_rows(one, node.output[0]) for one in _readers(proto, node)):
            found[node.output[0]] = channels, height * width
    return found


def _readers(proto: ModelProto, node: NodeProto) -> Iterator[NodeProto]:
    return (one for one in proto.graph.node if node.output[0] in one.input)


def _reads_rows(node: NodeProto, rows: str) -> bool:
    """Whether it is a layer whose weights (outputs, inputs) have a column for each number."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    is_plain = attributes.get("transB", 0) == 1 and attributes.get("transA", 0) == 0
    return node.op_type == "Gemm" and is_plain and rows not in node.input[1:]


def _turned_weight(
    proto: ModelProto, weight: str, channels: int, cells: int
) -> Iterator[NodeProto]:
    """(outputs, C * cells) -> (outputs, cells * C)."""
    split, flat = f"{weight}/by_channel", f"{weight}/flat"
    # 0: as many outputs as there are.
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, channels, cells]), split))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, channels * cells]), flat))
    yield make_node("Reshape", [weight, split], [f"{weight}/columns"])
    yield make_node("Transpose", [f"{weight}/columns"], [f"{weight}/turned"], perm=[0, 2, 1])
    yield make_node("Reshape", [f"{weight}/turned", flat], [weight + MARK])
