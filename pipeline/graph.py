"""Run stages on threads, and never outlive the ``with`` block that started them.

A stage is any iterator. `Graph.stage` gives it a thread of its own and returns the `Channel`
its items arrive on, so a pipeline is ordinary chained generators with the thread boundaries
marked. Leaving the block waits for the sinks, cancels the rest, joins, and raises the first
error of any stage, with the stage's name in a note.

A thread that is blocked in a foreign read cannot be woken: every source needs a time limit of
its own. Only a graph that is left by `KeyboardInterrupt` gives up what does not end soon.
With ``"wait"`` the slowest branch of an outlet paces all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from pipeline.bookkeeping.metrics import StageStats
from pipeline.channel import Cancelled, Channel, Slots, idle_seconds
from pipeline.junctions import Inlet, Outlet

T = TypeVar("T")
OnError = Callable[[str, BaseException], None]
Deliver = Callable[[Any], None]


_LAST_SECONDS = 3.0  # for the stages of an interrupted graph to finish what they write

_in_background: WeakSet[threading.Thread] = WeakSet()
_given_up: WeakSet[threading.Thread] = WeakSet()


class Background:
    """A daemon thread outside of any graph, for what nobody can interrupt.

    A graph joins its threads; a thread that hangs in a foreign library would hang it, too. Who
    starts such work here must be able to do without it.
    """

    def __init__(self, run: Callable[[], object], name: str) -> None:
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        _in_background.add(self._thread)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end, at most `timeout` seconds; tell whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


def background(run: Callable[[], object], name: str) -> Background:
    """Start `run` on a daemon thread of its own; errors are for `run` to handle."""
    return Background(run, name)


def any_in_background() -> bool:
    """Tell whether a thread of `background` still runs."""
    return any(thread.is_alive() for thread in list(_in_background))


def any_given_up() -> bool:
    """Tell whether a stage still runs although its graph was left: it hangs."""
    return any(thread.is_alive() for thread in list(_given_up))


class Graph:
    """The only place in this project that starts a thread.

    >>> with Graph() as graph:
    ...     squares = graph.stage((n * n for n in range(4)), name="square")
    ...     print(list(squares))
    [0, 1, 4, 9]
    """

    def __init__(self, capacity: int = 4, *, in_bursts: bool = False) -> None:
        """The defaults of all channels but those of inlets, to which sources are bound."""
        self.capacity, self.in_bursts = capacity, in_bursts
        self._stats: list[StageStats] = []
        self._ended_stats: dict[str, StageStats] = {}
        self._channels: list[Channel[Any]] = []
        self._slots: list[Slots] = []
        self._threads: list[threading.Thread] = []
        self._ends: list[Callable[[], None]] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._awaited = 0  # sinks and holds

    @property
    def stats(self) -> list[StageStats]:
        """What each stage did; stages that have ended are added up by their names."""
        with self._lock:
            return [*self._ended_stats.values(), *self._stats]

    def stage(
        self,
        items: Iterable[T],
        *,
        name: str,
        capacity: int | None = None,
        in_bursts: bool | None = None,
    ) -> Channel[T]:
        """Pull from `items` on a new thread; return the channel they land on."""
        in_bursts = self.in_bursts if in_bursts is None else in_bursts
        channel = Channel[T](capacity or self.capacity, in_bursts=in_bursts)
        self.register(channel)
        self._start(items, StageStats(name, queue=channel), channel.put, [channel.close])
        return channel

    def inlet(self, *, capacity: int | None = None, on_error: OnError | None = None) -> Inlet[Any]:
        """Where sources flow together.

        With `on_error` a failing source ends alone and is reported there; without it the first
        failure ends the graph. `stop` ends all of them.
        """
        inlet = Inlet[Any](capacity or self.capacity, partial(self._start_source, on_error))
        self.register(inlet.channel)
        return inlet

    def outlet(self, items: Iterable[T], *, name: str) -> Outlet[T]:
        """Where items part, once it has been started: its thread pulls from `items`."""

        def start(outlet: Outlet[T]) -> None:
            stats = StageStats(name, queue=outlet)
            self._start(items, stats, outlet.deliver, [outlet.finish])

        return Outlet(self.capacity, self.register, start, in_bursts=self.in_bursts)

    def sink(
        self, items: Channel[T], write: Iterable[object], *, name: str, on_error: OnError | None
    ) -> None:
        """Exhaust `write`, which reads `items`, on a new thread; a clean exit waits for it.

        With `on_error` a failing sink fails alone: it stops reading and is reported there.
        """
        self.hold()
        at_end = [items.cancel, self.release]
        self._start(write, StageStats(name), None, at_end, on_error=on_error)

    def slots(self, count: int) -> Slots:
        """Slots that are cancelled with the graph."""
        slots = Slots(count)
        with self._lock:
            self._slots.append(slots)
        return slots

    def hold(self) -> None:
        """Keep a clean exit waiting until `release`, as a sink does."""
        with self._changed:
            self._awaited += 1

    def release(self) -> None:
        """Take one `hold` back."""
        with self._changed:
            self._awaited -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Ask the sources to end; what they have delivered still flows to the sinks."""
        self._stopping.set()
        for end in list(self._ends):
            end()

    def at_stop(self, call: Callable[[], None]) -> None:
        """Have `call` called once, at the stop or when the graph is cancelled."""

        def call_once() -> None:
            # Of several threads, and of a signal's handler amid one of them, one can remove it.
            try:
                self._ends.remove(call_once)
            except ValueError:
                return
            call()

        self._ends.append(call_once)
        if self._stopping.is_set():
            call_once()

    def wait(self, seconds: float | None) -> bool:
        """Wait until all sinks have ended, at most `seconds` if given; tell whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: self._awaited == 0, timeout=seconds)

    def register(self, channel: Channel[Any]) -> None:
        """Have `channel` cancelled with the graph; at once if that has failed already."""
        with self._lock:
            self._channels.append(channel)
            too_late = self._error is not None
        if too_late:
            channel.cancel()

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        interrupted = isinstance(error, KeyboardInterrupt)
        try:
            if error is None:
                # Not by joining: before Python 3.13 an interrupted join takes a thread for ended.
                self.wait(None)
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            self._cancel()
            self._join(_LAST_SECONDS if interrupted else None)
        if self._error is not None and (error is None or isinstance(error, Cancelled)):
            raise self._error from self._error.__cause__ or self._error.__context__

    def _join(self, seconds: float | None) -> None:
        """Wait for all threads, at most `seconds` if given."""
        _given_up.update(self._threads)  # those that will have ended do not count
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:  # it did start
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _start_source(
        self,
        on_error: OnError | None,
        items: Iterable[Any],
        name: str,
        channel: Channel[Any],
        lane: int,
        end: Callable[[], None] | None,
    ) -> Callable[[], None]:
        stats, ending = StageStats(name, queue=channel), threading.Event()

        def end_it() -> None:
            ending.set()
            if end is not None:
                end()

        self._ends.append(end_it)
        if self._stopping.is_set():
            end_it()
        at_end: list[Callable[[], None]] = [
            partial(channel.close, lane),
            partial(self._ends.remove, end_it),
        ]
        put = partial(channel.put, lane=lane)
        self._start(items, stats, put, at_end, on_error=on_error, ending=ending)
        return end_it

    def _start(
        self,
        items: Iterable[Any],
        stats: StageStats,
        deliver: Deliver | None,
        at_end: list[Callable[[], None]],
        *,
        on_error: OnError | None = None,
        ending: threading.Event | None = None,
    ) -> None:
        thread = threading.Thread(
            target=self._pump,
            args=(items, stats, deliver, at_end, on_error, ending),
            name=stats.name,
        )
        with self._lock:
            self._stats.append(stats)
            alive = [other for other in self._threads if other.ident is None or other.is_alive()]
            self._threads = [*alive, thread]
        thread.start()

    def _pump(
        self,
        items: Iterable[Any],
        stats: StageStats,
        deliver: Deliver | None,
        at_end: list[Callable[[], None]],
        on_error: OnError | None,
        ending: threading.Event | None,
    ) -> None:
        """Body of every thread: pull, count, deliver; say how it ended."""
        try:
            self._pull(iter(items), stats, deliver, ending)
        except Cancelled:
            pass  # its reader has gone, or the graph ends: no failure of this stage
        except BaseException as error:  # of any kind: it ends the graph, with the name of its stage
            error.add_note(f"in stage {stats.name!r}")
            self._failed(stats.name, error, on_error)
        finally:
            self._stop_reading()
            self._put_away(stats)
            for end in at_end:
                end()

    def _pull(
        self,
        iterator: Iterator[Any],
        stats: StageStats,
        deliver: Deliver | None,
        ending: threading.Event | None,
    ) -> None:
        try:
            while not (ending and ending.is_set()):
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

    def _failed(self, name: str, error: BaseException, on_error: OnError | None) -> None:
        """Report an error where it was asked for; else, or if that fails, end the graph."""
        if on_error:
            try:
                on_error(name, error)
            except BaseException as from_handler:  # then that is what ends the graph
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
            read_here = [channel for channel in self._channels if channel.was_read_here()]
            self._channels = [c for c in self._channels if c not in read_here]
        for channel in read_here:
            channel.cancel()

    def _put_away(self, stats: StageStats) -> None:
        """Add an ended stage to those of its name, so that what comes and goes leaves nothing."""
        with self._lock:
            self._stats.remove(stats)
            total = self._ended_stats.setdefault(stats.name, StageStats(stats.name))
            total.absorb(stats)

    def _cancel(self) -> None:
        with self._lock:
            channels, slots = list(self._channels), list(self._slots)
        for channel in channels:
            channel.cancel()
        for slot in slots:
            slot.cancel()
        for end in list(self._ends):
            end()
