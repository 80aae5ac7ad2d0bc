"""Names of files that tell when they began, and recognising such files afterwards."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.sinks.protocol import writing

_CONVERSIONS = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"(?:0[1-9]|1[0-2])",
    "d": r"(?:0[1-9]|[12]\d|3[01])",
    "j": r"[0-3]\d{2}",
    "H": r"(?:[01]\d|2[0-3])",
    "M": r"[0-5]\d",
    "S": r"(?:[0-5]\d|60)",
    "f": r"\d{6}",
    "z": r"[+-]\d{4}",
    "%": "%",
}
_PIECE = re.compile(r"%(.?)|(\{event\})|([^%{]+|\{)", re.DOTALL)


def is_pattern(out: str) -> bool:
    """Tell whether a path stands for many files, such as ``rec/%Y%m%d-%H%M%S.mp4``."""
    return bool(re.search(r"%[A-Za-z]", out)) or "{event}" in out


class FilePattern:
    """A path in which ``%Y %m %d %H %M %S`` (and ``%y %j %f %z %%``) stand for local time.

    ``{event}`` stands for the class of object that a recording was begun for.

    Args:
        text: The pattern; the source's name is filled in already.
        events: The names that may stand for ``{event}``.

    Raises:
        ConfigError: A conversion is not known, or the names would not tell files apart.
    """

    def __init__(self, text: str, events: Iterable[str] = ()) -> None:
        self.text = text
        self.suffix = Path(text).suffix
        self.is_on_event = "{event}" in text
        parts = Path(text).parts
        fixed = next((i for i, part in enumerate(parts) if re.search(r"%|{event}", part)), -1)
        self.folder = Path(*parts[:fixed])
        """The folder that everything is below of."""
        names = "|".join(sorted({re.escape(fit_for_a_name(event)) for event in events})) or "[^/]+"
        self._parts = [self._expression(part, names) for part in parts[fixed:]]
        stem = self._expression(parts[-1].removesuffix(self.suffix), names)
        self._parts[-1] = rf"{stem}(?:-[1-9]\d*)?{re.escape(self.suffix)}"

    def prepare(self) -> None:
        """Make the folder; `SinkError` when nothing can be written there."""
        with writing(self.folder):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def named(self, date: float, event: str = "") -> Path:
        """The file that tells `date` (seconds since 1970), if no other has its name."""
        moment = datetime.fromtimestamp(date).astimezone()

        def filled(piece: re.Match[str]) -> str:
            conversion, is_event, literal = piece.groups()
            if is_event:
                return fit_for_a_name(event)
            return str(literal) if conversion is None else moment.strftime(f"%{conversion}")

        return Path(_PIECE.sub(filled, self.text))

    def create(self, date: float, event: str = "") -> Path:
        """Make a new, empty file whose name tells `date` (seconds since 1970).

        Nothing is ever written over: a name that is taken (a clock was set back, an hour came
        twice) gets ``-1``, ``-2``...

        Raises:
            SinkError: It cannot be made.
        """
        wanted = self.named(date, event)
        path, count = wanted, 0
        with writing(wanted):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            while not _is_new(path):
                count += 1
                path = wanted.with_name(f"{wanted.stem}-{count}{self.suffix}")
        return path

    def matches(self, path: Path) -> bool:
        """Tell whether a path is one of those that `create` makes."""
        try:
            names = path.relative_to(self.folder).parts
        except ValueError:
            return False
        return len(names) == len(self._parts) and all(
            re.fullmatch(part, name) for part, name in zip(self._parts, names, strict=True)
        )

    def files(self) -> Iterator[Path]:
        """The files on the disk that match, in no particular order; no links."""
        yield from self._below(self.folder, self._parts)

    def remove(self, path: Path) -> None:
        """Delete a file that matches, and the folders of its time that it leaves empty."""
        if not self.matches(path):
            raise ValueError(f"{path} is none of {self.text}")
        path.unlink()
        for folder in list(path.parents)[: len(self._parts) - 1]:
            try:
                folder.rmdir()
            except OSError:  # not empty, or being filled just now
                return

    def _below(self, folder: Path, parts: list[str]) -> Iterator[Path]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if not re.fullmatch(parts[0], entry.name):
                continue
            if len(parts) > 1 and entry.is_dir(follow_symlinks=False):
                yield from self._below(folder / entry.name, parts[1:])
            elif len(parts) == 1 and entry.is_file(follow_symlinks=False):
                yield folder / entry.name

    def _expression(self, part: str, events: str) -> str:
        """The regular expression of one folder or file."""
        expression = ""
        for conversion, is_event, literal in _PIECE.findall(part):
            if is_event:
                expression += f"(?:{events})"
            elif literal:
                expression += re.escape(literal)
            elif conversion in _CONVERSIONS:
                expression += _CONVERSIONS[conversion]
            else:
                known = " ".join(f"%{letter}" for letter in _CONVERSIONS)
                raise ConfigError(f"out: unknown %{conversion} in {self.text!r}; known are {known}")
        return expression


def fit_for_a_name(text: str) -> str:
    """`text` without what would make folders of it or hide it."""
    return re.sub(r"[/\\:\0]+", "_", text).lstrip(".")


def _is_new(path: Path) -> bool:
    """Create an empty file; tell whether that was possible."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True
