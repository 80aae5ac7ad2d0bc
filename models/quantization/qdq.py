"""The int8 or float8 graph: what goes into a layer, and its weights, rounded to 8 bits.

ONNX's QuantizeLinear and DequantizeLinear say where; an engine joins them with the layers between
them and multiplies numbers of 8 bits. Weights are stored so, symmetric, with a scale for each
output channel; activations are symmetric with one scale for a tensor. Their zero point is 0 and
not an end of the range, because TensorRT takes no other. Biases stay float: engines round them, if
they must, when they load the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models.quantization.eight_bits import INT8, LEAST_SCALE, EightBits
from models.quantization.layers import Layer, constants, readers_of

_ALONG = frozenset({"Add", "MaxPool", "Resize"})
"""Operators that read a tensor in int8 where a layer beside them does: shortcuts of residual
blocks and of pyramids, which engines then add without going back to float."""
_MOVES = frozenset({"Flatten", "Reshape", "Transpose"})
"""Operators that only move numbers to other places."""


@dataclass(frozen=True)
class Rounding:
    """How layers are rounded.

    Attributes:
        largest: Magnitude, by tensor that goes into a layer, that becomes the type's greatest
            number; more is cut off.
        offsets: (C,) float by layer's name, to be added to its bias.
        kind: Type that they are rounded to.
    """

    largest: Mapping[str, float]
    offsets: Mapping[str, np.ndarray]
    kind: EightBits = INT8


def quantised(model: ModelProto, layers: Sequence[Layer], rounding: Rounding) -> ModelProto:
    """A copy of a float32 model in which these of its layers compute in 8 bits.

    Raises:
        ValueError: the model is of an older opset.
    """
    opset, least = opset_of(model), rounding.kind.opset
    if opset < least:
        raise ValueError(f"the model has opset {opset}, at least {least} is needed; export again")
    graph = _Writer(model, layers, rounding)
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(graph.nodes())
    used = {name for node in copy.graph.node for name in node.input}
    copy.graph.initializer.extend(t for t in graph.initialisers() if t.name in used)
    shapes = [v for v in model.graph.value_info if v.name not in graph.weights.keys() | graph.moved]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(shapes)
    return copy


def opset_of(model: ModelProto) -> int:
    """That of ONNX's own operators."""
    return max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def ways_back(model: ModelProto, layers: Sequence[Layer]) -> dict[str, list[str]]:
    """By tensor that goes into a layer: the tensors from it back to the one that is rounded for it.

    That is itself, but for a fully connected layer whose numbers are only moved to their places:
    they are rounded where they are made, so that an engine does both in one go.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = readers_of(model)
    ways = {layer.data: [layer.data] for layer in layers}
    for way in (ways[layer.data] for layer in layers if layer.node.op_type == "Gemm"):
        while (maker := makers.get(way[-1])) and maker.op_type in _MOVES:
            if len(readers[way[-1]]) > 1:
                break
            way.append(maker.input[0])
    return ways


class _Writer:
    """Writes the nodes and constants of one graph."""

    def __init__(self, model: ModelProto, layers: Sequence[Layer], rounding: Rounding) -> None:
        self.model, self.rounding, self.kind = model, rounding, rounding.kind
        self.stored = constants(model)
        self.layers = {layer.output: layer for layer in layers}
        self.inputs = {layer.data for layer in layers}
        self.weights = {layer.weight: layer for layer in layers}
        self.readers = readers_of(model)
        self.largest = dict(rounding.largest)
        self.moved = set[str]()
        """Tensors that are rounded before they come to their places."""
        ways = ways_back(model, layers) if self.kind.is_integer else {}
        for data, way in ways.items():
            self.moved |= set(way[:-1])
            self.inputs = self.inputs - {data} | {way[-1]}
            self.largest.setdefault(way[-1], self.largest[data])

    def nodes(self) -> Iterator[NodeProto]:
        for layer in self.weights.values():
            yield self._dequantize(layer.weight, axis=layer.channel_axis)
        for value in self.model.graph.input:
            yield from self._rounded(value.name)
        for node in self.model.graph.node:
            joins = node.op_type == "Concat" and self.kind.is_integer
            if joins and node.output[0] in self.inputs:
                yield from self._concatenated(node)
                continue
            yield self._with_rounded(node) if node.output[0] in self.moved else self._rewired(node)
            for name in node.output:
                yield from self._rounded(name)

    def initialisers(self) -> Iterator[TensorProto]:
        for layer in self.weights.values():
            yield from rounded_weight(self.stored, layer, self.kind)
        for name in sorted(self.inputs):
            yield numpy_helper.from_array(self.kind.scale(self.largest[name]), name + "_scale")
            yield numpy_helper.from_array(np.zeros((), self.kind.dtype), name + "_zero")
        moved = {layer.bias: layer for layer in self.layers.values() if layer.bias}
        for tensor in self.model.graph.initializer:
            if tensor.name in moved and moved[tensor.name].name in self.rounding.offsets:
                bias = self.stored[tensor.name] + self.rounding.offsets[moved[tensor.name].name]
                yield numpy_helper.from_array(bias.astype(np.float32), tensor.name)
            elif tensor.name not in self.weights:
                yield tensor

    def _rounded(self, name: str) -> Iterator[NodeProto]:
        if name in self.inputs:
            yield helper.make_node(
                "QuantizeLinear",
                [name, name + "_scale", name + "_zero"],
                [f"{name}_{self.kind.name}"],
                name=name + "/quantize",
            )
            yield self._dequantize(name)

    def _dequantize(self, name: str, axis: int | None = None) -> NodeProto:
        along: dict[str, Any] = {} if axis is None else {"axis": axis}
        return helper.make_node(
            "DequantizeLinear",
            [f"{name}_{self.kind.name}", name + "_scale", name + "_zero"],
            [name + "_rounded"],
            name=name + "/dequantize",
            **along,
        )

    def _rounding_cuts_off(self, node: NodeProto) -> bool:
        """Whether it is a ReLU6 whose 6 is what rounding cuts off at anyway.

        A ReLU is what engines join with the layer before; OpenVINO 2026.4 joins a Clip wrongly.
        """
        name = node.output[0]
        if node.op_type != "Clip" or name not in self.inputs or len(node.input) < 3:
            return False
        low, high = (self.stored.get(limit) for limit in node.input[1:3])
        if low is None or high is None or low != 0 or high < self.largest[name]:
            return False
        readers = (reader for reader, _ in self.readers[name])
        return all(r.output[0] in self.layers or r.op_type in _ALONG for r in readers)

    def _concatenated(self, node: NodeProto) -> Iterator[NodeProto]:
        """Parts are rounded, all with the scale of the whole, before they are put together.

        Then engines put them together in int8, without a change of scale.
        """
        whole = node.output[0]
        if any(reader.output[0] not in self.layers for reader, _ in self.readers[whole]):
            yield node
        parts = [f"{whole}_part{index}" for index in range(len(node.input))]
        for name, part in zip(node.input, parts, strict=True):
            yield helper.make_node(
                "QuantizeLinear",
                [name, whole + "_scale", whole + "_zero"],
                [part + "_int8"],
                name=part + "/quantize",
            )
            yield helper.make_node(
                "DequantizeLinear",
                [part + "_int8", whole + "_scale", whole + "_zero"],
                [part + "_rounded"],
                name=part + "/dequantize",
            )
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = whole + "/concat_rounded"
        copy.input[:] = [part + "_rounded" for part in parts]
        copy.output[0] = whole + "_rounded"
        yield copy

    def _with_rounded(self, node: NodeProto) -> NodeProto:
        """It moves the rounded tensor instead."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = node.output[0] + "/rounded"
        copy.input[0] += "_rounded"
        copy.output[0] += "_rounded"
        return copy

    def _rewired(self, node: NodeProto) -> NodeProto:
        copy = NodeProto()
        copy.CopyFrom(node)
        if node.output[0] in self.layers:
            copy.input[0] += "_rounded"
            copy.input[1] += "_rounded"
        elif not self.kind.is_integer:
            pass  # TensorRT reads shortcuts as they are, in float16, which is more accurate
        elif self._rounding_cuts_off(node):
            copy.op_type = "Relu"
            del copy.input[1:], copy.attribute[:]
        elif node.op_type in _ALONG:
            copy.input[:] = [n + "_rounded" if n in self.inputs else n for n in node.input]
        return copy


def rounded_weight(
    stored: Mapping[str, np.ndarray], layer: Layer, kind: EightBits = INT8
) -> Iterator[TensorProto]:
    """Weights of a layer in 8 bits, with the scales of its channels."""
    values, axis = stored[layer.weight], layer.channel_axis
    others = tuple(a for a in range(values.ndim) if a != axis)
    scale = np.abs(values).max(others) / kind.largest
    if layer.bias and kind.is_integer:
        # An engine may turn biases into int32, in units of the scales of weights and inputs; those
        # of dead channels, whose weights are nearly zero, would not fit.
        scale = np.maximum(scale, np.abs(stored[layer.bias]) / (2**30 * LEAST_SCALE))
    scale = kind.rounded_scale(np.maximum(scale, 1e-9).astype(np.float32))
    steps = kind.rounded(values / np.expand_dims(scale, others))
    yield numpy_helper.from_array(steps, f"{layer.weight}_{kind.name}")
    yield numpy_helper.from_array(scale, layer.weight + "_scale")
    yield numpy_helper.from_array(np.zeros(len(scale), kind.dtype), layer.weight + "_zero")
