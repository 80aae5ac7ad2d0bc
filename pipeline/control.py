"""A running line under control: sources come and go, thresholds change, while frames flow."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.bookkeeping.metrics import SinkStats, SourceStats
from pipeline.bookkeeping.report import engine_report
from pipeline.bookkeeping.tally import Tally
from pipeline.crew import Crew
from pipeline.detect import OwnThresholds, Shown
from pipeline.engines import EngineWatch
from pipeline.errors import ConfigError
from pipeline.governor import Governor
from pipeline.graph import Graph
from pipeline.model_file.reading import ModelFile
from pipeline.roster import Roster
from pipeline.serve.control import LineNotRunning, NameTaken, UnknownSource
from pipeline.settings import Settings
from pipeline.sources import is_live, open_sources
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.live import ABANDONED

MOST_SOURCES = 1024


@dataclass(frozen=True)
class RunningLine:
    """The parts of a line that can be acted on."""

    graph: Graph
    roster: Roster
    shown: Shown
    crew: Crew
    watch: EngineWatch
    governor: Governor
    tally: Tally


class LineControl:
    """What the page and the API may do; see `pipeline.serve.control.Control`.

    Args:
        settings: How added sources are read.
        models: What the line runs, that which finds objects first.
        names: What the user calls them.
        gpu: Opens decoders on a GPU for all sources; None: as the settings say, for each its own.
    """

    def __init__(
        self,
        settings: Settings,
        models: Sequence[ModelFile],
        names: Sequence[str],
        gpu: GpuDecoding | None = None,
    ) -> None:
        self._settings, self._models, self._names = settings, models, names
        self._decoder = gpu or settings.decoder
        self._line: RunningLine | None = None  # the last one, when it has ended
        self._is_running = False
        self._adding = threading.Lock()

    def attach(self, line: RunningLine) -> None:
        """From now on, act on this line."""
        self._line, self._is_running = line, True

    def detach(self) -> None:
        """The line has ended: what became of it can still be seen, but nothing be changed."""
        self._is_running = False

    def sources(self) -> Sequence[SourceStats]:
        """Every source that is there, in the order of their coming."""
        return [source.stats for source in self._line.roster.sources] if self._line else []

    def sinks(self) -> Sequence[SinkStats]:
        """What each source's sinks have done so far."""
        line = self._line
        if line is None:
            return []
        return [line.tally.sink_stats(source, sink) for source, sink in line.roster.sinks]

    def add(self, url: str, name: str | None) -> str:
        """Start a source; return its name.

        Whoever may add a camera may choose where it is, so our own secrets stay out of its
        address: neither the environment nor the credentials of the settings are used.

        Raises:
            NameTaken: A source of that name is there, or its outputs are being finished.
            ConfigError: The URL cannot mean anything, there are too many sources, or the line is
                one of recordings, which ends with them and makes frames wait.
        """
        line = self._running()
        if not line.roster.stays:
            raise ConfigError("this run has recordings only; start one with a camera (or replay:)")
        with self._adding:
            if len(line.roster.sources) >= MOST_SOURCES:
                raise ConfigError(f"there are {MOST_SOURCES} sources already; remove one first")
            there = {source.name for source in line.roster.sources}
            if name in there:
                raise NameTaken(f"there is a source {name!r} already; choose another name")
            if name in line.roster.names_in_use:
                raise NameTaken(
                    f"the source {name!r} is still being removed; try again in a moment"
                )
            (source,) = open_sources(
                [url],
                name=name,
                taken=() if name else line.roster.names_used,  # who comes back says so
                max_frames=self._settings.max_frames,
                duration=self._settings.duration,
                live=replace(self._settings.live, credentials=None),
                environment={},
                decoder=self._decoder,
                decoder_threads=self._settings.decoder_threads,
                recorded=self._settings.recorded,
            )
            if source.name in line.roster.names_used:
                line.shown.change_of(source.name, OwnThresholds(), there)  # they were another's
            line.roster.join(source)
        return source.name

    def remove(self, name: str) -> None:
        """End a source and forget it; `UnknownSource` when there is none."""
        if not self._running().roster.leave(name):
            raise UnknownSource(f"there is no source {name!r}")

    def pause(self, name: str, paused: bool) -> None:
        """Disconnect a camera until further notice, or go on.

        Raises:
            UnknownSource: There is none of that name.
            ConfigError: It is a recording, which nothing hurries.
        """
        found = [source for source in self._running().roster.sources if source.name == name]
        if not found:
            raise UnknownSource(f"there is no source {name!r}")
        if not is_live(found[0]):
            raise ConfigError(f"{name!r} is a recording; only live sources can be paused")
        if paused:
            found[0].pause()
        else:
            found[0].resume()

    def set_threshold(self, value: float | None, by_class: Mapping[str, float]) -> None:
        """Choose what is shown from now on; `ConfigError` for an unknown class."""
        self._running().shown.change(value, by_class)

    def source_thresholds(self, name: str) -> OwnThresholds:
        """What a source has instead of the thresholds of the line."""
        return self._line.shown.own(name) if self._line else OwnThresholds()

    def set_source_threshold(
        self, name: str, value: float | None, by_class: Mapping[str, float] | None
    ) -> None:
        """Choose what is shown of one source from now on; None: what the line shows.

        Raises:
            UnknownSource: There is none of that name.
            ConfigError: The model knows no such class.
        """
        line = self._running()
        present = {source.name for source in line.roster.sources}
        if name not in present:
            raise UnknownSource(f"there is no source {name!r}")
        line.shown.change_of(name, OwnThresholds(value, by_class), present)

    def engine(self) -> Mapping[str, Any]:
        """Facts about the engine; nothing while there is none."""
        line = self._line
        if line is None:
            return {}
        engine = line.crew.engine
        each = list(map(engine_report, line.crew.engines, self._models, self._names))
        return each[0] | {
            "model": ", ".join(entry["model"] for entry in each),
            "calls": engine.calls,
            "busy_seconds": engine.busy_seconds,
            "silent_seconds": round(line.watch.silent_seconds, 1),
            "class_names": list(self._models[0].object_names),
            "threshold": line.shown.threshold,
            "class_thresholds": dict(line.shown.class_thresholds),
        }

    def latency_budget(self) -> Mapping[str, Any] | None:
        """What the report will say of the latency budget; None without one."""
        return self._line.governor.report() if self._line else None

    def readers_hanging(self) -> int:
        """Connections of cameras, also of removed ones, that hang where nobody can end them."""
        return ABANDONED.count

    def queues(self) -> Mapping[str, float]:
        """Items that wait behind each stage, by the stage's name."""
        line = self._line
        if line is None:
            return {}
        return {stage.name: float(stage.queue.held) for stage in line.graph.stats if stage.queue}

    def _running(self) -> RunningLine:
        if self._line is None:
            raise LineNotRunning("the line does not run yet; try again in a moment")
        if not self._is_running:
            raise LineNotRunning("the line has ended; try again if another one follows")
        return self._line
