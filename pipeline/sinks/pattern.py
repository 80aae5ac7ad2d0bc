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
from pipeline.sinks.territory import ANYTHING, DIGITS, Names, Piece, Territory, literal, optional

_TO_59 = (("012345", DIGITS),)
_CONVERSIONS = {
    "Y": Piece(((DIGITS,) * 4,)),
    "y": Piece(((DIGITS,) * 2,)),
    "m": Piece((("0", "123456789"), ("1", "012"))),
    "d": Piece((("0", "123456789"), ("12", DIGITS), ("3", "01"))),
    "j": Piece((("0123", DIGITS, DIGITS),)),
    "H": Piece((("01", DIGITS), ("2", "0123"))),
    "M": Piece(_TO_59),
    "S": Piece((*_TO_59, "60")),
    "f": Piece(((DIGITS,) * 6,)),
    "z": Piece((("+-", *(DIGITS,) * 4),)),
    "%": literal("%"),
}
# No name of a source or a class holds this sign, so one source's second file of a name cannot be
# another source's first: a bare number could (``door-2``).
_SECOND = "~"
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
        names = sorted({fit_for_a_name(event) for event in events})
        event = Piece(tuple(names)) if names else ANYTHING
        stem = self._pieces(parts[-1].removesuffix(self.suffix), event)
        second = optional((_SECOND, "123456789"), more=DIGITS)
        self._parts = [
            *(Names(self._pieces(part, event)) for part in parts[fixed:-1]),
            Names([*stem, second, literal(self.suffix)]),
        ]

    @property
    def territory(self) -> Territory:
        """All paths that match."""
        return Territory.of(self.folder, *self._parts)

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
        twice) gets ``~1``, ``~2``...

        Raises:
            SinkError: It cannot be made.
        """
        wanted = self.named(date, event)
        path, count = wanted, 0
        with writing(wanted):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            while not _is_new(path):
                count += 1
                path = wanted.with_name(f"{wanted.stem}{_SECOND}{count}{self.suffix}")
        return path

    def matches(self, path: Path) -> bool:
        """Tell whether a path is one of those that `create` makes."""
        try:
            names = path.relative_to(self.folder).parts
        except ValueError:
            return False
        return len(names) == len(self._parts) and all(
            part.match(name) for part, name in zip(self._parts, names, strict=True)
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

    def _below(self, folder: Path, parts: list[Names]) -> Iterator[Path]:
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return
        for entry in entries:
            if not parts[0].match(entry.name):
                continue
            if len(parts) > 1 and entry.is_dir(follow_symlinks=False):
                yield from self._below(folder / entry.name, parts[1:])
            elif len(parts) == 1 and entry.is_file(follow_symlinks=False):
                yield folder / entry.name

    def _pieces(self, part: str, event: Piece) -> Iterator[Piece]:
        """What the name of one folder or file is made of."""
        for conversion, is_event, text in _PIECE.findall(part):
            if is_event:
                yield event
            elif text:
                yield literal(text)
            elif conversion in _CONVERSIONS:
                yield _CONVERSIONS[conversion]
            else:
                known = " ".join(f"%{letter}" for letter in _CONVERSIONS)
                raise ConfigError(f"out: unknown %{conversion} in {self.text!r}; known are {known}")


def fit_for_a_name(text: str) -> str:
    """`text` without what would make folders of it, hide it, or mark it as another's second."""
    return re.sub(r"[/\\:\0~]+", "_", text).lstrip(".")


def _is_new(path: Path) -> bool:
    """Create an empty file; tell whether that was possible."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True
