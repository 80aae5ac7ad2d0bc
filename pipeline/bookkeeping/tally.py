"""Keep the books of a run: count frames as they pass, and remember what failed.

The line's generators are wrapped in `Tally` where something is to be counted; nothing here
changes what flows.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from pipeline.bookkeeping.metrics import SinkStats, SourceStats, StageStats
from pipeline.bookkeeping.score import TruthScore
from pipeline.errors import PipelineError, SinkError, reason, without_frames
from pipeline.frame import Frame, Result
from pipeline.graph import Graph
from pipeline.terminal import clock

DEPARTED_KEPT = 50  # sources in the report that were removed while the line ran


class WritableSink(Protocol):
    """A sink, as far as the tally needs to know it."""

    name: str
    frames: int

    def __enter__(self) -> object: ...
    def __exit__(self, kind: object, error: BaseException | None, trace: object, /) -> None: ...
    def write(self, result: Result) -> None: ...


class Checkout:
    """Where the results of one source leave the line: the first sink that has not failed clocks.

    Args:
        stats: Of the source.
        sinks: Its sinks.
    """

    def __init__(self, stats: SourceStats, sinks: Sequence[WritableSink]) -> None:
        self._stats, self._sinks = stats, tuple(sinks)
        self._clocked = -1  # index of the last frame whose time was taken

    def write(self, results: Iterable[Result], sink: WritableSink) -> Iterator[Result]:
        """Write every result to one of the sinks."""
        finished = False
        try:
            with sink:
                for result in results:
                    sink.write(result)
                    if sink is self._sinks[0] and result.frame.index > self._clocked:
                        self._clock_out(result)
                    yield result
            finished = True
        finally:
            if not finished:  # from now on another sink takes the time
                self._sinks = (*(other for other in self._sinks if other is not sink), sink)

    def _clock_out(self, result: Result) -> None:
        now, self._clocked = time.monotonic(), result.frame.index
        self._stats.latency.add(now - result.frame.arrival)
        self._stats.last_sunk = now  # after what it is compared with
        if result.frame.painted is not None:
            self._stats.glass_to_sink.add(now - result.frame.painted)


class Tally:
    """The books of one run.

    Args:
        sources: Counters of every source, by name.
        class_names: The model's, for the comparison with a known truth.
        complain: Called with the time and one sentence when a source or a sink fails.

    Attributes:
        stages: What the stages of all graphs that have ended did.
    """

    def __init__(
        self,
        sources: Sequence[SourceStats],
        class_names: Sequence[str],
        complain: Callable[[str], None],
    ) -> None:
        self.sources = {stats.name: stats for stats in sources}
        self._departed: deque[SourceStats] = deque(maxlen=DEPARTED_KEPT)
        self.failed_sources: dict[str, BaseException] = {}
        self.failed_sinks: dict[str, BaseException] = {}
        self.sink_drops: Counter[tuple[str, str]] = Counter()  # by source and sink
        self._sink_errors: dict[str, str] = {}  # of those that are there
        self.score: TruthScore | None = None
        self.stages: list[StageStats] = []
        self._class_names = tuple(class_names)
        self._complain = complain

    @property
    def all_sources(self) -> list[SourceStats]:
        """The books of all sources, first those of the last that have left, in that order."""
        return [*self._departed, *self.sources.values()]

    def joined(self, stats: SourceStats) -> None:
        """Keep the books of one more source."""
        self.sources[stats.name] = stats

    def forget(self, name: str, sinks: Iterable[str]) -> None:
        """Close the books of a source that has left, and of its sinks, so that others may follow.

        The last ones stay in the report, and every failure in the exit code.
        """
        self._departed.append(self.sources.pop(name))
        for sink in sinks:
            self._sink_errors.pop(sink, None)
            self.sink_drops.pop((name, sink), None)

    @contextmanager
    def running(self, graph: Graph) -> Iterator[Graph]:
        """Run a graph; what its stages did is kept, even if one of them ends it with an error."""
        try:
            with graph:
                yield graph
        finally:
            self.stages += graph.stats

    def dropped(self, cause: str, frame: Frame) -> None:
        """Count a frame that will not be inferred; each cause is counted in one thread only."""
        self.sources[frame.source].frames_dropped[cause] += 1

    def sink_dropped(self, sink: str, result: Result) -> None:
        """Count a result that a sink could not take in time."""
        self.sink_drops[result.frame.source, sink] += 1

    def sink_error(self, sink: str) -> str | None:
        """Why a sink has failed, if it has."""
        return self._sink_errors.get(sink)

    def sink_stats(self, source: str, sink: WritableSink) -> SinkStats:
        """What has become of the results of one source in one of its sinks so far."""
        lost = Counter(getattr(sink, "dropped", {}))  # of those that wait for somebody else
        if untaken := self.sink_drops[source, sink.name]:
            lost["queue_full"] += untaken
        error = self.sink_error(sink.name)
        return SinkStats(source, sink.name, sink.frames, dict(lost), error)

    def found(self, results: Iterable[Result]) -> Iterator[Result]:
        """Count inferred frames, and judge a recording's detections where the truth is known.

        A camera's are not judged: it would be of those that came through, and without an end.
        """
        for result in results:
            stats = self.sources[result.frame.source]
            stats.frames_inferred += 1
            stats.inferred_rate.add(time.monotonic())
            if result.segmentation is not None:
                stats.pixels.add(result.segmentation.shares)
            if result.frame.truth is not None and not stats.live and self._class_names:
                self.score = self.score or TruthScore()
                self.score.add(result.detections, result.frame.truth, self._class_names)
            yield result

    def inexact(self, frame: Frame) -> None:
        """Count a frame of which the model's graph says that it cut a corner too many."""
        self.sources[frame.source].anomalies["inexact"] += 1

    def source_failed(self, stage: str, error: BaseException) -> None:
        """Remember that a source ended early, and say so; its stage is called ``read NAME``."""
        name = stage.removeprefix("read ")
        words, stats = describe(error), self.sources.get(name)
        if stats is not None:  # else it was removed while it failed
            stats.error = words
            if stats.state != "FAILED":
                stats.changed("FAILED", None, words)
        self.failed_sources[name] = without_frames(error)
        self._complain(f"{clock(time.time())} source {name}: {words}")

    def sink_failed(self, stage: str, error: BaseException) -> None:
        """Remember that a sink ended early, and say so; its stage is called ``write NAME``."""
        name = stage.removeprefix("write ")
        self.failed_sinks[name] = without_frames(error)
        self._sink_errors[name] = describe(error)
        self._complain(f"{clock(time.time())} output {name}: {describe(error)}")

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Inside the block something is written beside the sinks, and fails as they do."""
        try:
            yield
        except SinkError as error:
            self.sink_failed(name, error)

    def close(self) -> None:
        """Account for frames that an interrupted run decoded, but did not infer."""
        for stats in self.all_sources:
            if stats.in_flight:
                stats.frames_dropped["cut_short"] += stats.in_flight

    def hud(self, result: Result) -> list[str]:
        """Lines of live figures for a corner of the picture."""
        stats = self.sources[result.frame.source]
        fps = stats.recent_fps if stats.live else stats.fps
        latency, dropped = stats.latency.percentile_ms(50), stats.dropped
        return [
            "- fps" if fps is None else f"{fps:.1f} fps",
            f"{latency:.0f} ms" if latency is not None else "- ms",
            f"{dropped} dropped",
        ]


def describe(error: BaseException) -> str:
    """One sentence: our own errors speak for themselves, others are named by their type."""
    if isinstance(error, PipelineError):
        return str(error)
    return f"{type(error).__name__}: {reason(error)}"
