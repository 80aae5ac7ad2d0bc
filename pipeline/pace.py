"""When the line takes its next frames, and which it leaves out because they are too old or many.

A recording waits for the line, so there every frame is taken. A camera does not: what the
engine cannot take now is replaced by something fresher where it waits, in the source's lane.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.tally import Tally
from pipeline.channel import Slots
from pipeline.engines import Pending
from pipeline.engines.contract import Answered
from pipeline.frame import Batch, Frame
from pipeline.settings import Settings

Asked = tuple[Batch, Pending]


class RateLimit:
    """Let through so many frames of a source a second, evenly, however they arrive."""

    def __init__(self) -> None:
        self._credit = 1.0
        self._last: float | None = None

    def admits(self, arrival: float, fps: float) -> bool:
        """Whether the frame that arrived then (monotonic seconds) is one of them."""
        if self._last is not None:
            self._credit = min(self._credit + (arrival - self._last) * fps, 2.0)
        self._last = arrival
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True


class Pace:
    """Admits frames to the engine.

    Args:
        tally: Knows the sources, and counts what is refused.
        settings: How long a batch of recorded frames waits for its last one, from which age on
            a live frame is not worth the engine's time, and how long it may take to the sink.
        slots: How many batches may be between a camera and its answer, with one camera; None in
            a line of recordings, where queues do no harm.
    """

    def __init__(self, tally: Tally, settings: Settings, slots: Slots | None = None) -> None:
        self._tally, self._slots = tally, slots
        self._slots_of_one = slots.count if slots else 0
        self._patience = settings.engine.batch_wait_seconds
        self._max_age = settings.latency.max_age_seconds
        budget_ms = settings.latency.budget_ms
        self._budget = self._max_age if budget_ms is None else budget_ms / 1e3
        self._fps: float | None = None
        self._limits: dict[str, RateLimit] = {}

    def limit_fps(self, fps: float | None) -> None:
        """Take at most so many frames/s of each live source; None: all."""
        self._fps = fps

    def share_among(self, sources: int) -> None:
        """Suit the slots to so many sources.

        One camera's frame is taken when the engine is free; with several, one more is at hand.
        """
        if self._slots:
            self._slots.count = self._slots_of_one + (sources > 1)

    def wait_for_slot(self) -> None:
        """Return when the engine can do with another batch; `Cancelled` if it never will."""
        if self._slots:
            self._slots.acquire()

    def patience(self) -> float:
        """How long the batch may wait for the rest since its first frame, in seconds.

        With cameras: until the fastest has its next frame, because waiting longer would lose
        that one, but never more than a quarter of the greatest age or of the latency budget.
        """
        if not self._slots:
            return self._patience
        rates = [
            stats.offered_fps
            for stats in tuple(self._tally.sources.values())
            if stats.live and stats.state == "RUNNING" and stats.offered_fps
        ]
        return min(self._max_age / 4, self._budget / 4, 1 / max(rates)) if rates else 0.0

    def admit(self, group: list[Frame]) -> list[Frame]:
        """The frames worth inferring; the others are counted. Frees the slot if none is."""
        admitted = [frame for frame in group if not self._refuses(frame)]
        if not admitted and self._slots:
            self._slots.release()
        return admitted

    def answered(self, asked: Iterable[Asked]) -> Iterator[Asked]:
        """Pass on what the engine was asked, with cameras once it has answered.

        Then the slot of the batch is free, so that the next one is made ready while this one's
        objects are still being picked.
        """
        return self._slots.freed_by(_arrived(asked)) if self._slots else iter(asked)

    def _refuses(self, frame: Frame) -> bool:
        stats = self._tally.sources[frame.source]
        if not stats.live:
            return False
        if time.monotonic() - frame.arrival > self._max_age:
            self._tally.dropped("stale", frame)
        elif self._is_too_many(frame, stats):
            self._tally.dropped("latency_budget", frame)
        else:
            return False
        return True

    def _is_too_many(self, frame: Frame, stats: SourceStats) -> bool:
        if self._fps is None:
            return False
        limit = self._limits.setdefault(stats.name, RateLimit())
        return not limit.admits(frame.arrival, self._fps)


def _arrived(asked: Iterable[Asked]) -> Iterator[Asked]:
    for batch, pending in asked:
        yield batch, Answered(pending.result())
