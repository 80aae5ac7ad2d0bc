"""The report of a run: what was done, how fast, on what; as JSON.

The layout is versioned (``schema``) and documented in README.md beside this file.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.bookkeeping.metrics import SourceStats, StageStats
from pipeline.bookkeeping.tally import Tally
from pipeline.engines import Engine
from pipeline.errors import ConfigError, SinkError, reason
from pipeline.machine import machine
from pipeline.model_file.reading import ModelFile

_NAME = "boxstream.report/"
SCHEMA = f"{_NAME}1"


class Reporting(Protocol):
    """A sink that can say what became of its output."""

    name: str

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes and whatever else is worth knowing."""
        ...


@dataclass
class Finished:
    """What remains of a closed sink, for the report."""

    name: str
    entry: dict[str, Any]

    @classmethod
    def of(cls, sink: Reporting, tally: Tally) -> Finished:
        """Ask it for the last time."""
        return cls(sink.name, sink_report(sink, tally))

    def report(self) -> dict[str, Any]:
        """What it said, and the books."""
        return self.entry


def told_apart(entries: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Entries by name, oldest first; those before the last of a name are ``NAME~1``, ``NAME~2``...

    A camera that came back under its name is there twice, and so are its outputs.
    """
    entries, seen = list(entries), Counter[str]()
    times = Counter(name for name, _ in entries)
    told = {}
    for name, entry in entries:
        seen[name] += 1
        told[name if seen[name] == times[name] else f"{name}~{seen[name]}"] = entry
    return told


def source_report(stats: SourceStats) -> dict[str, Any]:
    """One source's entry; rates are null when there was too little to measure."""
    return {
        "state": stats.state,
        "error": stats.error,
        "frames_decoded": stats.frames_decoded,
        "frames_inferred": stats.frames_inferred,
        "frames_dropped": dict(stats.frames_dropped),
        "frames_in_flight": stats.in_flight,
        "anomalies": dict(stats.anomalies),
        "fps": _rounded(stats.fps, 2),
        "offered_fps": _rounded(stats.offered_fps, 3),
        "realtime_factor": _rounded(stats.realtime_factor, 3),
        "latency_ms": stats.latency.report(),
        "decoder": stats.decoded_by._asdict() if stats.decoded_by else None,
        **pixels_report(stats),
        **(live_report(stats) if stats.live else {}),
    }


def pixels_report(stats: SourceStats) -> dict[str, Any]:
    """What only a model that knows every pixel has to tell: mean shares of the picture."""
    if not stats.pixels.frames:
        return {}
    return {"class_shares": {name: round(mean, 4) for name, mean in stats.pixels.mean().items()}}


def live_report(stats: SourceStats) -> dict[str, Any]:
    """What only a camera has to tell: its connections, and why they broke."""
    return {
        "recent_fps": _rounded(stats.recent_fps, 2),
        "transit_ms": stats.transit.report(),
        "glass_to_sink_ms": stats.glass_to_sink.report(),
        "connections": stats.connections,
        "failures": dict(stats.failures),
        "events": [
            {
                "time": round(event.wall_time, 3),
                "state": event.state,
                "cause": event.cause,
                "detail": event.detail,
            }
            for event in stats.events
        ],
    }


def stage_reports(stages: Iterable[StageStats]) -> dict[str, Any]:
    """Entries by stage name; stages of one name (one for each source) are added up."""
    entries: dict[str, Any] = {}
    for stage in stages:
        entry = entries.setdefault(stage.name, {"items": 0, "busy_seconds": 0.0, "queue_mean": 0.0})
        entry["items"] += stage.items
        entry["busy_seconds"] = round(entry["busy_seconds"] + stage.busy_seconds, 4)
        entry["queue_mean"] = round(max(entry["queue_mean"], stage.queue_mean), 2)
    return entries


def engine_report(engine: Engine, model: ModelFile, model_name: str) -> dict[str, Any]:
    """The report's entry on the engine; `model_name` is what the user calls `model`."""
    return {
        "name": engine.name,
        "precision": engine.precision,
        "reason": engine.reason,
        "model": name_run(engine, model, model_name),
        "input_size_hw": list(model.input_size_hw),
        "batch": engine.batch,
        "load_seconds": round(engine.load_seconds, 3),
    }


def name_run(engine: Engine, model: ModelFile, asked: str) -> str:
    """What the file that the engine runs is called, as the user has called the model: name or path.

    Args:
        engine: Runs it, or its form in int8.
        model: What it was given.
        asked: What the user calls that.
    """
    if engine.model.path == model.path:
        return asked
    return str(engine.model.path) if Path(asked).suffix else engine.model.path.stem


def engine_reports(
    engines: Sequence[Engine], models: Sequence[ModelFile], names: Sequence[str]
) -> dict[str, Any]:
    """The entry on the first engine; that on the second, if there is one, is ``beside`` in it."""
    first, *others = map(engine_report, engines, models, names)
    return first | ({"beside": others[0]} if others else {})


def infer_report(engines: Sequence[Engine], stages: Sequence[StageStats]) -> dict[str, Any]:
    """The report's entries on inference, whose work is the engines', not its thread's."""
    entries = stage_reports(stage for stage in stages if stage.name == "infer")
    if not entries:
        return {}
    return {
        name: entries["infer"]
        | {"calls": engine.calls, "busy_seconds": round(engine.busy_seconds, 4)}
        for name, engine in zip(("infer", "infer beside"), engines, strict=False)
    }


def told_by(sink: Reporting) -> dict[str, Any]:
    """What a sink reports; ``error`` says why that is little."""
    try:
        return sink.report()
    except OSError as error:  # somebody has taken away its files, or the right to look at them
        return {"path": sink.name, "error": f"cannot look at what is there: {reason(error)}"}


def sink_report(sink: Reporting, tally: Tally) -> dict[str, Any]:
    """What a sink reports, and what the books know of it."""
    entry = told_by(sink)
    entry["error"] = tally.sink_error(sink.name) or entry.get("error")
    if lost := sum(n for (_, name), n in tally.sink_drops.items() if name == sink.name):
        entry["frames_dropped"] = lost
    return entry


def sink_reports(sinks: Iterable[Reporting], tally: Tally) -> dict[str, Any]:
    """The report's entries on the sinks, by name; see `told_apart`."""
    return told_apart(
        (sink.name, sink.entry if isinstance(sink, Finished) else sink_report(sink, tally))
        for sink in sinks
    )


def paced_by(stages: Mapping[str, Any]) -> str | None:
    """The station that was busy the longest: the one to make faster, if any."""
    return max(stages, key=lambda name: stages[name]["busy_seconds"], default=None)


def build_report(
    *,
    wall_seconds: float,
    engine: Mapping[str, Any],
    sources: Sequence[SourceStats],
    sinks: Mapping[str, Any],
    stages: Mapping[str, Any],
    truth: Mapping[str, Any] | None,
    latency_budget: Mapping[str, Any] | None = None,
    interrupted: str | None,
    error: str | None = None,
) -> dict[str, Any]:
    """Put the parts together; ``truth`` is the AP against known boxes, when there are any.

    What ended the run before its time is ``interrupted``, a signal, or ``error``, an engine's.
    """
    frames = sum(stats.frames_inferred for stats in sources)
    return {
        "schema": SCHEMA,
        "wall_seconds": round(wall_seconds, 4),
        "interrupted": interrupted,
        "error": error,
        "engine": dict(engine),
        "sources": told_apart((stats.name, source_report(stats)) for stats in sources),
        "sinks": dict(sinks),
        "stages": dict(stages),
        "totals": {
            "frames": frames,
            "fps": round(frames / wall_seconds, 2) if wall_seconds > 0 else None,
            "paced_by": paced_by(stages),
        },
        "latency_budget": None if latency_budget is None else dict(latency_budget),
        "truth": None if truth is None else dict(truth),
        "machine": machine(),
    }


def try_report(path: str) -> None:
    """Make sure that the report can be written when the run is over; what is there stays.

    Raises:
        ConfigError: That is something else than an older report, such as the recording.
        SinkError: Nothing can be written there.
    """
    place = Path(path)
    with _writing(path):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if place.is_file():
            with place.open("rb+") as file:
                begin = file.read(100)
            if begin and _NAME.encode() not in begin:
                raise ConfigError(
                    f"report: {path!r} is there and is no report; choose another --report"
                )
        elif not place.exists():  # a pipe or a terminal is not tried: its reader would notice
            end = place.resolve()  # of a link that leads nowhere yet
            end.touch()
            end.unlink()


def write_report(report: Mapping[str, Any], path: str) -> None:
    """Write the report as JSON, creating the folder; `SinkError` when that fails."""
    with _writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(report, indent=2) + "\n")


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SinkError(
            f"cannot write the report to {path}: {error.strerror}; choose another --report"
        ) from error


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
