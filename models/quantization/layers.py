"""Which layers of a graph may lose precision.

A trunk, a pyramid and the layers of the heads work on features, which forgive rounding. What
comes behind them does not: the last layers, whose outputs are scores and box offsets, decoding,
IoU, the coordinates of regions, top-k. So a layer may be rounded if its output is features: if,
by way of operators that keep features what they are, it is the input of another layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from models.model_file.channels_last import MARK
from models.quantization.eight_bits import EightBits, suits_float8

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_FOLDED = frozenset({"Cast", "Reshape", "Transpose"})
_EVERY_INPUT = frozenset({"Add", "Concat", "Mul", "Sub"})
_FIRST_INPUT = frozenset(
    {
        *("AveragePool", "BatchNormalization", "Clip", "DepthToSpace", "Div", "Expand", "Flatten"),
        *("GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LRN"),
        *("LeakyRelu", "MaxPool", "Pad", "PRelu", "ReduceMean", "Relu", "Reshape", "Resize"),
        *("RoiAlign", "MaxRoiPool", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze"),
    }
)


@dataclass(frozen=True)
class Layer:
    """A convolution or fully connected layer with constant weights.

    Attributes:
        name: That of its weights without ``.weight``; layers that share weights share it.
        node: In the graph.
    """

    name: str
    node: NodeProto

    @property
    def data(self) -> str:
        """The tensor that goes in."""
        return self.node.input[0]

    @property
    def weight(self) -> str:
        """The constant that it is multiplied with."""
        return self.node.input[1]

    @property
    def bias(self) -> str | None:
        """The constant that is added, if there is one."""
        return self.node.input[2] if len(self.node.input) > 2 and self.node.input[2] else None

    @property
    def output(self) -> str:
        """The tensor that comes out."""
        return self.node.output[0]

    @property
    def channel_axis(self) -> int:
        """Axis of the weights along which output channels lie."""
        if self.node.op_type == "ConvTranspose":
            return 1
        turned = any(a.name == "transB" and a.i for a in self.node.attribute)
        return 0 if turned or self.node.op_type == "Conv" else 1


def widened(model: ModelProto) -> ModelProto:
    """A copy in which every weight is a float32 constant, as its layer reads it.

    Weights that are stored as float16 are cast, keeping the values they were rounded to, and the
    columns that :mod:`models.model_file.channels_last` turns are turned. It computes the same.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    stored = constants(copy)
    kept = list[NodeProto]()
    for node in copy.graph.node:
        if node.op_type in _FOLDED and all(name in stored for name in node.input):
            given = {name: stored[name] for name in node.input}
            made = np.asarray(cast(list[Any], ReferenceEvaluator(node).run(None, given))[0])
            stored[node.output[0]] = made
            copy.graph.initializer.append(numpy_helper.from_array(made, node.output[0]))
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    tensors = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(kept)
    copy.graph.initializer.extend(tensors)
    return copy


def constants(model: ModelProto) -> dict[str, np.ndarray]:
    """Every initialiser by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def all_layers(model: ModelProto) -> list[Layer]:
    """Layers with constant weights, in the order of the graph.

    A transposed convolution in groups is none: its output channels lie along two axes.
    """
    stored = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    return [
        Layer(node.input[1].removesuffix(MARK).removesuffix(".weight"), node)
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.input[1] in stored and not _is_grouped(node)
    ]


def feature_layers(model: ModelProto) -> list[Layer]:
    """The layers whose outputs are features of other layers; see the module."""
    readers = readers_of(model)
    return [layer for layer in all_layers(model) if _feeds_a_layer(layer, readers)]


def layers_for(kind: EightBits, model: ModelProto) -> list[Layer]:
    """Those of them that are worth rounding to that type."""
    layers = feature_layers(model)
    if kind.is_integer:
        return layers
    sides = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [layer for layer in layers if suits_float8(layer.node, sides[layer.weight])]


def readers_of(model: ModelProto) -> Mapping[str, list[tuple[NodeProto, int]]]:
    """By tensor: the nodes that read it, and as which of their inputs."""
    readers = defaultdict[str, list[tuple[NodeProto, int]]](list)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            readers[name].append((node, index))
    return readers


def _feeds_a_layer(layer: Layer, readers: Mapping[str, list[tuple[NodeProto, int]]]) -> bool:
    seen, waiting = set[str](), [layer.output]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node, index in readers.get(name, ()):
            if node.op_type in WEIGHTED and index == 0:
                return True
            waiting += _carried(node, index)
    return False


def _carried(node: NodeProto, index: int) -> Iterator[str]:
    """What holds the same features as that input of the node."""
    if node.op_type in _EVERY_INPUT or (node.op_type in _FIRST_INPUT and index == 0):
        yield from node.output


def _is_grouped(node: NodeProto) -> bool:
    groups = [a.i for a in node.attribute if a.name == "group"]
    return node.op_type == "ConvTranspose" and groups not in ([], [1])
