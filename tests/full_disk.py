"""A disk without space, as the system has one for trying."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest


@contextmanager
def full_stdout() -> Iterator[None]:
    """What is written to stdout inside the block meets a full disk; skips without /dev/full."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full, redirect_stdout(full):
        yield
