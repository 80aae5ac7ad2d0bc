"""A bounded queue between threads that can end, be cancelled, and be fair to many producers.

``queue.Queue`` knows only "put" and "get". A stream also has to say *there is no more* and
*nobody is listening any more*; `Channel` says both, so no stage needs a sentinel, a stop flag
or a sleep.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
WhenFull = Literal["wait", "drop_oldest"]

_idle = threading.local()


def idle_seconds() -> float:
    """How long the calling thread has spent waiting for others since it started."""
    return getattr(_idle, "seconds", 0.0)


@contextmanager
def idle() -> Iterator[None]:
    """Count the time inside the block as waiting, not as work, of the calling thread."""
    start = time.perf_counter()
    try:
        yield
    finally:
        _idle.seconds = idle_seconds() + time.perf_counter() - start


class Cancelled(Exception):
    """The other end of the channel is gone; unwind quietly."""


class Channel(Generic[T]):
    """Hand items from producer threads to one consumer thread.

    Each producer has a lane of its own: a queue of `capacity` items, in order. The consumer
    takes from the lanes in turn, so that a producer that floods its lane delays nobody else.

    Args:
        capacity: Most items held at once in a lane; at least 1.
        when_full: ``"wait"`` blocks the producer (files: every frame counts);
            ``"drop_oldest"`` discards the stalest item (cameras: fresh counts).
        lanes: Number of producers; the stream ends when every lane was closed.
        on_drop: Called with each discarded item, on the producer's thread.
    """

    def __init__(
        self,
        capacity: int,
        when_full: WhenFull = "wait",
        lanes: int = 1,
        on_drop: Callable[[T], None] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.when_full = when_full
        self._lanes: list[deque[T]] = [deque() for _ in range(lanes)]
        self._open = [True] * lanes
        self._next_lane = 0
        self._on_drop = on_drop
        self._changed = threading.Condition()
        self._cancelled = False
        self._reader: threading.Thread | None = None
        self._puts = 0
        self._occupancy_sum = 0

    def put(self, item: T, lane: int = 0) -> None:
        """Add `item`; raise `Cancelled` if the consumer has gone."""
        queue, dropped = self._lanes[lane], None
        with self._changed:
            self._puts += 1
            self._occupancy_sum += self._held()
            if self.when_full == "wait" and len(queue) >= self.capacity:
                with idle():
                    self._changed.wait_for(lambda: len(queue) < self.capacity or self._cancelled)
            if self._cancelled:
                raise Cancelled
            if len(queue) == self.capacity:
                dropped = queue.popleft()
            queue.append(item)
            self._changed.notify_all()
        if dropped is not None and self._on_drop is not None:
            self._on_drop(dropped)

    def take(self, limit: int, within: float = 0.0) -> list[T]:
        """Return 1..`limit` items, one lane after the other; an empty list means the end.

        Blocks for the first item, then at most `within` seconds for the rest, so a slow
        producer delays a batch by a known amount and never for ever. What can never come
        (lanes that are full or closed) is not waited for.
        """
        self._reader = threading.current_thread()
        with self._changed:
            if not self._held() and not self._over():
                with idle():
                    self._changed.wait_for(lambda: self._held() > 0 or self._over())
            if within > 0 and not self._complete(limit):
                with idle():
                    self._changed.wait_for(lambda: self._complete(limit), timeout=within)
            if self._cancelled:
                raise Cancelled
            taken = [self._pop() for _ in range(min(limit, self._held()))]
            self._changed.notify_all()
            return taken

    def __iter__(self) -> Iterator[T]:
        while items := self.take(1):
            yield items[0]

    def close(self, lane: int = 0) -> None:
        """Producer: no more items on this lane; what is queued is still delivered."""
        with self._changed:
            self._open[lane] = False
            self._changed.notify_all()

    def cancel(self) -> None:
        """Either end: stop now; wake whoever is blocked with `Cancelled`."""
        with self._changed:
            self._cancelled = True
            for queue in self._lanes:
                queue.clear()
            self._changed.notify_all()

    def was_read_here(self) -> bool:
        """Tell whether the calling thread is the one that takes from this channel."""
        return self._reader is threading.current_thread()

    @property
    def mean_occupancy(self) -> float:
        """Items that an arriving item found waiting, on average."""
        return self._occupancy_sum / self._puts if self._puts else 0.0

    def _pop(self) -> T:
        while not self._lanes[self._next_lane]:
            self._next_lane = (self._next_lane + 1) % len(self._lanes)
        item = self._lanes[self._next_lane].popleft()
        self._next_lane = (self._next_lane + 1) % len(self._lanes)
        return item

    def _held(self) -> int:
        return sum(map(len, self._lanes))

    def _over(self) -> bool:
        return self._cancelled or not any(self._open)

    def _complete(self, limit: int) -> bool:
        can_grow = any(
            is_open and len(queue) < self.capacity
            for is_open, queue in zip(self._open, self._lanes, strict=True)
        )
        return self._held() >= limit or self._cancelled or not can_grow
