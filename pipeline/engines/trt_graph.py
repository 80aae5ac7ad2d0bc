"""What of a model file TensorRT is given, and what must not be in it.

An operator whose output's shape depends on what is in the frames stops the GPU until the host has
read that shape; with one of them a call is no CUDA graph, and in TensorRT 10 it is slow besides.
Our files have none, if suppression was exported in its static form.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import EngineError, ModelMismatch
from pipeline.model_file import ModelFile
from pipeline.model_sizes import at_size
from pipeline.protobuf import LENGTH, Malformed, fields

DATA_DEPENDENT = frozenset({"NonMaxSuppression", "NonZero", "Loop", "If", "Scan", "Unique"})

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _FUNCTION_NODE = 1, 7
_NODE_OPERATOR = 4


def static_graph(model: ModelFile, size_hw: tuple[int, int]) -> bytes:
    """The ONNX model for frames of that size, with no shape in it that depends on data.

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
                for begin, end in _spans(file, node, _NODE_OPERATOR):
                    file.seek(begin)
                    yield file.read(end - begin).decode("utf-8", "replace")


def _spans(file: BinaryIO, message: tuple[int, int], number: int) -> list[tuple[int, int]]:
    """Where the messages and texts are that a message holds under that number."""
    file.seek(message[0])
    return [
        (file.tell(), file.tell() + field.length)
        for field in fields(file, message[1])
        if field.number == number and field.wire_type == LENGTH
    ]
