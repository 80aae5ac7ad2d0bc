"""OpenVINO, and the one core of it that a process has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["openvino", "the_core"]


@contextmanager
def left_out(module: str) -> Iterator[None]:
    """Inside the block, importing `module` fails; what was imported before stays."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # bars the import
    try:
        yield
    finally:
        del sys.modules[module]


# The conversion tools, which nothing here uses, tell their maker over the network that they were
# imported, from a thread that stays. A camera's machine must not do that; and it starts sooner.
with left_out("openvino.tools.ovc"):
    import openvino


@cache
def the_core() -> openvino.Core:
    """Made by the first who asks; stays until the process ends.

    OpenVINO gives the thread that makes a core a stack for signals, and takes it away with the
    core: from under that thread if cores go in the order in which they came, or in another
    thread. The next signal that Python handles (Ctrl-C, a child's end) then ends the process
    without a word.
    """
    return openvino.Core()
