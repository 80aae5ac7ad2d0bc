"""Run stages on threads, and never outlive the ``with`` block that started them.

A stage is any iterator. `Graph.stage` gives it a thread of its own and returns the `Channel`
its items arrive on, so a pipeline is ordinary chained generators with the thread boundaries
marked. Leaving the block waits for the sinks, cancels the rest, joins, and raises the first
error of any stage, with the stage's name in a note.

A thread that is blocked in a foreign read cannot be woken: every source needs a time limit of
its own. With ``"wait"`` the slowest branch of a `tee` paces all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pipeline.channel import Cancelled, Channel, WhenFull, idle_seconds

T = TypeVar("T")
OnError = Callable[[str, BaseException], None]
Deliver = Callable[[Any], None]


@dataclass
class StageStats:
    """What one thread did. `busy_seconds` leaves out the time spent waiting for neighbours."""

    name: str
    items: int = 0
    busy_seconds: float = 0.0
    channel: Channel[Any] | None = None

    @property
    def queue_mean(self) -> float:
        """Mean number of items waiting behind this stage."""
        return self.channel.mean_occupancy if self.channel else 0.0


class Graph:
    """The only place in this project that starts a thread.

    >>> with Graph() as graph:
    ...     squares = graph.stage((n * n for n in range(4)), name="square")
    ...     print(list(squares))
    [0, 1, 4, 9]
    """

    def __init__(self, capacity: int = 4) -> None:
        self.capacity = capacity
        self.stats: list[StageStats] = []
        self._channels: list[Channel[Any]] = []
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._running_sinks = 0

    def stage(
        self,
        items: Iterable[T],
        *,
        name: str,
        when_full: WhenFull = "wait",
        capacity: int | None = None,
    ) -> Channel[T]:
        """Pull from `items` on a new thread; return the channel they land on."""
        channel = Channel[T](capacity or self.capacity, when_full)
        self._start(items, name, channel.put, [channel], [channel.close])
        return channel

    def merge(
        self,
        sources: Mapping[str, Iterable[T]],
        *,
        when_full: WhenFull = "wait",
        capacity: int | None = None,
        on_drop: Callable[[T], None] | None = None,
        on_error: OnError | None = None,
    ) -> Channel[T]:
        """Run each named source on a thread of its own into a lane of one channel.

        The channel ends with the last source. With `on_error` a failing source ends alone and
        is reported there; without it the first failure ends the graph. `stop` ends all of them.
        """
        channel = Channel[T](capacity or self.capacity, when_full, len(sources), on_drop)
        for lane, (name, source) in enumerate(sources.items()):
            self._start(
                source,
                name,
                partial(channel.put, lane=lane),
                [channel],
                [partial(channel.close, lane)],
                on_error=on_error,
                is_source=True,
            )
        return channel

    def tee(
        self,
        items: Iterable[T],
        accepts: Sequence[Callable[[T], bool]],
        *,
        name: str = "tee",
        when_full: WhenFull = "wait",
    ) -> list[Channel[T]]:
        """One channel for each of `accepts`; it receives every item for which that is true.

        A branch whose consumer has gone is skipped; when all have gone, the stage ends.
        """
        channels = [Channel[T](self.capacity, when_full) for _ in accepts]
        branches = list(zip(channels, accepts, strict=True))

        def deliver(item: T) -> None:
            for branch in list(branches):
                channel, accept = branch
                try:
                    if accept(item):
                        channel.put(item)
                except Cancelled:
                    branches.remove(branch)
            if not branches:
                raise Cancelled

        self._start(items, name, deliver, list(channels), [c.close for c in channels])
        return channels

    def sink(
        self, items: Channel[T], write: Iterable[object], *, name: str, on_error: OnError | None
    ) -> None:
        """Exhaust `write`, which reads `items`, on a new thread; a clean exit waits for it.

        With `on_error` a failing sink fails alone: it stops reading and is reported there.
        """
        with self._changed:
            self._running_sinks += 1
        self._start(write, name, None, [], [items.cancel, self._sink_ended], on_error)

    def stop(self) -> None:
        """Ask the sources to end; what they have delivered still flows to the sinks."""
        self._stopping.set()

    def wait(self, seconds: float | None) -> bool:
        """Wait until all sinks have ended, at most `seconds` if given; tell whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: self._running_sinks == 0, timeout=seconds)

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                # Not by joining: before Python 3.13 an interrupted join takes a thread for ended.
                self.wait(None)
        finally:
            self._cancel()
            for thread in self._threads:
                if thread.ident is not None:  # it did start
                    thread.join()
        if self._error is not None and (error is None or isinstance(error, Cancelled)):
            raise self._error from self._error.__cause__ or self._error.__context__

    def _start(
        self,
        items: Iterable[Any],
        name: str,
        deliver: Deliver | None,
        channels: list[Channel[Any]],
        at_end: list[Callable[[], None]],
        on_error: OnError | None = None,
        is_source: bool = False,
    ) -> None:
        stats = StageStats(name, channel=channels[0] if channels else None)
        with self._lock:
            self.stats.append(stats)
            self._channels += [channel for channel in channels if channel not in self._channels]
            if self._error is not None:  # too late to join in
                for channel in channels:
                    channel.cancel()
        thread = threading.Thread(
            target=self._pump,
            args=(items, stats, deliver, at_end, on_error, is_source),
            name=name,
        )
        self._threads.append(thread)
        thread.start()

    def _pump(
        self,
        items: Iterable[Any],
        stats: StageStats,
        deliver: Deliver | None,
        at_end: list[Callable[[], None]],
        on_error: OnError | None,
        is_source: bool,
    ) -> None:
        """Body of every thread: pull, count, deliver; say how it ended."""
        try:
            self._pull(iter(items), stats, deliver, is_source)
        except Cancelled:
            pass
        except BaseException as error:
            error.add_note(f"in stage {stats.name!r}")
            self._failed(stats.name, error, on_error)
        finally:
            self._stop_reading()
            for end in at_end:
                end()

    def _failed(self, name: str, error: BaseException, on_error: OnError | None) -> None:
        """Report an error where it was asked for; else, or if that fails, end the graph."""
        if on_error:
            try:
                on_error(name, error)
            except BaseException as from_handler:
                error = from_handler
            else:
                return
        with self._lock:
            self._error = self._error or error
        self._cancel()

    def _stop_reading(self) -> None:
        """Release whoever delivers to the calling thread, which has ended.

        So an end travels up the line as an end, and a branch that ends early holds up no other.
        """
        with self._lock:
            channels = list(self._channels)
        for channel in channels:
            if channel.was_read_here():
                channel.cancel()

    def _pull(
        self, iterator: Iterator[Any], stats: StageStats, deliver: Deliver | None, is_source: bool
    ) -> None:
        try:
            while not (is_source and self._stopping.is_set()):
                idle_before, start = idle_seconds(), time.perf_counter()
                item = next(iterator, self)
                stats.busy_seconds += time.perf_counter() - start - idle_seconds() + idle_before
                if item is self:  # the graph itself serves as "no more"
                    return
                stats.items += 1
                if deliver:
                    deliver(item)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    def _sink_ended(self) -> None:
        with self._changed:
            self._running_sinks -= 1
            self._changed.notify_all()

    def _cancel(self) -> None:
        with self._lock:
            channels = list(self._channels)
        for channel in channels:
            channel.cancel()
