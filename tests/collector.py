"""Python's collector of garbage, kept out of what a test looks at."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Inside the block only what nothing refers to any more goes; what was garbage has gone."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
