"""One size out of a model file that can be run at several.

Such a file asks the size of the frames (ONNX's ``If``) and has a graph of fixed shapes for each,
named by the size (``"320x576"``), its values likewise (``"320x576/boxes"``); the weights, stored
once, stand outside. Any ONNX engine runs that, but an engine that is given one of the graphs
alone optimises it further, and keeps nothing of the others in memory. As protobuf messages are
lists of fields, taking it out is copying.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import ModelMismatch
from pipeline.model_file.protobuf import LENGTH, Field, Malformed, begin_of, copied, fields, written
from pipeline.model_file.reading import ModelFile

# Numbers of fields in onnx.proto.
_MODEL_GRAPH = 7
_NODE, _GRAPH_NAME, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 2, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_GRAPH = 6
_VALUE_NAME = 1

Span = tuple[int, int]  # where a message begins and ends in the file


def at_size(model: ModelFile, size_hw: tuple[int, int]) -> Path | bytes:
    """An ONNX model for frames of that size only: the file itself where it has no other.

    Raises:
        ModelMismatch: The file has no graph for that size.
    """
    if not model.smaller_hw:
        return model.path
    name = "{}x{}".format(*size_hw)
    try:
        with model.path.open("rb") as file:
            return _cut(file, model.path.stat().st_size, name)
    except (Malformed, LookupError) as error:
        raise ModelMismatch(
            f"{str(model.path)!r} promises a graph for {name}, which cannot be found ({error}); "
            "export it again"
        ) from error


def _cut(file: BinaryIO, size: int, name: str) -> bytes:
    """The file with its graph replaced by the one of that name and what stands outside of it."""
    rest, whole = list[bytes](), None
    for field in fields(file, size):
        if field.number == _MODEL_GRAPH:
            whole = _span(file, field)
        else:
            rest += copied(file, field)
    if whole is None:
        raise LookupError("no graph at all")
    branch = _graph_named(name, file, whole)
    if branch is None:
        raise LookupError("no such name")
    outputs = [_text(file, span, _VALUE_NAME) for span in _spans(file, whole, _OUTPUT)]
    graph = [
        *_copies(file, branch, (_NODE, _GRAPH_NAME, _INITIALIZER, _VALUE_INFO)),
        *(written(_NODE, _renaming(name.encode() + b"/" + output, output)) for output in outputs),
        *_copies(file, whole, (_INITIALIZER, _INPUT, _OUTPUT)),
    ]
    length = sum(map(len, graph))
    return b"".join([*rest, begin_of(_MODEL_GRAPH, length), *graph])


def _graph_named(name: str, file: BinaryIO, graph: Span) -> Span | None:
    """The graph itself, or the first of that name among those that its operators choose from.

    Names are compared before anything is searched: a graph that does not choose is long.
    """
    level = [graph]
    while level:
        for candidate in level:
            if _text(file, candidate, _GRAPH_NAME) == name.encode():
                return candidate
        level = [choice for candidate in level for choice in _choices(file, candidate)]
    return None


def _choices(file: BinaryIO, graph: Span) -> Iterator[Span]:
    """The graphs between which its operators choose."""
    for node in _spans(file, graph, _NODE):
        if _text(file, node, _NODE_OPERATOR) == b"If":
            for attribute in _spans(file, node, _NODE_ATTRIBUTE):
                yield from _spans(file, attribute, _ATTRIBUTE_GRAPH)


def _renaming(before: bytes, after: bytes) -> bytes:
    """An Identity node."""
    return (
        written(_NODE_INPUT, before)
        + written(_NODE_OUTPUT, after)
        + written(_NODE_OPERATOR, b"Identity")
    )


def _copies(file: BinaryIO, message: Span, numbers: tuple[int, ...]) -> Iterator[bytes]:
    file.seek(message[0])
    for field in fields(file, message[1]):
        if field.number in numbers:
            yield from copied(file, field)


def _spans(file: BinaryIO, message: Span, number: int) -> list[Span]:
    """Where the messages are that it holds under that number."""
    file.seek(message[0])
    return [
        _span(file, field)
        for field in fields(file, message[1])
        if field.number == number and field.wire_type == LENGTH
    ]


def _text(file: BinaryIO, message: Span, number: int) -> bytes:
    """The last text that it holds under that number; empty without one."""
    text = b""
    for begin, end in _spans(file, message, number):
        file.seek(begin)
        text = file.read(end - begin)
    return text


def _span(file: BinaryIO, field: Field) -> Span:
    return file.tell(), file.tell() + field.length
