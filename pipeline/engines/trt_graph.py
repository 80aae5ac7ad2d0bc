"""What of a model file TensorRT is given, and what must not be in it.

An operator whose output's shape depends on what is in the frames stops the GPU until the host has
read that shape; with one of them a call is no CUDA graph, and in TensorRT 10 it is slow besides.
Our files have none, if suppression was exported in its static form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.errors import EngineError, ModelMismatch
from pipeline.model_file.protobuf import LENGTH, Malformed, copied, fields, written, written_number
from pipeline.model_file.reading import ModelFile
from pipeline.model_file.sizes import at_size

DATA_DEPENDENT = frozenset({"NonMaxSuppression", "NonZero", "Loop", "If", "Scan", "Unique"})

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT, _FUNCTION_NODE = 1, 11, 12, 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_KIND, _TENSOR_SHAPE = 1, 2, 1, 1, 2
_SHAPE_DIM, _DIM_VALUE = 1, 1

Span = tuple[int, int]  # where a message begins and ends in the file


def static_graph(model: ModelFile, size_hw: tuple[int, int]) -> bytes:
    """The ONNX model for frames of that size, of whose shapes nothing but the batch is open.

    Raises:
        ModelMismatch: It has such a shape, or no graph for that size.
        EngineError: The file may not be read.
    """
    found = at_size(model, size_hw)
    if isinstance(found, Path):
        try:
            found = found.read_bytes()
        except OSError as error:
            raise EngineError(
                f"cannot read the model file {str(model.path)!r}: {error.strerror or error}"
            ) from error
    try:
        found = with_sides(found, (*size_hw, 3))
        unfit = DATA_DEPENDENT & set(operators(found))
    except Malformed as error:
        raise ModelMismatch(
            f"{str(model.path)!r} is not a complete ONNX file ({error}); copy or export it again"
        ) from None
    if unfit:
        raise ModelMismatch(
            f"{str(model.path)!r} cannot be run by TensorRT: its graph has "
            f"{', '.join(sorted(unfit))}, whose shapes depend on what is in the frames; export "
            "it with `python -m models.export ... --nms fixpoint`, or use --engine openvino"
        )
    return found


def operators(onnx: bytes) -> Iterator[str]:
    """The operator of each node of the graph and of the functions that it calls."""
    file = BytesIO(onnx)
    for number, place in ((_MODEL_GRAPH, _GRAPH_NODE), (_MODEL_FUNCTION, _FUNCTION_NODE)):
        for holder in _spans(file, (0, len(onnx)), number):
            for node in _spans(file, holder, place):
                for name in _spans(file, node, _NODE_OPERATOR):
                    yield _bytes(file, name).decode("utf-8", "replace")


class Node(NamedTuple):
    """One operator of a graph.

    Attributes:
        name: Its own; empty where the graph gives none.
        operator: What it does, such as ``"Conv"``.
        inputs, outputs: Names of the values that it takes and gives; empty for what is left out.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def nodes(onnx: bytes) -> Iterator[Node]:
    """Those of the graph itself, in its order; what its functions do inside is not looked into."""
    file = BytesIO(onnx)

    def texts(message: Span, number: int) -> tuple[str, ...]:
        spans = _spans(file, message, number)
        return tuple(_bytes(file, span).decode("utf-8", "replace") for span in spans)

    for graph in _spans(file, (0, len(onnx)), _MODEL_GRAPH):
        for node in _spans(file, graph, _GRAPH_NODE):
            name, operator = ("".join(texts(node, n)) for n in (_NODE_NAME, _NODE_OPERATOR))
            yield Node(name, operator, texts(node, _NODE_INPUT), texts(node, _NODE_OUTPUT))


def with_outputs(onnx: bytes, kinds: Mapping[str, int | None]) -> bytes:
    """The same model with these values among the outputs of its graph, if they are not yet.

    Args:
        onnx: The model.
        kinds: Type of the values' numbers, as onnx.proto counts types, by their names. TensorRT
            wants it, ONNX Runtime finds it out where it is None.
    """

    def output(name: str, kind: int | None) -> bytes:
        value = written(_VALUE_NAME, name.encode())
        if kind is not None:
            tensor = written(_TYPE_TENSOR, written_number(_TENSOR_KIND, kind))
            value += written(_VALUE_TYPE, tensor)
        return written(_GRAPH_OUTPUT, value)

    def with_more(graph: Span) -> bytes:
        given = {
            _bytes(file, name).decode("utf-8", "replace")
            for value in _spans(file, graph, _GRAPH_OUTPUT)
            for name in _spans(file, value, _VALUE_NAME)
        }
        more = (output(*each) for each in kinds.items() if each[0] not in given)
        return b"".join([_bytes(file, graph), *more])

    file = BytesIO(onnx)
    return _changed(file, (0, len(onnx)), (_MODEL_GRAPH,), with_more)


def with_sides(onnx: bytes, sides: tuple[int, ...]) -> bytes:
    """The same model with these dimensions of its first input behind the batch.

    A file for several sizes leaves them free, because it is asked which it is; the graph of one
    size knows them.
    """
    file, seen = BytesIO(onnx), list[Span]()

    def shape(old: Span) -> bytes:
        batch = _spans(file, old, _SHAPE_DIM)[:1]
        kept = b"".join(written(_SHAPE_DIM, _bytes(file, span)) for span in batch)
        fixed = (written(_SHAPE_DIM, written_number(_DIM_VALUE, side)) for side in sides)
        return kept + b"".join(fixed)

    def first_input(value: Span) -> bytes:
        seen.append(value)
        if len(seen) > 1:
            return _bytes(file, value)
        return _changed(file, value, (_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE), shape)

    return _changed(file, (0, len(onnx)), (_MODEL_GRAPH, _GRAPH_INPUT), first_input)


def _changed(
    file: BinaryIO, message: Span, way: tuple[int, ...], change: Callable[[Span], bytes]
) -> bytes:
    """A copy of a message in which what lies at the end of the way is replaced.

    way: Numbers of fields, each inside of the one before.
    """
    number, *deeper = way
    parts = list[bytes]()
    file.seek(message[0])
    for field in fields(file, message[1]):
        span = file.tell(), file.tell() + field.length
        if field.number != number or field.wire_type != LENGTH:
            parts += copied(file, field)
        elif deeper:
            parts.append(written(number, _changed(file, span, tuple(deeper), change)))
        else:
            parts.append(written(number, change(span)))
    return b"".join(parts)


def _bytes(file: BinaryIO, span: Span) -> bytes:
    file.seek(span[0])
    return file.read(span[1] - span[0])


def _spans(file: BinaryIO, message: Span, number: int) -> list[Span]:
    """Where the messages and texts are that a message holds under that number."""
    file.seek(message[0])
    return [
        (file.tell(), file.tell() + field.length)
        for field in fields(file, message[1])
        if field.number == number and field.wire_type == LENGTH
    ]
