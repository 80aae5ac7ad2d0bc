"""A bounded queue between threads that can end, be cancelled, and be fair to many producers.

``queue.Queue`` knows only "put" and "get". A stream also has to say *there is no more* and
*nobody is listening any more*; `Channel` says both, so no stage needs a sentinel, a stop flag
or a sleep.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class _Lane(Generic[T]):
    """One producer's queue."""

    capacity: int
    when_full: WhenFull
    on_drop: Callable[[T], None] | None
    expected: Callable[[], bool] | None
    queue: deque[T] = field(default_factory=deque)
    is_open: bool = True

    @property
    def can_grow(self) -> bool:
        """Whether waiting for another item of this producer makes sense."""
        has_room = self.is_open and len(self.queue) < self.capacity
        return has_room and (self.expected is None or self.expected())


class Channel(Generic[T]):
    """Hand items from producer threads to one consumer thread.

    Each producer has a lane of its own: a queue of `capacity` items, in order. The consumer
    takes from the lanes in turn, so that a producer that floods its lane delays nobody else.
    The stream ends when every lane was closed.

    Args:
        capacity: Most items held at once in a lane; at least 1.
        when_full: ``"wait"`` blocks the producer (files: every frame counts);
            ``"drop_oldest"`` discards the stalest item (cameras: fresh counts).
        lanes: Number of producers, lanes 0 to ``lanes - 1``; `add_lane` makes more.
        on_drop: Called with each discarded item, on the producer's thread.
        in_bursts: Whoever iterates is woken for `capacity` items (or the end), not for each
            one: half as many changes of thread, and caches that stay warm. For recordings,
            where a late item costs nothing.
    """

    def __init__(
        self,
        capacity: int,
        when_full: WhenFull = "wait",
        lanes: int = 1,
        on_drop: Callable[[T], None] | None = None,
        in_bursts: bool = False,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.when_full = when_full
        self._burst = capacity if in_bursts else 1
        self._wanted = 1  # items that the consumer waits for
        self._lanes: dict[int, _Lane[T]] = {}
        self._turns: deque[_Lane[T]] = deque()  # whose turn it is comes first
        self._lanes_made = 0
        self._lock = threading.RLock()  # a signal's handler may close a lane
        self._arrived = threading.Condition(self._lock)  # the consumer waits for this
        self._taken = threading.Condition(self._lock)  # the producers wait for this
        self._cancelled = False
        self._reader: threading.Thread | None = None
        self._puts = 0
        self._held = 0
        self._occupancy_sum = 0
        for _ in range(lanes):
            self.add_lane(on_drop=on_drop)

    def add_lane(
        self,
        *,
        capacity: int | None = None,
        when_full: WhenFull | None = None,
        on_drop: Callable[[T], None] | None = None,
        expected: Callable[[], bool] | None = None,
    ) -> int:
        """Make room for one more producer; return the number of its lane.

        Args:
            capacity, when_full: As for the channel, whose own they are by default.
            on_drop: Called with each discarded item, on the producer's thread.
            expected: Tells whether it is worth waiting for this producer's next item.
        """
        with self._lock:
            number, self._lanes_made = self._lanes_made, self._lanes_made + 1
            lane = _Lane(capacity or self.capacity, when_full or self.when_full, on_drop, expected)
            self._lanes[number] = lane
            self._turns.append(lane)
            return number

    def put(self, item: T, lane: int = 0) -> None:
        """Add `item`; raise `Cancelled` if the consumer has gone."""
        mine, dropped = self._lanes[lane], None
        with self._lock:
            found = self._held
            if mine.when_full == "wait" and len(mine.queue) >= mine.capacity:
                with idle():
                    self._taken.wait_for(lambda: len(mine.queue) < mine.capacity or self._cancelled)
            if self._cancelled:
                raise Cancelled
            if len(mine.queue) == mine.capacity:
                dropped = mine.queue.popleft()
                self._held -= 1
            mine.queue.append(item)
            self._held += 1
            # Not before: who has seen them all arrive may close the lane.
            self._puts += 1
            self._occupancy_sum += found
            if self._held >= self._wanted:
                self._arrived.notify()
        if dropped is not None and mine.on_drop is not None:
            mine.on_drop(dropped)

    def take(self, limit: int, within: float = 0.0, at_least: int = 1) -> list[T]:
        """Return 1..`limit` items, one lane after the other; an empty list means the end.

        Blocks for the first item, then at most `within` seconds for the rest, so a slow
        producer delays a batch by a known amount and never for ever. What can never come
        (lanes that are full or closed) or is not expected is not waited for.

        With `at_least` it blocks for so many, however long that takes; fewer come at the end.
        """
        self._reader = threading.current_thread()
        with self._lock:
            self._wait_for(at_least)
            if within > 0 and not self._complete(limit):
                with idle():
                    self._arrived.wait_for(lambda: self._complete(limit), timeout=within)
            if self._cancelled:
                raise Cancelled
            taken = [self._pop() for _ in range(min(limit, self._held))]
            self._taken.notify_all()
            return taken

    def __iter__(self) -> Iterator[T]:
        while items := self.take(self._burst, at_least=self._burst):
            yield from items

    def each(self, meanwhile: Callable[[], None], every_seconds: float) -> Iterator[T]:
        """Iterate, and call `meanwhile` every so often, also while nothing comes."""
        due = time.monotonic() + every_seconds
        while True:
            if self._wait_for(self._burst, due - time.monotonic()):
                items = self.take(self._burst)  # all of them, without waiting
                if not items:
                    return
                yield from items
            if time.monotonic() >= due:
                meanwhile()
                due = time.monotonic() + every_seconds

    def close(self, lane: int = 0) -> None:
        """Producer: no more items on this lane; what is queued is still delivered."""
        with self._lock:
            closed = self._lanes.pop(lane, None)
            if closed is not None:
                closed.is_open = False
                if not closed.queue:
                    self._turns.remove(closed)
            self._arrived.notify()

    def cancel(self) -> None:
        """Either end: stop now; wake whoever is blocked with `Cancelled`."""
        with self._lock:
            self._cancelled = True
            for lane in self._turns:
                lane.queue.clear()
            self._held = 0
            self._arrived.notify_all()
            self._taken.notify_all()

    def was_read_here(self) -> bool:
        """Tell whether the calling thread is the one that takes from this channel."""
        return self._reader is threading.current_thread()

    @property
    def puts(self) -> int:
        """Items that arrived so far, those dropped since included."""
        return self._puts

    @property
    def held(self) -> int:
        """Items that wait at this moment."""
        return self._held

    @property
    def mean_occupancy(self) -> float:
        """Items that an arriving item found waiting, on average."""
        return self._occupancy_sum / self._puts if self._puts else 0.0

    def _pop(self) -> T:
        """The next item of the next lane that has one; a closed lane goes with its last item."""
        while not self._turns[0].queue:
            self._turns.rotate(-1)
        lane = self._turns[0]
        item = lane.queue.popleft()
        self._held -= 1
        if lane.is_open or lane.queue:
            self._turns.rotate(-1)
        else:
            self._turns.popleft()
        return item

    def _wait_for(self, count: int, seconds: float | None = None) -> bool:
        """Wait until so many items or the end are there, at most `seconds`; tell if they are."""
        with self._lock:
            if self._held >= count or self._over():
                return True
            self._wanted = count
            with idle():
                there = self._arrived.wait_for(
                    lambda: self._held >= count or self._over(), timeout=seconds
                )
            self._wanted = 1
            return there

    def _over(self) -> bool:
        return self._cancelled or not self._lanes

    def _complete(self, limit: int) -> bool:
        if self._held >= limit or self._cancelled:
            return True
        return not any(lane.can_grow for lane in self._turns)


class Slots:
    """Bound what is under way between two places of a line, however many queues lie between.

    Who takes frames from a camera too early lets them grow old in the queues behind, where
    nothing fresher can replace them. So a frame leaves its lane when there is a slot for it, and
    the slot is free again when its answer is there.

    Args:
        count: How many may be under way; can be changed at any time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._used = 0
        self._changed = threading.Condition()
        self._cancelled = False

    @property
    def count(self) -> int:
        """How many may be under way."""
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        with self._changed:
            self._count = count
            self._changed.notify_all()

    def acquire(self) -> None:
        """Wait for a slot; raise `Cancelled` if none will ever come."""
        with self._changed:
            if self._used >= self._count and not self._cancelled:
                with idle():
                    self._changed.wait_for(lambda: self._used < self._count or self._cancelled)
            if self._cancelled:
                raise Cancelled
            self._used += 1

    def release(self) -> None:
        """Give a slot back."""
        with self._changed:
            self._used -= 1
            self._changed.notify()

    def freed_by(self, answers: Iterable[T]) -> Iterator[T]:
        """Pass `answers` on; each frees its slot as it comes, whatever is still made of it."""
        try:
            for answer in answers:
                self.release()
                yield answer
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Wake whoever waits with `Cancelled`: nothing will be freed any more."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
