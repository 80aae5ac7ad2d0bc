"""The other kind of model file: an archive of ``torch.export``, with the entry as an extra file.

It is read without torch, as a zip file, so that a wrong one is refused before that is imported.
"""

from __future__ import annotations

from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

SUFFIX = ".pt2"
_BEGINNING = b"PK\x03\x04"


class NoArchive(Exception):
    """These bytes are no complete archive."""


def is_archive(file: BinaryIO) -> bool:
    """Whether it begins as an archive does; the file stands at its begin again."""
    beginning = file.read(len(_BEGINNING))
    file.seek(0)
    return beginning == _BEGINNING


def entry_of_program(file: BinaryIO, key: str, most_bytes: int) -> bytes | None:
    """The extra file of that name; None where the archive has none of a sensible size.

    Raises:
        NoArchive: It is damaged or cut short.
    """
    try:
        with ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.endswith(f"/extra/{key}") and member.file_size <= most_bytes:
                    return archive.read(member)
    except (BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise NoArchive(str(error)) from error
    return None
