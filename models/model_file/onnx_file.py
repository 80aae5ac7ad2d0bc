"""From a network to an ONNX file with one metadata entry."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from models.boxes import SizeHW
from models.model_file.channels_last import flatten_channels_last
from models.model_file.inference_form import for_inference
from models.model_file.operators import TRANSLATIONS
from models.model_file.own_biases import give_own_biases
from models.model_file.reading import METADATA_KEY

OPSET = 18
_VARINT, _LENGTH = 0, 2  # how protobuf writes a field of a model
LARGEST_BATCH = 1024  # only to give the free dimension some bound


def to_onnx(
    network: Any,
    frame_hw: SizeHW,
    outputs: Sequence[str],
    regions: int = 0,
    half_weights: bool = False,
) -> onnx.ModelProto:
    """The graph of a prepared :class:`models.network.Network` with a free batch.

    regions: a second input ``regions`` (N, regions, 4) float32, if there are any.
    half_weights: see :func:`halve_weights`.
    """
    lean = for_inference(network)
    given = example_inputs(lean, frame_hw, regions)
    batch = torch.export.Dim("N", min=1, max=LARGEST_BATCH)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own insides
        program = torch.onnx.export(
            lean,
            tuple(given),
            dynamo=True,
            opset_version=OPSET,
            input_names=["frames", "regions"][: len(given)],
            output_names=list(outputs),
            dynamic_shapes=free_batch(lean, len(given), batch),
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for entry in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input):
        entry.ClearField("metadata_props")  # stack traces with the paths of this machine
        entry.ClearField("doc_string")
    if half_weights:
        halve_weights(proto)
    flatten_channels_last(proto)
    give_own_biases(proto)
    return proto


def write(proto: onnx.ModelProto, about: Mapping[str, Any], path: Path) -> None:
    """The file with its entry, which appears whole or not at all; its folder is made if need be."""
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about)})
    onnx.checker.check_model(proto)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    onnx.save(proto, unfinished)
    os.replace(unfinished, path)


def content_sha256(path: Path) -> str:
    """SHA-256 of the file without its metadata, which may be written anew; 64 hexadecimal digits.

    By it the line knows what was made from the file; its own way there is
    `pipeline.model_file.content`.

    Raises:
        ValueError: the file is cut short.
    """
    content, digest, begin = path.read_bytes(), sha256(), 0
    while begin < len(content):
        key, end = _varint(content, begin)
        if key & 7 == _LENGTH:
            length, end = _varint(content, end)
            end += length
        elif key & 7 == _VARINT:
            end = _varint(content, end)[1]
        else:
            raise ValueError(f"{path} is no ONNX file")
        if end > len(content):
            raise ValueError(f"{path} is cut short")
        if key >> 3 != onnx.ModelProto.METADATA_PROPS_FIELD_NUMBER:
            digest.update(content[begin:end])
        begin = end
    return digest.hexdigest()


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's, and where it ends."""
    value = shift = 0
    while at < len(content):
        value |= (content[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if content[at - 1] < 0x80:
            return value, at
    raise ValueError("it is cut short")


def halve_weights(proto: onnx.ModelProto) -> None:
    """Store the weights of Conv, Gemm and MatMul as float16, followed by a Cast to float32.

    Anything else that is constant (anchors, means, tables) keeps its precision.
    """
    weighted = {"Conv", "Gemm", "MatMul"}
    names = {node.input[1] for node in proto.graph.node if node.op_type in weighted}
    casts = []
    for weight in proto.graph.initializer:
        if weight.name in names and weight.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(weight)
            half = weight.name + "_half"
            casts.append(
                onnx.helper.make_node("Cast", [half], [weight.name], to=onnx.TensorProto.FLOAT)
            )
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), half))
    nodes = [*casts, *proto.graph.node]
    proto.graph.ClearField("node")
    proto.graph.node.extend(nodes)


def example_inputs(network: Any, frame_hw: SizeHW, regions: int = 0) -> list[torch.Tensor]:
    """What a graph is traced with, on the network's device.

    Two frames (2, H, W, 3) uint8, of two so that the batch stays free, and, if there are any,
    (2, regions, 4) float32.
    """
    device = network.normalise.mean.device
    given = [torch.zeros(2, *frame_hw, 3, dtype=torch.uint8, device=device)]
    return given + ([torch.zeros(2, regions, 4, device=device)] if regions else [])


def free_batch(network: Any, inputs: int, batch: Any) -> Any:
    """Which dimensions are free, in the form of forward's arguments: ``*regions`` are a tuple."""
    free = tuple({0: batch} for _ in range(inputs))
    arguments = inspect.signature(network.forward).parameters.values()
    fixed = sum(argument.kind is not argument.VAR_POSITIONAL for argument in arguments)
    return free if fixed == len(arguments) else (*free[:fixed], free[fixed:])
