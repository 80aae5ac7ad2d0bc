"""For how long an engine has owed an answer: one that hangs looks like one that has no work.

A driver that is stuck or a GPU that has fallen off its bus does not raise an error, it just
never answers. Sources run on meanwhile and drop their frames, so nothing else would tell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.engines.contract import Images, Outputs, Pending, Regions, Submits

log = logging.getLogger(__name__)

SILENT_SECONDS = 10.0  # from which on an engine is said to hang; the slowest call takes a few


class EngineWatch:
    """Hands calls on to an engine, and knows how long they are waited for.

    Only waiting counts. An answer that is there, but that nobody has asked for because the
    stations behind are busy, is no fault of the engine's.

    Args:
        engine: Does the work.
        clock: Monotonic seconds.
    """

    def __init__(self, engine: Submits, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._waiting_since: dict[object, float] = {}
        self._said = False

    def beside(self, engine: Submits) -> EngineWatch:
        """A watch on a second engine whose silence counts as that of the first."""
        other = EngineWatch(engine, self._clock)
        other._waiting_since = self._waiting_since
        return other

    @property
    def silent_seconds(self) -> float:
        """How long somebody has waited for the engine; 0 if nobody does. From any thread."""
        begins = list(self._waiting_since.values())
        return self._clock() - min(begins) if begins else 0.0

    def submit(self, images: Images, regions: Regions | None = None) -> Pending:
        """Start on the images, as the engine does."""
        with self.waiting():  # some engines compute here
            return _Watched(self._engine.submit(images, regions), self)

    def update(self) -> None:
        """Log, once each time, that the engine hangs, and that it is back; call it now and then."""
        silent = self.silent_seconds
        if silent > SILENT_SECONDS and not self._said:
            self._said = True
            log.warning("the engine has not answered for %.0f s", silent)
        elif silent < SILENT_SECONDS and self._said:
            self._said = False
            log.info("the engine answers again")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block somebody waits for the engine."""
        wait = object()
        self._waiting_since[wait] = self._clock()
        try:
            yield
        finally:
            del self._waiting_since[wait]


class _Watched:
    """An answer that is waited for under the eyes of a watch."""

    def __init__(self, pending: Pending, watch: EngineWatch) -> None:
        self._pending, self._watch = pending, watch

    def result(self) -> Outputs:
        """Wait for the answer."""
        with self._watch.waiting():
            return self._pending.result()
