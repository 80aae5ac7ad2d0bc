"""Percentiles beside numpy's, and counts that add up."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bookkeeping.metrics import EVENTS_KEPT, LatencyHistogram, SourceStats
from pipeline.graph import Graph

durations = st.lists(st.floats(1e-4, 900), min_size=1, max_size=300)


def histogram_of(seconds: list[float]) -> LatencyHistogram:
    latency = LatencyHistogram()
    for duration in seconds:
        latency.add(duration)
    return latency


@given(durations, st.floats(1, 100))
def test_percentiles_are_within_two_and_a_half_percent_of_numpys(seconds, percent):
    exact = np.percentile(np.array(seconds) * 1e3, percent, method="inverted_cdf")
    assert histogram_of(seconds).percentile_ms(percent) == pytest.approx(exact, rel=0.026)


@given(durations)
def test_percentiles_rise_and_the_maximum_is_exact(seconds):
    report = histogram_of(seconds).report()
    values = [report[name] for name in ("p50", "p95", "p99", "max")]
    assert values == sorted(values)
    assert report["max"] == round(max(seconds) * 1e3, 2)


def test_before_the_first_duration_there_is_no_percentile():
    assert LatencyHistogram().report() == {"p50": None, "p95": None, "p99": None, "max": None}


@pytest.mark.parametrize("seconds", [0.0, -1e-9, 1e-9, 1e6])
def test_durations_beyond_the_buckets_are_counted_too(seconds):
    latency = histogram_of([seconds])
    assert latency.count == 1
    assert latency.percentile_ms(50) is not None


def test_memory_stays_flat():
    latency = histogram_of([0.01 * (1 + n % 100) for n in range(10_000)])
    assert latency.count == 10_000
    assert len(latency._buckets) == LatencyHistogram._BUCKETS


def test_what_is_neither_inferred_nor_dropped_is_in_flight():
    stats = SourceStats("a", frames_decoded=10, frames_inferred=4)
    stats.frames_dropped.update(queue_full=3, corrupt=1)
    assert stats.in_flight == 2


def test_the_counts_of_a_flooded_line_add_up_at_any_moment_and_at_the_end():
    stats = SourceStats("camera")
    seen_in_flight: list[int] = []

    def camera() -> Iterator[int]:
        for n in range(500):
            stats.frames_decoded += 1
            yield n

    with Graph() as graph:
        inlet = graph.inlet()
        inlet.join(
            "camera",
            camera(),
            when_full="drop_oldest",
            capacity=3,
            on_drop=lambda _: stats.frames_dropped.update(["queue_full"]),
        )
        inlet.close()
        for n, _ in enumerate(inlet.channel):
            stats.frames_inferred += 1
            seen_in_flight.append(stats.in_flight)
            if n % 10 == 0:
                threading.Event().wait(0.001)
    # Waiting in the lane, in the hands of the source, and one that is just being dropped.
    assert all(0 <= held <= 3 + 2 for held in seen_in_flight)
    assert stats.in_flight == 0
    assert stats.frames_inferred + stats.frames_dropped["queue_full"] == 500


def test_the_rate_is_frames_over_the_time_from_first_arrival_to_last_sunk():
    stats = SourceStats("a", frames_inferred=50, source_seconds=4.0)
    assert stats.fps is None
    assert stats.realtime_factor is None
    stats.latency = histogram_of([0.1] * 50)
    stats.first_arrival, stats.last_sunk = 100.0, 102.0
    assert stats.fps == 25.0
    assert stats.realtime_factor == 2.0


def test_frames_that_no_output_took_make_no_source_faster():
    stats = SourceStats("a", frames_inferred=500, source_seconds=20.0)
    stats.latency = histogram_of([0.1] * 50)  # then its only output failed
    stats.first_arrival, stats.last_sunk = 100.0, 102.0
    assert stats.fps == 25.0
    assert stats.realtime_factor == pytest.approx(1.0)


def test_who_sees_a_state_finds_its_event():
    states_before = []

    class Watched(SourceStats):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "events":
                states_before.append(self.state)
            super().__setattr__(name, value)

    stats = Watched("a")
    states_before.clear()
    stats.changed("FAILED", "refused")
    assert states_before == ["READY"]
    assert stats.state == stats.events[-1].state == "FAILED"


def test_what_one_thread_writes_another_reads_as_it_was():
    """Held by nobody's lock: a Python without its own runs both at once."""
    stats = SourceStats("a")
    stats.changed("CONNECTING")
    seen, rate = stats.events, stats.inferred_rate
    rate.add(1.0)
    stats.changed("RUNNING")
    assert [event.state for event in seen] == ["CONNECTING"]
    assert isinstance(stats.events, tuple)
    stats.frames_dropped.update(queue_full=2, stale=3)
    assert stats.dropped == 5
    for _ in range(EVENTS_KEPT):
        stats.changed("BACKOFF")
    assert len(stats.events) == EVENTS_KEPT
