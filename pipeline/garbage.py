"""Keep the memory of a line that runs for months as small as what it uses."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_EVERY_SECONDS = 10.0
_LARGE_BYTES = 256 << 10  # a block; pictures are, and what is made for one call is not
_M_MMAP_THRESHOLD = -3  # of glibc's mallopt


class Garbage:
    """Inside the block `collect` gets rid of what has become garbage since its begin.

    *Objects.* Python counts objects, not bytes: in a line, whose frames need no collector, it
    looks at everything only once in hours, and objects of libraries that refer to one another
    (PyAV's pictures with side data, exceptions) keep megabytes until then. What was there before
    is set aside, so that a collection takes a millisecond and holds up no frame.

    *Memory.* What decoders of many sizes leave behind lies between what is still used; glibc
    keeps it, and would grow by tens of megabytes an hour with cameras that come and go. So it is
    asked for what is free now and then, and, for cameras, to map each picture by itself, which
    it does at first but gives up for the sake of speed.

    Args:
        cameras: Whether the line is to run for months.
    """

    def __init__(self, *, cameras: bool) -> None:
        self._due = 0.0
        self._trim = _of_glibc("malloc_trim")
        if cameras:
            _of_glibc("mallopt")(_M_MMAP_THRESHOLD, _LARGE_BYTES)

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


def _of_glibc(name: str) -> Callable[..., object]:
    """A function of the C library; one that does nothing where it has none of that name."""
    try:
        function: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, TypeError):  # another C library; Windows
        return lambda *_: None
    return function
