"""The float16 graph: layers whose outputs are features, and what lies between them.

TensorRT computes each tensor in the type that the graph gives it, so where float16 is wanted it
has to stand there. Casts stand at the borders; weights and biases inside are stored as float16.
Regions are cut out in float32: ONNX wants features and coordinates of RoiAlign to be of one type,
and float16 knows only every half pixel of a large frame.

A graph may have layers in float8 already. What they are given and give is float16, too, as NVIDIA's
own tool has it by default; around float32 a user found float8 slower than float16 alone
(NVIDIA/Model-Optimizer, issue 559).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from models.quantization.layers import Layer, constants

LARGEST = 65504.0
BETWEEN = frozenset(
    {
        *("Add", "AveragePool", "Clip", "Concat", "HardSigmoid", "HardSwish", "LeakyRelu"),
        *("MaxPool", "Mul", "Pad", "Relu", "Resize", "Sigmoid", "Slice"),
    }
)
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_OTHER_TYPES = {
    "Pad": {1, 3},
    "Resize": {1, 2, 3},
    "Slice": {1, 2, 3, 4},
    "QuantizeLinear": {2},
    "DequantizeLinear": {0, 2},
}
"""Inputs that are sizes, places and numbers of 8 bits, and have types of their own."""


def halved(model: ModelProto, layers: Sequence[Layer]) -> ModelProto:
    """A copy of a float32 model in which these of its layers compute in float16.

    Of layers that are in float8 only what goes in and comes out is changed.

    Raises:
        ValueError: a constant inside is beyond float16.
    """
    graph = _Writer(model, layers)
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.value_info[:]
    copy.graph.node.extend(graph.nodes())
    stored = [*copy.graph.initializer, *graph.constants()]
    used = {name for node in copy.graph.node for name in node.input}
    made = {name for node in copy.graph.node for name in node.output}
    copy.graph.value_info.extend(graph.shapes(made))
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(tensor for tensor in stored if tensor.name in used)
    return copy


class _Writer:
    """Writes the nodes and constants of one graph."""

    def __init__(self, model: ModelProto, layers: Sequence[Layer]) -> None:
        self.model, self.stored = model, constants(model)
        self.inside = set[str]()
        """Tensors that are float16, under their old names."""
        self.cast = set[str]()
        """Tensors of both types that stand in the graph already."""
        self.halves = set[str]()
        """Constants that are needed as float16."""
        chosen = {layer.output for layer in layers}
        self.converted = set[str]()
        for node in model.graph.node:
            if node.output[0] in chosen or node.op_type in _QDQ or self._lies_between(node):
                self.converted.add(node.output[0])
                if node.op_type != "QuantizeLinear":
                    self.inside.update(node.output)

    def nodes(self) -> Iterator[NodeProto]:
        outputs = {value.name for value in self.model.graph.output}
        for node in self.model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            if node.output[0] in self.converted:
                for index, name in enumerate(node.input):
                    if name and index not in _OTHER_TYPES.get(node.op_type, ()):
                        yield from self._casts(name, half=True)
                        copy.input[index] += "_half"
                inside = self.inside
                copy.output[:] = [n + "_half" if n in inside else n for n in node.output]
                yield copy
                for name in outputs & set(node.output):
                    yield from self._casts(name, half=False)
            else:
                if node.op_type == "Shape" and node.input[0] in self.inside:
                    copy.input[0] += "_half"  # whose shape is asked for need not be cast
                else:
                    for name in node.input:
                        yield from self._casts(name, half=False)
                yield copy

    def constants(self) -> Iterator[TensorProto]:
        for name in sorted(self.halves):
            values = self.stored[name]
            if np.isfinite(values).all() and np.abs(values).max(initial=0.0) > LARGEST:
                raise ValueError(f"{name} holds {np.abs(values).max():.3g}, beyond float16")
            yield numpy_helper.from_array(values.astype(np.float16), name + "_half")

    def shapes(self, made: set[str]) -> Iterator[ValueInfoProto]:
        """What was known of the tensors, of each under the names that it has now."""
        for value in self.model.graph.value_info:
            if value.name in made:
                yield value
            if value.name + "_half" in made:
                half = ValueInfoProto()
                half.CopyFrom(value)
                half.name += "_half"
                half.type.tensor_type.elem_type = TensorProto.FLOAT16
                yield half

    def _lies_between(self, node: NodeProto) -> bool:
        if node.op_type not in BETWEEN:
            return False
        others = _OTHER_TYPES.get(node.op_type, set[int]())
        data = [n for i, n in enumerate(node.input) if n and i not in others]
        moving = [name for name in data if name not in self.stored]
        floats = all(self.stored[n].dtype == np.float32 for n in data if n in self.stored)
        return bool(moving) and floats and all(name in self.inside for name in moving)

    def _casts(self, name: str, half: bool) -> Iterator[NodeProto]:
        """What makes a tensor of the other type, where it is not there yet."""
        if name in self.stored:
            if half:
                self.halves.add(name)
            return
        if name not in self.cast and (name in self.inside) != half:
            self.cast.add(name)
            there, back = name, name + "_half"
            given, made, kind = (
                (there, back, TensorProto.FLOAT16) if half else (back, there, TensorProto.FLOAT)
            )
            yield helper.make_node("Cast", [given], [made], name=made + "/cast", to=kind)
