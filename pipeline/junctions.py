"""Where a line's ways meet and part: sources flow into an `Inlet`, results leave by an `Outlet`.

Both may change while the graph runs: cameras are added and removed, and nobody else waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from pipeline.channel import Cancelled, Channel, WhenFull

T = TypeVar("T")


class StartSource(Protocol):
    """How a graph starts a source's thread."""

    def __call__(
        self,
        items: Iterable[T],
        name: str,
        channel: Channel[T],
        lane: int,
        end: Callable[[], None] | None,
    ) -> Callable[[], None]: ...


class Inlet(Generic[T]):
    """Where sources flow together; made by `Graph.inlet`.

    The channel ends when the inlet was closed and the last source has ended.
    """

    def __init__(self, capacity: int, start: StartSource) -> None:
        self.channel = Channel[T](capacity, lanes=0)
        self._start = start
        self._door = self.channel.add_lane(expected=lambda: False)  # open, so this is no end

    def join(
        self,
        name: str,
        items: Iterable[T],
        *,
        when_full: WhenFull = "wait",
        capacity: int | None = None,
        on_drop: Callable[[T], None] | None = None,
        expected: Callable[[], bool] | None = None,
        end: Callable[[], None] | None = None,
    ) -> Callable[[], None]:
        """Run a source on a thread of its own into a lane of its own; return what ends it.

        Args:
            name: For errors and figures.
            items: What it delivers.
            when_full, capacity, on_drop, expected: See `Channel.add_lane`.
            end: Makes a source that waits for a camera end soon; called from any thread. One
                that only reads files needs none: it is ended between two items.
        """
        lane = self.channel.add_lane(
            capacity=capacity, when_full=when_full, on_drop=on_drop, expected=expected
        )
        return self._start(items, name, self.channel, lane, end)

    def close(self) -> None:
        """Nobody will join any more."""
        self.channel.close(self._door)


class Outlet(Generic[T]):
    """Where a stage's items part; made by `Graph.outlet`.

    An item goes to every branch that accepts it. A branch whose consumer has gone is left out.

    Args:
        capacity: Of branches that say nothing else.
        register: Told of every branch, so that it is cancelled with the graph.
        start: Starts the thread that hands items out.
        in_bursts: Of branches that wait when they are full; see `Channel`.
    """

    def __init__(
        self,
        capacity: int,
        register: Callable[[Channel[T]], None],
        start: Callable[[Outlet[T]], None],
        *,
        in_bursts: bool = False,
    ) -> None:
        self._capacity, self._register, self._start = capacity, register, start
        self._in_bursts = in_bursts
        # Replaced and never changed, so whoever hands out needs no lock.
        self._branches: tuple[tuple[Channel[T], Callable[[T], bool]], ...] = ()
        self._lock = threading.Lock()
        self._stays = False
        self._ended = False

    def branch(
        self,
        accepts: Callable[[T], bool],
        *,
        when_full: WhenFull = "wait",
        capacity: int | None = None,
        on_drop: Callable[[T], None] | None = None,
    ) -> Channel[T]:
        """A channel that receives every later item for which `accepts` is true."""
        in_bursts = self._in_bursts and when_full == "wait"
        channel = Channel[T](
            capacity or self._capacity, when_full, on_drop=on_drop, in_bursts=in_bursts
        )
        self._register(channel)
        with self._lock:
            self._branches += ((channel, accepts),)
            if self._ended:
                channel.close()
        return channel

    def start(self, *, stays: bool = False) -> None:
        """Begin to hand items out, on a thread of its own.

        Args:
            stays: Go on when all branches have gone, because others may come; otherwise the
                stage ends then.
        """
        self._stays = stays
        self._start(self)

    def end(self, branch: Channel[T]) -> None:
        """End one branch; what it holds is still delivered."""
        with self._lock:
            self._branches = tuple(other for other in self._branches if other[0] is not branch)
        branch.close()

    def deliver(self, item: T) -> None:
        """Hand `item` to the branches; `Cancelled` when nobody is left to take any."""
        for channel, accepts in self._branches:
            try:
                if accepts(item):
                    channel.put(item)
            except Cancelled:
                self.end(channel)
        if not self._branches and not self._stays:
            raise Cancelled

    def finish(self) -> None:
        """The stage has ended: end all branches."""
        with self._lock:
            self._ended = True
            for channel, _ in self._branches:
                channel.close()

    @property
    def held(self) -> int:
        """Items that wait at this moment in the fullest branch."""
        return max((channel.held for channel, _ in self._branches), default=0)

    @property
    def mean_occupancy(self) -> float:
        """Items that an arriving item found waiting, on average, in the fullest branch."""
        return max((channel.mean_occupancy for channel, _ in self._branches), default=0.0)
