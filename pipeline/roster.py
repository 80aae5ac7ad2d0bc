"""Who is in the line: its sources, each with its sinks. They may come and go while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.bookkeeping.tally import Checkout, Tally
from pipeline.channel import Channel
from pipeline.frame import Frame, Result
from pipeline.graph import Graph
from pipeline.junctions import Inlet, Outlet
from pipeline.outputs import SinksOfSources
from pipeline.sinks import Sink
from pipeline.sinks.protocol import Tidying
from pipeline.sources import Source, is_live
from pipeline.sources.live.decoder import DecodeEffort

TIDY_SECONDS = 60.0  # between two times that a sink deletes what has become too old


@dataclass
class Branch:
    """The way to one sink.

    Attributes:
        channel: What the sink reads from.
        is_finished: The sink was closed, after its last result or a failure.
    """

    channel: Channel[Result]
    is_finished: bool = False

    def finished_after(self, written: Iterable[Result]) -> Iterator[Result]:
        """Pass on what the sink has written."""
        try:
            yield from written
        finally:
            self.is_finished = True


@dataclass(frozen=True)
class Member:
    """A source in the line, with where its results go."""

    source: Source
    sinks: tuple[Sink, ...]
    branches: tuple[Branch, ...]
    end: Callable[[], None]

    @property
    def is_done(self) -> bool:
        """Whether the source has ended and all its results have been handed to the sinks."""
        stats = self.source.stats
        return (
            stats.state in ("ENDED", "FAILED")
            and not stats.in_flight
            and all(
                branch.is_finished or branch.channel.puts >= stats.frames_inferred
                for branch in self.branches
            )
        )

    @property
    def is_gone(self) -> bool:
        """Whether its sinks are closed, too."""
        return self.is_done and all(branch.is_finished for branch in self.branches)


class Roster:
    """Lets sources into a line and out of it.

    Args:
        graph: What runs them.
        inlet: Where their frames go in.
        outlet: Where their results come out.
        outputs: Their sinks.
        tally: Keeps the books.
        share_among: Called with the number of sources that are there whenever it changes.

    Attributes:
        names_used: Of all sources that are or were there; see `names_in_use`.
        stays: Whether others may join while it runs.
    """

    def __init__(
        self,
        graph: Graph,
        inlet: Inlet[Frame],
        outlet: Outlet[Result],
        outputs: SinksOfSources,
        tally: Tally,
        share_among: Callable[[int], None],
    ) -> None:
        self.names_used: set[str] = set()
        self.stays = False
        self._graph, self._inlet, self._outlet = graph, inlet, outlet
        self._outputs, self._tally, self._share_among = outputs, tally, share_among
        self._members: dict[str, Member] = {}
        self._leaving: dict[str, Member] = {}
        self._effort = DecodeEffort.FULL
        self._lock = threading.Lock()

    @property
    def sources(self) -> list[Source]:
        """Those that are there, in the order of their coming, ended ones included."""
        return [member.source for member in list(self._members.values())]

    @property
    def names_in_use(self) -> set[str]:
        """Of sources that are there, or whose sinks are being finished; others may come back."""
        with self._lock:
            return {*self._members, *self._leaving}

    @property
    def sinks(self) -> list[tuple[str, Sink]]:
        """The sinks of the sources that are there, each with its source's name."""
        members = list(self._members.items())
        return [(name, sink) for name, member in members for sink in member.sinks]

    def open(self, *, stays: bool) -> None:
        """Let results flow.

        Args:
            stays: The line goes on without sources, because others may join; until it is
                stopped. Otherwise it ends with the last of those that have joined.
        """
        self.stays = stays
        self._outlet.start(stays=stays)
        if stays:
            self._graph.hold()
            self._graph.at_stop(self._close)
        else:
            self._inlet.close()

    def join(self, source: Source) -> None:
        """Start a source and its sinks. A recording waits for the line, a camera drops frames."""
        sinks = self._outputs.of(source)
        source.stats.live = source.live
        self._tally.joined(source.stats)
        checkout = Checkout(source.stats, sinks)
        branches = tuple(self._connect(source, sink, checkout) for sink in sinks)
        with self._lock:
            self.names_used.add(source.name)
            if is_live(source):
                source.set_effort(self._effort)
            end = self._start(source)
            self._members[source.name] = Member(source, tuple(sinks), branches, end)
            self._share_among(len(self._members))

    def leave(self, name: str) -> bool:
        """End a source; its sinks are finished and it is forgotten when its last result is through.

        Returns:
            Whether there was one of that name.
        """
        with self._lock:
            member = self._members.pop(name, None)
            if member is not None:
                self._leaving[name] = member
                self._share_among(len(self._members))
        if member is None:
            return False
        member.end()
        return True

    def set_effort(self, effort: DecodeEffort) -> None:
        """Have cameras decoded with that much effort, those that join later too."""
        with self._lock:
            self._effort = effort
            for source in filter(is_live, self.sources):
                source.set_effort(effort)

    def sweep(self) -> None:
        """Finish the sinks of sources whose last result is through; call it now and then."""
        with self._lock:
            members = [*self._members.values(), *self._leaving.values()]
            gone = {name: member for name, member in self._leaving.items() if member.is_gone}
        for member in members:
            if member.is_done:
                for branch in member.branches:
                    self._outlet.end(branch.channel)
        for name, member in gone.items():
            member.source.close()
            self._outputs.forget(name, self._tally)
            self._tally.forget(name, [sink.name for sink in member.sinks])
            with self._lock:
                del self._leaving[name]

    def _close(self) -> None:
        self._inlet.close()
        self._graph.release()

    def _start(self, source: Source) -> Callable[[], None]:
        """Start a source; return what ends it."""
        stats, stage = source.stats, f"read {source.name}"
        if is_live(source):
            return self._inlet.join(
                stage,
                source.frames(),
                when_full="drop_oldest",
                capacity=1,  # what waits for the engine is never older than the camera's last
                on_drop=partial(self._tally.dropped, "queue_full"),
                expected=lambda: stats.state == "RUNNING",
                end=source.end,
            )
        return self._inlet.join(stage, source.frames())

    def _connect(self, source: Source, sink: Sink, checkout: Checkout) -> Branch:
        """Run a sink on the results of one source."""
        channel = self._outlet.branch(
            partial(_comes_from, source.name),
            when_full="drop_oldest" if source.live or sink.may_drop else "wait",
            capacity=sink.capacity,
            on_drop=partial(self._tally.sink_dropped, sink.name),
        )
        branch, results = Branch(channel), iter(channel)
        if isinstance(sink, Tidying):
            results = channel.each(sink.tidy, TIDY_SECONDS)
        write = branch.finished_after(checkout.write(results, sink))
        self._graph.sink(
            channel, write, name=f"write {sink.name}", on_error=self._tally.sink_failed
        )
        return branch


def _comes_from(name: str, result: Result) -> bool:
    return result.frame.source == name
