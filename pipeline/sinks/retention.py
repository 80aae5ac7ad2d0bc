"""Delete old recordings, and nothing else."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
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
        self._seen: dict[Path, _Recording] = {}
        self._refused: set[Path] = set()

    def tidy(self, writing: Path | None = None) -> None:
        """Delete what is too old or too much; never the file that is being written."""
        if self._keep_seconds is None and self._keep_bytes is None:
            return
        try:
            found = [self._look(path) for path in self._pattern.files()]
        except OSError as error:  # a disk may be away for a moment
            log.warning("cannot look for old recordings: %s", error.strerror)
            return
        oldest_first = sorted(filter(None, found), key=lambda each: each.ended)
        self._seen = {each.path: each for each in oldest_first}
        surplus = sum(each.size for each in oldest_first) - (self._keep_bytes or 0)
        for each in oldest_first:
            is_too_old = self._keep_seconds is not None and self._age(each) > self._keep_seconds
            is_too_much = self._keep_bytes is not None and surplus > 0
            if each.path != writing and (is_too_old or is_too_much) and self._delete(each):
                surplus -= each.size

    def _look(self, path: Path) -> _Recording | None:
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

    def _delete(self, recording: _Recording) -> bool:
        try:
            self._pattern.remove(recording.path)
        except FileNotFoundError:
            return True
        except OSError as error:
            if recording.path not in self._refused:
                log.warning("cannot delete %s: %s", recording.path, error.strerror)
            self._refused.add(recording.path)
            return False
        self._seen.pop(recording.path, None)
        self.deleted += 1
        return True


def _ended(facts: os.stat_result) -> float:
    """When a file was last written to, on the monotonic clock."""
    return time.monotonic() - max(0.0, time.time() - facts.st_mtime)
