"""Check a model file against what TensorRT's ONNX importer takes, without TensorRT.

    python -m models.onnx_lint MODEL ...

The rules are the importer's operator table (onnx-tensorrt, docs/operators.md, TensorRT 10 and 11)
and its limits, and, for files whose suppression is the ``fixpoint`` body, that nothing in the
graph has a shape that depends on data: such a graph runs as one CUDA graph, without a stop.

Exit codes: 0 nothing found, 1 something found, 2 a file that cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, TypeProto, numpy_helper

from models.bad_input import told
from models.model_file.input_sizes import at_size, sizes_of
from models.model_file.reading import entry_in, model_path, read_onnx
from models.quantization.eight_bits import FLOAT8, INT8, suits_float8

OPSETS = range(9, 25)
LARGEST_TOP_K = 3839

IMPORTED = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor
    GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul
    Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomUniform Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScatterElements
    ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu TopK Transpose Trilu Unsqueeze
    Upsample Where Xor
    """.split()  # noqa: SIM905 - a table is read as a table
)
DATA_DEPENDENT = frozenset({"NonMaxSuppression", "NonZero", "Loop", "If", "Scan"})
"""Imported too, but their outputs' shapes or their running time depend on what is in the frames."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class _Graph:
    """A model with what the rules need to look up."""

    model: onnx.ModelProto
    constants: dict[str, np.ndarray]
    types: dict[str, TypeProto.Tensor]
    is_static: bool

    @property
    def nodes(self) -> Sequence[NodeProto]:
        return self.model.graph.node


Rule = Callable[[_Graph], Iterator[str]]


def lint(path: str | Path) -> list[str]:
    """Return one sentence for each thing that TensorRT would refuse or slow down on.

    Of a file for several sizes each graph is judged by itself, as it is run.
    """
    model = read_onnx(Path(path))
    graphs = {f"{h}x{w}: ": at_size(model, (h, w)) for h, w in sizes_of(model)} or {"": model}
    found = ((place, _read(graph)) for place, graph in graphs.items())
    return [place + fault for place, graph in found for rule in RULES for fault in rule(graph)]


def opset_is_known(graph: _Graph) -> Iterator[str]:
    """The importer knows opsets 9 to 24, and no domain but ONNX's own."""
    for entry in graph.model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version not in OPSETS:
            yield f"opset {entry.version}: the importer takes {OPSETS.start} to {OPSETS.stop - 1}"


def operators_are_imported(graph: _Graph) -> Iterator[str]:
    """Every operator stands in the importer's table."""
    for node in graph.nodes:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if node.domain not in ("", "ai.onnx") or node.op_type not in IMPORTED | DATA_DEPENDENT:
            yield f"{_place(node)}: the importer does not know {name}"


def nothing_depends_on_data(graph: _Graph) -> Iterator[str]:
    """A fixpoint graph has no operator whose output's shape depends on data; others only NMS."""
    forbidden = DATA_DEPENDENT if graph.is_static else DATA_DEPENDENT - {"NonMaxSuppression"}
    for node in graph.nodes:
        if node.op_type in forbidden:
            yield f"{_place(node)}: the shape of its output depends on data"


def top_k_is_within_limits(graph: _Graph) -> Iterator[str]:
    """TopK takes fewer than 3840 and returns them sorted."""
    for node in _of_type(graph, "TopK"):
        count = graph.constants.get(node.input[1])
        if count is None:
            yield f"{_place(node)}: k is not a constant"
        elif int(count.reshape(-1)[0]) > LARGEST_TOP_K:
            yield f"{_place(node)}: k is {int(count.reshape(-1)[0])}, at most {LARGEST_TOP_K}"
        if _attribute(node, "sorted", 1) != 1:
            yield f"{_place(node)}: sorted must be 1"


def scatters_overwrite(graph: _Graph) -> Iterator[str]:
    """ScatterND and ScatterElements take no reduction."""
    for node in _of_type(graph, "ScatterND", "ScatterElements"):
        reduction = _attribute(node, "reduction", b"none")
        if reduction != b"none":
            yield f"{_place(node)}: reduction {reduction!r} is not supported"


def resizes_are_plain(graph: _Graph) -> Iterator[str]:
    """Resize knows no antialiasing."""
    for node in _of_type(graph, "Resize"):
        if _attribute(node, "antialias", 0):
            yield f"{_place(node)}: antialias is not supported"


def only_the_batch_is_free(graph: _Graph) -> Iterator[str]:
    """The first dimension of inputs and outputs is free; a tensor inside has one free at most."""
    borders = {value.name for value in (*graph.model.graph.input, *graph.model.graph.output)}
    for name, tensor in graph.types.items():
        if not tensor.HasField("shape"):
            if name in borders:
                yield f"{name}: an input or output without a shape"
            continue
        free = [axis for axis, d in enumerate(tensor.shape.dim) if not d.HasField("dim_value")]
        if len(free) > 1 or (name in borders and free not in ([], [0])):
            yield f"{name}: dimensions {free} are free; only the batch may be"


