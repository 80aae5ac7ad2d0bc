"""What an ONNX file says about itself, and all the rest of it.

Metadata may be written anew, such as when a file's accuracy is measured; what was made from the
file before still belongs to it. So a file is known by the rest of its content.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from pipeline.commands import MODELS
from pipeline.errors import EngineError, ModelMismatch, ModelNotFound
from pipeline.model_file.protobuf import LENGTH, Malformed, fields

_METADATA_FIELD = 14  # ModelProto.metadata_props in onnx.proto


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Inside the block, what goes wrong with reading a model file is told with a remedy.

    Raises:
        ModelNotFound: There is no such file.
        ModelMismatch: It is a folder, no ONNX file, or cut short.
        EngineError: It may not be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise ModelNotFound(
            f"there is no model file {str(path)!r}; {_nearest(path)}give the name of a bundled "
            f"model ({', '.join(MODELS)}) or the path of an ONNX file made by "
            "`python -m models.export`"
        ) from None
    except IsADirectoryError:
        raise ModelMismatch(f"{str(path)!r} is a folder; name the model file inside it") from None
    except OSError as error:
        raise EngineError(
            f"cannot read the model file {str(path)!r}: {error.strerror or error}"
        ) from error
    except Malformed as error:
        raise ModelMismatch(
            f"{str(path)!r} is not a complete ONNX file ({error}); copy or export it again"
        ) from None


def _nearest(path: Path) -> str:
    """``did you mean ...? ``, for a path that may be a mistyped name of a bundled model."""
    near = get_close_matches(path.stem.lower(), MODELS, n=1) if path.name == str(path) else []
    return f"did you mean {near[0]!r}? " if near else ""


def content_sha256(path: Path) -> str:
    """SHA-256 of an ONNX file without its metadata, as 64 hexadecimal digits.

    `models.model_file.onnx_file` has a twin, which writes it into what was made from the file.
    Raises as `explained` does.
    """
    digest, begin = sha256(), 0
    with explained(path), path.open("rb") as file:
        for field in fields(file, path.stat().st_size):
            end = file.tell() + field.length
            if field.number != _METADATA_FIELD:
                file.seek(begin)
                digest.update(file.read(end - begin))
            begin = end
    return digest.hexdigest()


def metadata(file: BinaryIO, size: int, wanted: str, most_bytes: int) -> bytes | None:
    """Value of a metadata entry in an ONNX file; None if it has no such entry.

    Raises:
        Malformed: It is no ONNX file, or is cut short.
    """
    if size == 0:
        raise Malformed("it is empty")
    found = None
    for field in fields(file, size):
        if field.number == _METADATA_FIELD and field.wire_type == LENGTH:
            if field.length > most_bytes:
                continue
            key, value = _key_and_value(file, file.tell() + field.length)
            if key == wanted.encode():
                found = value  # walk on: a file that is cut short must not pass
    return found


def _key_and_value(file: BinaryIO, end: int) -> tuple[bytes, bytes]:
    """A StringStringEntryProto: key is its field 1, value its field 2."""
    parts = {1: b"", 2: b""}
    for field in fields(file, end):
        if field.wire_type == LENGTH:
            parts[field.number] = file.read(field.length)
    return parts[1], parts[2]
