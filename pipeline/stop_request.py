"""What ends a run from outside: Ctrl-C, and whoever else ends processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.graph import Graph


class StopRequest:
    """SIGINT and SIGTERM: the first asks the line to run dry, a second one cuts it off.

    Attributes:
        signal: The signal that was received, if any.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def ends(self, graph: Graph) -> Iterator[None]:
        """Inside the block a signal stops `graph`, so that every sink is finished properly."""

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number)
            graph.stop()

        caught = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in caught}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
