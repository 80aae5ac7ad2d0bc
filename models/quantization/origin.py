"""Which file a rounded one was made from: written down when it is made, or found out afterwards.

The line runs ``NAME_int8.onnx`` in place of ``NAME.onnx`` only where the one says that it was made
from the other. Of a file that does not say it, graph and weights tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto

from models.model_file.input_sizes import at_size, sizes_of
from models.model_file.onnx_file import content_sha256
from models.model_file.reading import description, read_onnx
from models.quantization.eight_bits import FLOAT8, INT8
from models.quantization.layers import constants, feature_layers, widened
from models.quantization.qdq import Rounding, quantised, ways_back

_A_HAIR_LESS = 1 - 1e-6  # a largest value of 6 must not come back from its scale as more than 6


def origin(original: Path) -> dict[str, str]:
    """What the metadata of a file says of the one that it was made from."""
    return {"file": original.name, "sha256": content_sha256(original)}


def is_made_from(original: Path, rounded: Path) -> bool:
    """Whether `rounded` is what int8 makes of `original`, at each of its sizes.

    The original is rounded again, the scales of activations taken from the file. The graph must be
    the same, and weights to the last digit; biases hold what calibration has found, and may differ.
    A file in float8 has always said it.
    """
    about = description(rounded)
    if about.get("arithmetic") == FLOAT8.name:
        return bool(about.get("made_from", {}).get("sha256") == content_sha256(original))
    before, after = (read_onnx(file) for file in (original, rounded))
    if sizes_of(before) != sizes_of(after):
        return False
    pairs = zip(_each_size(before), _each_size(after), strict=True)
    return all(_is_rounded(plain, found) for plain, found in pairs)


def _is_rounded(plain: ModelProto, found: ModelProto) -> bool:
    stored = constants(found)
    layers = [layer for layer in feature_layers(plain) if layer.weight + "_int8" in stored]
    scales = {data: way[-1] + "_scale" for data, way in ways_back(plain, layers).items()}
    if not layers or not stored.keys() >= set(scales.values()):
        return False
    largest = {data: float(stored[s]) * INT8.largest * _A_HAIR_LESS for data, s in scales.items()}
    again = quantised(plain, layers, Rounding(largest, {}))
    free = {layer.bias for layer in layers} | set(scales.values())
    wanted = {name: value for name, value in constants(again).items() if name not in free}
    return list(again.graph.node) == list(found.graph.node) and all(
        name in stored and np.array_equal(value, stored[name]) for name, value in wanted.items()
    )


def _each_size(proto: ModelProto) -> Iterator[ModelProto]:
    """The graphs for its sizes, in float32."""
    for size in sizes_of(proto):
        yield widened(at_size(proto, size))
    if not sizes_of(proto):
        yield widened(proto)
