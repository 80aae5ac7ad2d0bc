"""The state of things as the API and the page get it: one description for both."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipeline.bookkeeping.metrics import Event, SourceStats, State
from pipeline.frame import Result
from pipeline.serve.board import Board, Feed
from pipeline.serve.control import Control

EVENTS_SHOWN = 20  # of each source
_OUTAGE = {"CONNECTING", "STALLED", "BACKOFF"}


class EventView(BaseModel):
    """A change of a source's state."""

    wall_time: float
    state: State
    cause: str | None
    detail: str


class SightingView(BaseModel):
    """When a class was seen last, how many of it, and how sure."""

    label: str
    wall_time: float
    count: int
    score: float


class SourceView(BaseModel):
    """One source.

    `since`, `cause` and `detail` explain the state; an outage goes on while attempts to connect
    come and go. `fps` counts inferred frames and is null unless the source runs. `latency_ms` is
    from the decoder to the page, over the last ten seconds; `transit_ms` from the camera to the
    decoder, by the camera's clock, since the start, null if it tells none; `glass_to_sink_ms`
    by a clock painted in the pictures, null if none is read. `picture_age_seconds`
    is that of the newest picture that can be shown. `threshold` and `class_thresholds` are its own,
    null where those of the line count.
    """

    name: str
    state: State
    since: float | None
    cause: str | None
    detail: str
    fps: float | None
    offered_fps: float | None
    latency_ms: dict[str, float] | None
    transit_ms: dict[str, float | None] | None
    glass_to_sink_ms: dict[str, float | None] | None
    frames_decoded: int
    frames_inferred: int
    frames_in_flight: int
    frames_dropped: dict[str, int]
    anomalies: dict[str, int]
    connections: int
    failures: dict[str, int]
    picture_age_seconds: float | None
    threshold: float | None
    class_thresholds: dict[str, float] | None
    size_hw: tuple[int, int] | None
    zones: dict[str, dict[str, int]] | None
    sightings: list[SightingView]
    events: list[EventView]


class SinkView(BaseModel):
    """One output of a source; `error` says why it has failed, `frames_dropped` has causes."""

    source: str
    name: str
    frames: int
    frames_dropped: dict[str, int]
    error: str | None


class StateView(BaseModel):
    """Everything the page shows besides the pictures; `latency_budget` is as in the report."""

    wall_time: float
    engine: dict[str, Any]
    latency_budget: dict[str, Any] | None
    queues: dict[str, float]
    sources: list[SourceView]
    sinks: list[SinkView]


def see_everything(board: Board, control: Control) -> StateView:
    """The state of things now."""
    budget = control.latency_budget()
    return StateView(
        wall_time=time.time(),
        engine=dict(control.engine()),
        latency_budget=None if budget is None else dict(budget),
        queues=dict(control.queues()),
        sources=see_sources(board, control),
        sinks=[SinkView(**vars(stats)) for stats in control.sinks()],
    )


def see_sources(board: Board, control: Control, only: str | None = None) -> list[SourceView]:
    """The sources now, in their order, or the one of that name."""
    return [
        _see_source(stats, board.feed(stats.name), *control.source_thresholds(stats.name))
        for stats in control.sources()
        if only in (None, stats.name)
    ]


def _see_source(
    stats: SourceStats,
    feed: Feed | None,
    threshold: float | None,
    class_thresholds: Mapping[str, float] | None,
) -> SourceView:
    events = stats.events
    since, cause, detail = _explained(events, stats.state)
    shot = feed.shot if feed else None
    return SourceView(
        name=stats.name,
        state=stats.state,
        since=since,
        cause=cause,
        detail=detail or stats.error or "",
        fps=stats.recent_fps,
        offered_fps=stats.offered_fps,
        latency_ms=feed.latency_ms() if feed else None,
        transit_ms=stats.transit.report() if stats.transit.count else None,
        glass_to_sink_ms=stats.glass_to_sink.report() if stats.glass_to_sink.count else None,
        frames_decoded=stats.frames_decoded,
        frames_inferred=stats.frames_inferred,
        frames_in_flight=stats.in_flight,
        frames_dropped=dict(stats.frames_dropped),
        anomalies=dict(stats.anomalies),
        connections=stats.connections,
        failures=dict(stats.failures),
        picture_age_seconds=round(shot.age, 3) if shot else None,
        threshold=threshold,
        class_thresholds=None if class_thresholds is None else dict(class_thresholds),
        size_hw=shot.result.frame.size_hw if shot else None,
        zones=_zones(shot.result) if shot else None,
        sightings=_sightings(feed) if feed else [],
        events=[EventView(**vars(event)) for event in events[-EVENTS_SHOWN:]],
    )


def _explained(events: Sequence[Event], state: State) -> tuple[float | None, str | None, str]:
    """Since when a source is as it is, and why: its cause and the sentence for that.

    Attempts to connect and the pauses between them are one outage, which begins with the first.
    """
    alike = _OUTAGE if state in _OUTAGE else {state}
    recent = list(itertools.takewhile(lambda event: event.state in alike, reversed(events)))
    if not recent:
        return None, None, ""
    why = next((event for event in recent if event.cause), recent[0])
    return recent[-1].wall_time, why.cause, why.detail


def _zones(result: Result) -> dict[str, dict[str, int]] | None:
    """Objects by zone and class in one picture."""
    if result.zones is None:
        return None
    return {name: dict(counts) for name, counts in result.zones.items()}


def _sightings(feed: Feed) -> list[SightingView]:
    """The classes seen in a source, the latest first."""
    views = [
        SightingView(label=label, wall_time=s.wall_time, count=s.count, score=round(s.score, 4))
        for label, s in feed.sightings.items()
    ]
    return sorted(views, key=lambda view: view.wall_time, reverse=True)
