"""Wait for something that another process or thread brings about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LOOK_AGAIN_SECONDS = 0.02


def until(condition: Callable[[], object], within: float = 30.0, what: str = "") -> float:
    """Return the seconds it took until `condition` held.

    Raises:
        AssertionError: It did not within `within` seconds.
    """
    started, never = time.monotonic(), threading.Event()
    while not condition():
        took = time.monotonic() - started
        assert took < within, f"{what or 'what was waited for'} did not happen in {within} s"
        never.wait(_LOOK_AGAIN_SECONDS)
    return time.monotonic() - started
