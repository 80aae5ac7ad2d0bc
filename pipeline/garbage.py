"""Keep the memory of a line that runs for months as small as what it uses."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from typing import Self

_EVERY_SECONDS = 10.0
_LARGE_BYTES = 256 << 10  # a block; pictures are, and what is made for one call is not
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's mallopt


def keep_memory_together() -> None:
    """Have glibc waste none, before a line starts that is to run for months; it stays so.

    It gives every thread a heap of its own, and puts large blocks into these as soon as it has
    seen some, because both is a little faster. But what decoders of many sizes leave there lies
    between what is still used, and with cameras that come and go the process would grow by tens
    of megabytes an hour. Now there is one heap, and every picture is mapped by itself.
    """
    mallopt = _of_glibc("mallopt")
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class Garbage:
    """Inside the block `collect` gets rid of what has become garbage since its begin.

    *Objects.* Python counts objects, not bytes: in a line, whose frames need no collector, it
    looks at everything only once in hours, and objects of libraries that refer to one another
    (PyAV's pictures with side data, exceptions) keep megabytes until then. What was there before
    is set aside, so that a collection takes a millisecond and holds up no frame.

    *Memory.* What glibc holds free is given back to the system.
    """

    def __init__(self) -> None:
        self._due = 0.0
        self._trim = _of_glibc("malloc_trim")

    def __enter__(self) -> Self:
        gc.freeze()
        self._due = time.monotonic() + _EVERY_SECONDS
        return self

    def __exit__(self, *ended: object) -> None:
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
