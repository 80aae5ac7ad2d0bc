"""``python -m tests.live.kit.slow_line MS ARGUMENTS...``: run_stream.py on a slow engine.

MS may also be a file that holds the milliseconds; it is read at each call. With $FEWEST_FRAMES the
governor judges by fewer frames than usual, which slow calls are long in giving.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import run_stream
from pipeline import governor
from pipeline.engines import Pending, load_engine


class SlowEngine:
    """An engine whose calls take a given time at least, one after the other.

    Images of a smaller size than the usual take less, by as much as they have fewer pixels.

    Args:
        engine: Does the work.
        seconds: For each call; or what tells them when a call begins.
    """

    def __init__(self, engine: Any, seconds: float | Callable[[], float]) -> None:
        self._engine = engine
        self._seconds = seconds if callable(seconds) else lambda: seconds
        self._free_at = 0.0
        self.in_flight = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> SlowEngine:
        self._engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.__exit__(*error)

    def submit(self, images: Any, regions: Any = None) -> SlowAnswer:
        """Start; the answer is held back until its time has come."""
        share = prod(images.shape[1:3]) / prod(self._engine.sizes_hw[0])
        self._free_at = max(self._free_at, time.monotonic()) + self._seconds() * share
        return SlowAnswer(self._engine.submit(images, regions), self._free_at)

    def infer(self, images: Any) -> Any:
        """Start, and wait."""
        return self.submit(images).result()


class SlowAnswer:
    """Comes no sooner than `due`, in monotonic seconds."""

    def __init__(self, pending: Pending, due: float) -> None:
        self._pending, self._due = pending, due

    def result(self) -> Any:
        """Wait for it."""
        answer = self._pending.result()
        threading.Event().wait(max(0.0, self._due - time.monotonic()))
        return answer


def main() -> int:
    """Run the line."""
    asked = Path(sys.argv[1])

    def seconds() -> float:
        return float(asked.read_text() if asked.is_file() else asked.name) / 1e3

    def load_slow(*arguments: Any, **options: Any) -> Any:
        return SlowEngine(load_engine(*arguments, **options), seconds)

    governor.FEWEST_FRAMES = int(os.environ.get("FEWEST_FRAMES", governor.FEWEST_FRAMES))
    run_stream.load_engine = load_slow
    return run_stream.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
