"""Model files found by their names, and ONNX files read: ours, and others'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs
from onnx import ModelProto

from models.data.pictures import DataError

METADATA_KEY = "boxstream"
ZOO = Path(__file__).parents[1] / "zoo"


class ModelFileError(DataError):
    """A file is no ONNX file, or none of ours."""


def model_path(name_or_file: str) -> Path:
    """The file of a bundled model, given by name, or the file itself.

    Raises:
        FileNotFoundError: neither a bundled name nor a file.
    """
    file = Path(name_or_file)
    if not file.suffix:
        file = ZOO / f"{name_or_file}.onnx"
    if not file.is_file():
        bundled = ", ".join(sorted(f.stem for f in ZOO.glob("*.onnx")))
        raise FileNotFoundError(
            f"no model {name_or_file!r}; bundled: {bundled}, or give an ONNX file"
        )
    return file


def read_onnx(file: Path, *, external: bool = True) -> ModelProto:
    """The content of an ONNX file.

    Args:
        external: with the weights that lie in files beside it; ours have none.

    Raises:
        OSError: it cannot be read.
        ModelFileError: it is no ONNX file, or incomplete.
    """
    try:
        proto = onnx.load(file, format="protobuf", load_external_data=external)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelFileError(f"{file} is no ONNX file, or incomplete: {error}") from error
    if not proto.HasField("graph"):
        raise ModelFileError(f"{file} is no ONNX file: it has no graph")
    return proto


def entry_in(proto: ModelProto) -> dict[str, Any]:
    """What a model file of ours says of itself; empty where it is none of ours."""
    entries = {one.key: one.value for one in proto.metadata_props}
    return dict(json.loads(entries.get(METADATA_KEY, "{}")))


def description(file: Path) -> dict[str, Any]:
    """What a model file of ours says of itself.

    Raises:
        OSError: it cannot be read.
        ModelFileError: it is none of ours.
    """
    entry = entry_in(read_onnx(file, external=False))
    if not entry:
        raise ModelFileError(f"{file} is not one of our model files; make one with models.export")
    return entry