def bytes_stay_at_the_border(graph: _Graph) -> Iterator[str]:
    """uint8 is for the network's inputs and outputs: a Cast stands right behind or before them.

    From and to float, too: TensorRT has no other conversions of uint8 (its ``DataType.UINT8``).
    """
    inputs = {value.name for value in graph.model.graph.input}
    outputs = {value.name for value in graph.model.graph.output}
    small = {name for name, t in graph.types.items() if t.elem_type == TensorProto.UINT8}
    small |= {name for name, c in graph.constants.items() if c.dtype == np.uint8}
    for node in graph.nodes:  # a Shape reads no bytes
        if node.op_type not in ("Cast", "Shape") and small & {*node.input, *node.output}:
            yield f"{_place(node)}: works on uint8; only a Cast may"
    for node in _of_type(graph, "Cast"):
        before, after = (graph.types.get(name) for name in (node.input[0], node.output[0]))
        if node.output[0] in small and before is not None and before.elem_type not in _FLOATS:
            yield f"{_place(node)}: makes uint8 of {_type_name(before)}; only a float can become it"
        if node.input[0] in small and after is not None and after.elem_type not in _FLOATS:
            yield f"{_place(node)}: makes {_type_name(after)} of uint8; it can only become a float"
    for name in sorted(small - inputs - outputs):
        yield f"{name}: uint8 inside the graph"


def no_doubles(graph: _Graph) -> Iterator[str]:
    """TensorRT has no float64."""
    found = {name for name, t in graph.types.items() if t.elem_type == TensorProto.DOUBLE}
    found |= {name for name, c in graph.constants.items() if c.dtype == np.float64}
    for name in sorted(found):
        yield f"{name}: float64 is not supported"


def rounding_is_symmetric(graph: _Graph) -> Iterator[str]:
    """Of both operators the zero point is int8 or float8 and 0, and the scale a number above 0."""
    for node in _of_type(graph, *_QDQ):
        zero = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.dtype not in (INT8.dtype, FLOAT8.dtype) or zero.any():
            yield f"{_place(node)}: its zero point must be int8 or float8, and 0"
        scale = graph.constants.get(node.input[1])
        if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
            yield f"{_place(node)}: its scale must be constant and above 0"


def float8_stays_between_the_two(graph: _Graph) -> Iterator[str]:
    """Float8 is constant or from QuantizeLinear, for DequantizeLinear only, and of one type."""
    names = TensorProto.DataType
    kinds = {name: tensor.elem_type for name, tensor in graph.types.items()}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.model.graph.initializer}
    eighths = {name: kind for name, kind in kinds.items() if "FLOAT8" in names.Name(kind)}
    for name, kind in sorted(eighths.items()):
        if kind != FLOAT8.onnx_type:
            yield f"{name}: {names.Name(kind).lower()}; of the types of float8 only E4M3FN is known"
    for node in graph.nodes:
        if node.op_type not in _QDQ and eighths.keys() & {*node.input, *node.output}:
            yield f"{_place(node)}: works on float8; only QuantizeLinear and its inverse may"


def float8_layers_have_kernels(graph: _Graph) -> Iterator[str]:
    """A layer in float8 has its weights so, constant, and a shape that there are kernels for."""
    makers = {node.output[0]: node for node in graph.nodes}
    for node in _of_type(graph, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        data, weight = (_dequantised(graph, makers.get(name)) for name in node.input[:2])
        if FLOAT8.onnx_type not in (data, weight):
            continue
        if data != weight:
            yield f"{_place(node)}: only one of what goes in and its weights is in float8"
        elif (values := graph.constants.get(makers[node.input[1]].input[0])) is None:
            yield f"{_place(node)}: its weights are in float8 and not constant"
        elif not suits_float8(node, values.shape):
            yield f"{_place(node)}: TensorRT has no fast float8 kernel for it; leave it in float16"


RULES: tuple[Rule, ...] = (
    opset_is_known,
    operators_are_imported,
    nothing_depends_on_data,
    top_k_is_within_limits,
    scatters_overwrite,
    resizes_are_plain,
    only_the_batch_is_free,
    bytes_stay_at_the_border,
    no_doubles,
    rounding_is_symmetric,
    float8_stays_between_the_two,
    float8_layers_have_kernels,
)


def _read(loaded: onnx.ModelProto) -> _Graph:
    model = onnx.shape_inference.infer_shapes(loaded)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    values = (*graph.input, *graph.value_info, *graph.output)
    return _Graph(
        model=model,
        constants=constants,
        types={value.name: value.type.tensor_type for value in values},
        is_static=_suppression(model) == "fixpoint",
    )


def _suppression(model: onnx.ModelProto) -> str:
    """Which body the model file says it has; without a word the strict rules apply."""
    return str(entry_in(model).get("nms_body", "fixpoint"))


def _dequantised(graph: _Graph, maker: NodeProto | None) -> int | None:
    """The type of 8 bits that a tensor was before; None if it was none."""
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    zero = graph.constants.get(maker.input[2]) if len(maker.input) > 2 else None
    return None if zero is None else onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)


def _of_type(graph: _Graph, *kinds: str) -> Iterator[NodeProto]:
    return (node for node in graph.nodes if node.op_type in kinds)


def _attribute(node: NodeProto, name: str, default: object) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _type_name(tensor: TypeProto.Tensor) -> str:
    return TensorProto.DataType.Name(tensor.elem_type).lower()


def _place(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the faults of each file; 0 if there are none."""
    parser = argparse.ArgumentParser(
        prog="python -m models.onnx_lint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="bundled name or ONNX file")
    faults = 0
    for name in parser.parse_args(argv).models:
        for fault in lint(model_path(name)):
            faults += 1
            print(f"{name}: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    with told():
        sys.exit(main())
