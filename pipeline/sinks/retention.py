"""Delete old recordings, and nothing else."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from pathlib import Path

from pipeline.sinks.pattern import FilePattern

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recording:
    """A finished file. `ended` counts on the monotonic clock and may lie before its beginning."""

    path: Path
    size: int
    modified_ns: int
    ended: float


class Retention:
    """Keep the files of a pattern for some time, or up to some size; delete the oldest ones.

    How old a file is gets read from the calendar once, when the file is first seen, and is
    counted on from there by the monotonic clock: a calendar that jumps (a small computer without
    a clock of its own learns the date) makes nothing older. A file from the future is new.

    A look at a disk with many files takes seconds, in which a camera's pictures would be lost.
    So whoever writes files tells of them (`add`, `delete`); looks are for what others do to
    them, and can be cut into pieces (`tidy`).

    Args:
        pattern: Only files that match it are ever deleted.
        keep_seconds: For how long after its last change a file is kept; None: for ever.
        keep_bytes: How much is kept in all; None: no limit.
    """

    def __init__(
        self, pattern: FilePattern, keep_seconds: float | None, keep_bytes: int | None
    ) -> None:
        self.deleted = 0
        self._pattern = pattern
        self._keep_seconds, self._keep_bytes = keep_seconds, keep_bytes
        self._keeps_all = keep_seconds is None and keep_bytes is None
        self._seen: dict[Path, _Recording] = {}  # oldest first
        self._bytes = 0  # of all of them
        self._look: Iterator[Path] | None = None  # one that has not come to its end
        self._found: dict[Path, _Recording] = {}  # by that look, so far
        self._refused: set[Path] = set()

    def tidy(self, writing: Path | None = None, within: float = inf) -> None:
        """Look at the disk; delete what is too old or too much, but never the file being written.

        Args:
            writing: That file.
            within: Seconds for the look. The next call goes on with it; until it has come to its
                end, what counts is what was seen before.
        """
        if self._keeps_all:
            return
        try:
            self._look_on(within)
        except OSError as error:  # a disk may be away for a moment
            self._look = None
            log.warning("cannot look for old recordings: %s", error.strerror)
            return
        self.delete(writing)

    def add(self, finished: Path) -> None:
        """Count a file that was written to until now."""
        if self._keeps_all:
            return
        with suppress(OSError):  # `tidy` tells of a disk that is away
            facts = finished.lstat()
            self._forget(finished)
            new = _Recording(finished, facts.st_size, facts.st_mtime_ns, time.monotonic())
            self._seen[finished] = self._found[finished] = new
            self._bytes += new.size

    def delete(self, writing: Path | None = None) -> None:
        """Delete what is too old or too much of what is known, without a look at the disk."""
        for each in list(self._seen.values()):
            is_too_old = self._keep_seconds is not None and self._age(each) > self._keep_seconds
            is_too_much = self._keep_bytes is not None and self._bytes > self._keep_bytes
            if not is_too_old and not is_too_much:  # nor are those after it
                return
            if each.path != writing:
                self._delete(each)

    def _look_on(self, within: float) -> None:
        deadline = time.monotonic() + within
        if self._look is None:
            self._look, self._found = self._pattern.files(), {}
        for path in self._look:
            recording = self._read(path)
            if recording is not None:
                self._found[path] = recording
            if time.monotonic() >= deadline:
                return
        oldest_first = sorted(self._found.values(), key=attrgetter("ended"))
        self._seen = {each.path: each for each in oldest_first}
        self._bytes = sum(each.size for each in oldest_first)
        self._look, self._found = None, {}

    def _read(self, path: Path) -> _Recording | None:
        try:
            facts = path.lstat()
        except FileNotFoundError:
            return None
        known = self._seen.get(path)
        if known and (known.modified_ns, known.size) == (facts.st_mtime_ns, facts.st_size):
            return known
        return _Recording(path, facts.st_size, facts.st_mtime_ns, _ended(facts))

    def _age(self, recording: _Recording) -> float:
        return time.monotonic() - recording.ended

    def _delete(self, recording: _Recording) -> None:
        try:
            self._pattern.remove(recording.path)
            self.deleted += 1
        except FileNotFoundError:
            pass  # others have deleted it
        except OSError as error:
            if recording.path not in self._refused:
                log.warning("cannot delete %s: %s", recording.path, error.strerror)
            self._refused.add(recording.path)
            return
        self._forget(recording.path)

    def _forget(self, path: Path) -> None:
        self._found.pop(path, None)
        known = self._seen.pop(path, None)
        if known is not None:
            self._bytes -= known.size


def _ended(facts: os.stat_result) -> float:
    """When a file was last written to, on the monotonic clock."""
    return time.monotonic() - max(0.0, time.time() - facts.st_mtime)
