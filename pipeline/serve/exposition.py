"""Counters for Prometheus, read from the line at the moment somebody asks.

Nothing is kept here: what a source no longer says is no longer exported, so a dead camera
leaves no rate behind. Labels are names of sources, and of outputs as the report shows them,
without secrets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pipeline.bookkeeping.metrics import LatencyHistogram, SinkStats, SourceStats, State
from pipeline.governor import LADDER
from pipeline.serve.board import Board
from pipeline.serve.control import Control

STATES: tuple[str, ...] = get_args(State)
_BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2.5, 5, 10)

Labelled = Iterable[tuple[Sequence[str], float | None]]


def metrics_text(board: Board, control: Control) -> bytes:
    """Everything in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Line(board, control))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Line(Collector):
    """What a line and its page count."""

    def __init__(self, board: Board, control: Control) -> None:
        self._board, self._control = board, control

    def collect(self) -> Iterator[Metric]:
        sources = list(self._control.sources())
        yield from _frames(sources)
        yield from _connections(sources)
        latencies = {stats.name: stats.latency for stats in sources}
        yield _durations("latency", "From the decoder to the first output.", latencies)
        transits = {stats.name: stats.transit for stats in sources if stats.transit.count}
        yield _durations("transit", "From the camera, by its clock, to the decoder.", transits)
        glasses = {s.name: s.glass_to_sink for s in sources if s.glass_to_sink.count}
        yield _durations("glass_to_sink", "From a clock in the picture to the output.", glasses)
        yield from _sinks(self._control.sinks())
        yield from self._machine()

    def _machine(self) -> Iterator[Metric]:
        engine = self._control.engine()
        if engine:
            yield _counter("engine_calls", "Calls of the engine.", [], [((), engine.get("calls"))])
            busy = [((), engine.get("busy_seconds"))]
            yield _counter("engine_busy_seconds", "Time the engine worked.", [], busy)
            silent = [((), engine.get("silent_seconds"))]
            yield _gauge("engine_silent_seconds", "How long it has owed an answer.", [], silent)
            facts = [str(engine.get(key, "")) for key in ("name", "precision", "model")]
            labels = ["engine", "precision", "model"]
            yield _gauge("engine_info", "Which engine runs; always 1.", labels, [(facts, 1)])
        yield from _budget(self._control.latency_budget())
        hanging = [((), self._control.readers_hanging())]
        yield _gauge("readers_hanging", "Connections given up that do not end.", [], hanging)
        waiting = [([name], depth) for name, depth in self._control.queues().items()]
        yield _gauge("queue_depth", "Items that wait.", ["queue"], waiting)
        viewers = [((), self._board.viewers)]
        yield _gauge("page_viewers", "Streams of pictures that are being sent.", [], viewers)


def _frames(sources: Sequence[SourceStats]) -> Iterator[Metric]:
    each = ["source"]
    decoded = [([s.name], s.frames_decoded) for s in sources]
    yield _counter("frames_decoded", "Pictures that the decoder gave.", each, decoded)
    inferred = [([s.name], s.frames_inferred) for s in sources]
    yield _counter("frames_inferred", "Pictures that went through the engine.", each, inferred)
    dropped = [
        ([s.name, cause], n) for s in sources for cause, n in s.frames_dropped.copy().items()
    ]
    yield _counter("frames_dropped", "Pictures left out.", ["source", "cause"], dropped)
    odd = [([s.name, kind], n) for s in sources for kind, n in s.anomalies.copy().items()]
    yield _counter("anomalies", "What was put right on the way.", ["source", "kind"], odd)
    flying = [([s.name], s.in_flight) for s in sources]
    yield _gauge("frames_in_flight", "Decoded, and not through yet.", each, flying)
    rates = [([s.name], s.recent_fps) for s in sources]
    yield _gauge("source_fps", "Inferred per second, while the source runs.", each, rates)
    offers = [([s.name], s.offered_fps if s.state == "RUNNING" else None) for s in sources]
    yield _gauge("source_offered_fps", "Pictures per second that the source offers.", each, offers)


def _connections(sources: Sequence[SourceStats]) -> Iterator[Metric]:
    each, now = ["source"], time.monotonic()
    one_hot = [([s.name, state], float(s.state == state)) for s in sources for state in STATES]
    yield _gauge("source_state", "1 for the state it is in.", ["source", "state"], one_hot)
    again = [([s.name], max(0, s.connections - 1)) for s in sources]
    yield _counter("source_reconnects", "Connections after the first.", each, again)
    failed = [([s.name, cause], n) for s in sources for cause, n in s.failures.copy().items()]
    yield _counter("source_failures", "Why connections failed.", ["source", "cause"], failed)
    ages = [([s.name], now - s.last_frame if s.last_frame else None) for s in sources]
    yield _gauge("source_last_frame_age_seconds", "Since the last good frame.", each, ages)


def _sinks(sinks: Sequence[SinkStats]) -> Iterator[Metric]:
    each = ["source", "sink"]
    by_name = {(s.source, s.name): s for s in sinks}  # two of one name (null:) are told as one
    written = [(name, s.frames) for name, s in by_name.items()]
    yield _counter("sink_frames", "Results that the output took.", each, written)
    lost = [((*at, cause), n) for at, s in by_name.items() for cause, n in s.frames_dropped.items()]
    yield _counter("sink_frames_dropped", "Results lost to the output.", [*each, "cause"], lost)
    failed = [(name, float(s.error is not None)) for name, s in by_name.items()]
    yield _gauge("sink_failed", "1 for an output that has failed.", each, failed)


def _budget(budget: Mapping[str, Any] | None) -> Iterator[Metric]:
    if budget is None:
        return
    most = [((), budget["budget_ms"] / 1e3)]
    yield _gauge("latency_budget_seconds", "What 95 of 100 frames may take.", [], most)
    kept = [((), budget["kept"])]
    yield _gauge("latency_budget_kept_ratio", "Share of the time since the start.", [], kept)
    # What depends on the model file is told from the first time on that it is given up.
    steps = dict.fromkeys([*(step.words for step in LADDER), *budget["seconds_given_up"]])
    now = [([words], float(words == budget["given_up"])) for words in steps]
    yield _gauge("latency_budget_given_up", "1 for what is given up to keep it.", ["what"], now)


def _durations(name: str, what: str, measured: Mapping[str, LatencyHistogram]) -> Metric:
    family = HistogramMetricFamily(f"boxstream_{name}_seconds", what, labels=["source"])
    for source, durations in measured.items():
        below = durations.counts_below((*_BOUNDS_SECONDS, 1e9))
        bounds = [*map(str, map(float, _BOUNDS_SECONDS)), "+Inf"]
        counts = list(zip(bounds, map(float, below), strict=True))
        family.add_metric([source], counts, durations.total_seconds)
    return family


def _counter(name: str, what: str, labels: Sequence[str], values: Labelled) -> Metric:
    return _filled(CounterMetricFamily(f"boxstream_{name}", what, labels=labels), values)


def _gauge(name: str, what: str, labels: Sequence[str], values: Labelled) -> Metric:
    return _filled(GaugeMetricFamily(f"boxstream_{name}", what, labels=labels), values)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Labelled
) -> CounterMetricFamily | GaugeMetricFamily:
    """Add what is known; what is None is left out, not 0."""
    for labels, value in values:
        if value is not None:
            family.add_metric(list(labels), value)
    return family
