"""Small model files for several sizes: the two convolutions of `tests.pipeline.model_files`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, helper

from models.boxes import SizeHW
from models.model_file.input_sizes import combine
from tests.pipeline.model_files import ENTRY, graph

THREE = ((64, 96), (32, 48), (16, 24))


def plain(size_hw: SizeHW) -> ModelProto:
    """A model for one size."""
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph(*size_hw), opset_imports=opsets, ir_version=8)


def write_plain(path: Path, size_hw: SizeHW) -> Path:
    """A model file for one size."""
    return _write(path, plain(size_hw), {"input_size_hw": size_hw})


def write_sized(path: Path, sizes: Sequence[SizeHW] = THREE) -> Path:
    """A model file for several sizes."""
    whole = combine([(size_hw, plain(size_hw)) for size_hw in sizes])
    onnx.checker.check_model(whole, full_check=True)
    return _write(path, whole, {"input_size_hw": sizes[0], "input_sizes_hw": sizes})


def _write(path: Path, model: ModelProto, entry: dict[str, object]) -> Path:
    helper.set_model_props(model, {"boxstream": json.dumps(ENTRY | entry)})
    onnx.save(model, path)
    return path
