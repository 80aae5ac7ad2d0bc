"""Keep the memory of a line that runs for months as small as what it uses."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_EVERY_SECONDS = 10.0


class Garbage:
    """Inside the block `collect` gets rid of what has become garbage since its begin.

    *Objects.* Python counts objects, not bytes: in a line, whose frames need no collector, it
    looks at everything only once in hours, and objects of libraries that refer to one another
    (PyAV's pictures with side data, exceptions) keep megabytes until then. What was there before
    is set aside, so that a collection takes a millisecond and holds up no frame.

    *Memory.* What decoders of many sizes leave behind lies between what is still used; glibc
    keeps it, and would grow by some megabytes an hour with cameras that come and go.
    """

    def __init__(self) -> None:
        self._due = 0.0
        self._trim = _malloc_trim()

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
            self._trim(0)


def _malloc_trim() -> Callable[[int], object]:
    """The call that returns free memory to the system; where there is none, nothing is done."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, TypeError):  # no glibc; no such library (Windows)
        return lambda _: None
    return trim
