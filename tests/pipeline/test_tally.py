"""The books of a run."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.bookkeeping.metrics import SinkStats, SourceStats
from pipeline.bookkeeping.tally import Checkout, Tally
from pipeline.errors import SinkError, StreamBroken
from pipeline.frame import Detections, Result
from pipeline.graph import Graph
from pipeline.sinks.null import NullSink
from tests.pipeline.frames import blank


def result(source: str, index: int = 0) -> Result:
    nothing = Detections(
        np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
    )
    return Result(blank(2, 2, source=source, index=index), nothing)


class Lossy(NullSink):
    """A sink that lost something by itself."""

    name = "lossy:"
    frames = 7

    def __init__(self) -> None:
        self.dropped = {"unreachable": 3}


def test_what_sinks_of_one_name_lost_is_kept_apart_by_source():
    tally = Tally([SourceStats("a"), SourceStats("b")], ["car"], print)
    for source in "aab":
        tally.sink_dropped("null:", result(source))
    lost = [tally.sink_stats(source, NullSink("null:")).frames_dropped for source in "abc"]
    assert lost == [{"queue_full": 2}, {"queue_full": 1}, {}]


def test_what_a_sink_drops_itself_is_added_to_what_it_could_not_take_in_time():
    tally = Tally([SourceStats("a")], ["car"], print)
    sink = Lossy()
    tally.sink_dropped(sink.name, result("a"))
    lost = {"unreachable": 3, "queue_full": 1}
    assert tally.sink_stats("a", sink) == SinkStats("a", "lossy:", 7, lost, None)
    tally.sink_failed("write lossy:", SinkError("the disk is full"))
    assert tally.sink_stats("a", sink).error == "the disk is full"
    assert sink.dropped == {"unreachable": 3}


def test_frames_that_a_graph_does_not_vouch_for_are_an_anomaly_of_their_source():
    tally = Tally([SourceStats("a"), SourceStats("b")], ["car"], print)
    for index in range(2):
        tally.inexact(blank(2, 2, source="a", index=index))
    assert [dict(stats.anomalies) for stats in tally.all_sources] == [{"inexact": 2}, {}]


def test_a_source_is_known_by_its_stage_when_it_fails():
    complaints = list[str]()
    tally = Tally([SourceStats("read cam")], ["car"], complaints.append)
    tally.source_failed("read read cam", StreamBroken("the camera is gone"))
    assert list(tally.failed_sources) == ["read cam"]
    assert tally.sources["read cam"].state == "FAILED"
    (complaint,) = complaints
    day, hour, sentence = complaint.split(" ", 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", f"{day} {hour}")
    assert sentence == "source read cam: the camera is gone"


def test_what_cannot_be_written_beside_the_sinks_fails_as_they_do():
    complaints = list[str]()
    tally = Tally([], ["car"], complaints.append)
    with tally.writing("report"):
        raise SinkError("the disk is full")
    assert [complaint.split(" ", 2)[2] for complaint in complaints] == [
        "output report: the disk is full"
    ]
    assert [error.exit_code for error in tally.failed_sinks.values()] == [5]


def test_what_the_stages_did_is_kept_though_one_of_them_has_ended_the_line():
    tally = Tally([], ["car"], print)

    def breaks() -> Iterator[int]:
        yield from range(3)
        raise RuntimeError("no such device")

    for _ in range(2):
        with pytest.raises(RuntimeError), tally.running(Graph()) as graph:
            list(graph.stage(graph.stage(breaks(), name="infer"), name="detect"))
    assert [stage.items for stage in tally.stages if stage.name == "infer"] == [3, 3]


def test_a_frame_is_counted_once_though_a_second_sink_takes_over_the_clock():
    stats, sinks = SourceStats("a"), (NullSink("first"), NullSink("second"))
    checkout = Checkout(stats, sinks)
    first = checkout.write((result("a", index) for index in range(5)), sinks[0])
    for _ in range(3):
        next(first)
    first.close()  # it has failed
    list(checkout.write((result("a", index) for index in range(5)), sinks[1]))
    assert stats.latency.count == 5


def test_the_picture_of_a_camera_shows_the_rate_of_the_last_seconds():
    stats, now = SourceStats("a", live=True, state="RUNNING"), time.monotonic()
    stats.first_arrival, stats.last_sunk = now - 3600, now
    for ago in range(110):  # after an hour without a picture
        stats.inferred_rate.add(now - 11 + ago / 10)
        stats.latency.add(0.02)
    tally = Tally([stats], ["car"], print)
    assert float(tally.hud(result("a"))[0].removesuffix(" fps")) == pytest.approx(10, abs=0.2)
    stats.state = "STALLED"
    assert tally.hud(result("a"))[0] == "- fps"
    stats.live = False
    assert tally.hud(result("a"))[0] == "0.0 fps"
