"""What of a model file TensorRT is given, and what must not be in it.

An operator whose output's shape depends on what is in the frames stops the GPU until the host has
read that shape; with one of them a call is no CUDA graph, and in TensorRT 10 it is slow besides.
Our files have none, if suppression was exported in its static form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import EngineError, ModelMismatch
from pipeline.model_file import ModelFile
from pipeline.model_sizes import at_size
from pipeline.protobuf import LENGTH, Malformed, copied, fields, written, written_number

DATA_DEPENDENT = frozenset({"NonMaxSuppression", "NonZero", "Loop", "If", "Scan", "Unique"})

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_INPUT, _FUNCTION_NODE = 1, 11, 7
_NODE_OPERATOR = 4
_VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE = 2, 1, 2, 1, 1

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
