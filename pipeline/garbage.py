"""Collect cyclic garbage while a line runs: rarely many objects, but heavy ones."""

from __future__ import annotations

import gc
import time
from types import TracebackType
from typing import Self

_EVERY_SECONDS = 10.0


class Garbage:
    """Inside the block `collect` gets rid of what has become garbage since its begin.

    Python counts objects, not bytes: in a line, whose frames need no collector, it looks at
    everything only once in hours, and objects of libraries that refer to one another (PyAV's
    pictures with side data, exceptions) keep megabytes until then. What was there before is set
    aside, so that a collection takes a millisecond and holds up no frame.
    """

    def __init__(self) -> None:
        self._due = 0.0

    def __enter__(self) -> Self:
        gc.freeze()
        self._due = time.monotonic() + _EVERY_SECONDS
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        gc.unfreeze()

    def collect(self) -> None:
        """Collect if the last time was long ago."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _EVERY_SECONDS
            gc.collect()
