"""A folder for what engines have compiled, so that the next start need not compile it again.

An entry is whatever bytes an engine can go on from, under a key that covers all that they depend
on. Two processes may use the folder at once: entries appear whole or not at all. No trouble with
it ever ends a run; a folder that cannot be used is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from zlib import crc32

MOST_BYTES = 1 << 30  # some forty small models, or six large ones

_ENTRY, _UNFINISHED = ".compiled", ".part"
_FORGOTTEN_SECONDS = 3600.0  # from which on what is unfinished was left by a process that died
_HEAD = struct.Struct(">8sIQ")  # a mark, a checksum and the length of what follows
_MARK = b"boxcache"


class CacheFolder:
    """Keeps bytes by key. What was not used for longest goes when there is no room for more.

    Args:
        path: The folder; it is made when something is to be kept.
        most_bytes: What all entries together may take.

    Attributes:
        trouble: Why it could not be used, the last time that it could not.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.trouble: str | None = None
        self._most_bytes = most_bytes

    def read(self, key: str) -> bytes | None:
        """What was kept under that key; None if nothing was, or if it is damaged."""
        path = self._entry(key)
        try:
            with path.open("rb") as file:
                head, content = file.read(_HEAD.size), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(error)
            return None
        with suppress(OSError):  # a folder that can only be read serves as well
            os.utime(path)
        return content if head == _head(content) else None

    def write(self, key: str, content: bytes) -> None:
        """Keep it; where that fails, `trouble` says why."""
        if len(content) > self._most_bytes:
            self.trouble = f"{len(content):,} bytes are more than {self.path} may hold"
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._entry(key), content)
            self._make_room()
        except OSError as error:
            self._complain(error)

    def has_any(self, kind: str) -> bool:
        """Whether anything is kept under a key of `key_of` that begins with `kind`."""
        with suppress(OSError):  # a folder that cannot be read has nothing for us
            return any(self.path.glob(f"{kind}-*{_ENTRY}"))
        return False

    def _entry(self, key: str) -> Path:
        return self.path / f"{key}{_ENTRY}"

    def _write(self, path: Path, content: bytes) -> None:
        """Under another name first: a name of its own even where containers share the folder."""
        number, unfinished = mkstemp(suffix=_UNFINISHED, dir=self.path)
        try:
            with open(number, "wb") as file:
                file.write(_head(content))
                file.write(content)
            os.replace(unfinished, path)
        except BaseException:  # not even Ctrl-C leaves half a file
            os.unlink(unfinished)
            raise

    def _make_room(self) -> None:
        """Delete what goes beyond the bound, and what nobody will finish."""
        room = self._most_bytes
        for used, size, path in sorted(self._files(), reverse=True):
            if path.suffix == _ENTRY:
                room -= size
            if room < 0 or (path.suffix == _UNFINISHED and time.time() - used > _FORGOTTEN_SECONDS):
                with suppress(OSError):  # another process is at it, too, or it is another user's
                    path.unlink()

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each of our files was used, its bytes, its path; other files are not touched."""
        found = []
        for path in self.path.iterdir():
            if path.suffix in (_ENTRY, _UNFINISHED):
                with suppress(OSError):  # another process has deleted it meanwhile
                    facts = path.stat()
                    found.append((facts.st_mtime, facts.st_size, path))
        return found

    def _complain(self, error: OSError) -> None:
        self.trouble = f"{self.path} cannot be used ({error.strerror or error})"


def cache_folder(
    asked: str | None, environment: Mapping[str, str] = os.environ
) -> CacheFolder | None:
    """The folder that the setting `engine.cache` stands for; None where nothing is to be kept.

    Args:
        asked: A path; ``"auto"`` for the user's own cache folder.
        environment: Says where that is.
    """
    if asked is None:
        return None
    try:
        if asked != "auto":
            return CacheFolder(Path(asked).expanduser())
        given = Path(environment.get("XDG_CACHE_HOME", ""))
        # The XDG base directory specification: a relative path is to be ignored.
        root = given if given.is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:  # a user without a home
        return None
    return CacheFolder(root / "boxstream")


def key_of(kind: str, model: bytes, facts: Mapping[str, object]) -> str:
    """The name of an entry: another one as soon as a byte of the model or a fact is another.

    Args:
        kind: Begins the name, such as an engine's, for those who look into the folder.
        model: What is compiled.
        facts: All else that the outcome depends on: versions, device, options, shapes.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(model)
    return f"{kind}-{digest.hexdigest()}"


def _head(content: bytes) -> bytes:
    return _HEAD.pack(_MARK, crc32(content), len(content))
