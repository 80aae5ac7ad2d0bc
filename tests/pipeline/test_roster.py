"""Sources that leave a line, and sinks that fail in it: nothing is lost, nobody is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count

import pytest

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.tally import Tally
from pipeline.frame import Detections, Frame, Result
from pipeline.graph import Graph
from pipeline.roster import Roster
from pipeline.sources.delivery import Limits, deliver
from pipeline.sources.live.decoder import DecodeEffort
from tests.pipeline.frames import blank
from tests.waiting import until


class Source:
    """Frames at a pace of their own, or as many as there are."""

    is_images = False
    url = "nowhere"
    frame_count = None

    def __init__(self, name: str, frames: int | None = None, gap: float = 0.0) -> None:
        self.name, self.live, self.gap = name, frames is None, gap
        self.stats = SourceStats(name, live=self.live)
        self.closed = 0
        self.effort: DecodeEffort | None = None
        self._count, self._ended = frames, threading.Event()

    def frames(self) -> Iterator[Frame]:
        return deliver(self._made(), self.stats, Limits())

    def end(self) -> None:
        self._ended.set()

    def close(self) -> None:
        self.closed += 1

    def set_effort(self, effort: DecodeEffort) -> None:
        self.effort = effort

    def _made(self) -> Iterator[Frame]:
        picture = blank(32, 24).picture
        for index in count() if self._count is None else range(self._count):
            if self._ended.wait(self.gap):
                return
            yield Frame(picture, self.name, index, index, Fraction(1, 25), time.monotonic())


class Sink:
    """Takes its time, and fails when it is told to."""

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(self, name: str, seconds: float = 0.0, fails_at: int | None = None) -> None:
        self.name, self._seconds, self._fails_at = name, seconds, fails_at
        self.written: list[int] = []
        self.is_closed = False
        self._pause = threading.Event()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *error: object) -> None:
        self.is_closed = True

    def write(self, result: Result) -> None:
        self._pause.wait(self._seconds)
        if len(self.written) == self._fails_at:
            raise OSError("the disk is full")
        self.written.append(result.frame.index)


class Line:
    """A line of nothing but sources, books and sinks."""

    want_pictures = False

    def __init__(self, **sinks: list[Sink]) -> None:
        self.sinks, self.forgotten, self.complaints = sinks, list[str](), list[str]()
        self.shared_by = list[int]()
        self.tally = Tally([], ["car"], self.complaints.append)

    def of(self, source: Source) -> list[Sink]:
        return self.sinks[source.name]

    def may_stay_on_gpu(self, source: str) -> bool:
        return False

    def forget(self, name: str, tally: Tally) -> None:
        self.forgotten.append(name)

    @contextmanager
    def running(self, *sources: Source, stays: bool) -> Iterator[tuple[Roster, Graph]]:
        with Graph(in_bursts=not stays) as graph:
            inlet = graph.inlet(on_error=self.tally.source_failed)
            groups = iter(lambda: inlet.channel.take(1), [])
            results = (Result(frame, Detections.none()) for group in groups for frame in group)
            found = graph.stage(self.tally.found(results), name="detect")
            outlet = graph.outlet(found, name="draw")
            roster = Roster(graph, inlet, outlet, self, self.tally, self.shared_by.append)
            for source in sources:
                roster.join(source)
            roster.open(stays=stays)
            yield roster, graph
            graph.stop()
            sweep_until(roster, lambda: graph.wait(0.02))


def sweep_until(roster: Roster, condition: Callable[[], object]) -> None:
    def swept() -> object:
        roster.sweep()
        return condition()

    until(swept, 30)


@pytest.mark.parametrize("frames", range(21, 29))
def test_a_slow_sink_gets_the_last_frame_of_a_recording(frames):
    sink = Sink("slow", seconds=0.005)
    line, source = Line(drive=[sink]), Source("drive", frames)
    with line.running(source, stays=False) as (roster, graph):
        sweep_until(roster, lambda: graph.wait(0.0))
    assert sink.written == list(range(frames))
    assert not line.complaints


def test_what_a_removed_camera_has_delivered_is_written_before_it_is_forgotten():
    slow, other = Sink("slow", seconds=0.1), Sink("other")
    line = Line(door=[slow], yard=[other])
    door, yard = Source("door", gap=0.01), Source("yard", gap=0.01)
    with line.running(door, yard, stays=True) as (roster, _):
        sweep_until(roster, lambda: len(slow.written) >= 2)
        assert roster.leave("door")
        sweep_until(roster, lambda: line.forgotten)
        assert slow.is_closed
        assert slow.written[-1] == door.stats.frames_decoded - 1
        assert "door" not in line.tally.sources
    assert not line.complaints
    assert line.forgotten == ["door"] and door.closed == 1


def test_a_name_is_free_again_when_the_sinks_are_finished():
    line, door = Line(door=[Sink("slow", seconds=0.02)]), Source("door", gap=0.01)
    with line.running(door, stays=True) as (roster, _):
        sweep_until(roster, lambda: door.stats.frames_inferred >= 3)
        roster.leave("door")
        assert not roster.sources and roster.names_in_use == {"door"}
        sweep_until(roster, lambda: line.forgotten)
        assert not roster.names_in_use
        line.sinks["door"] = [Sink("again")]
        again = Source("door", gap=0.01)
        roster.join(again)
        sweep_until(roster, lambda: again.stats.frames_inferred >= 3)
    assert [stats.frames_inferred > 0 for stats in line.tally.all_sources] == [True, True]


def test_a_camera_with_a_failed_sink_can_be_removed_and_its_other_sink_is_finished():
    bad, good = Sink("bad", fails_at=3), Sink("good")
    line = Line(door=[bad, good], yard=[Sink("other")])
    door, yard = Source("door", gap=0.01), Source("yard", gap=0.01)
    with line.running(door, yard, stays=True) as (roster, _):
        sweep_until(roster, lambda: len(good.written) > 10)
        roster.leave("door")
        sweep_until(roster, lambda: line.forgotten)
        assert good.is_closed
    (complaint,) = line.complaints
    assert complaint.endswith(" output bad: OSError: the disk is full")


def test_how_many_share_the_engine_is_told_whenever_a_camera_joins_or_leaves():
    line = Line(door=[Sink("door")], yard=[Sink("yard")])
    with line.running(Source("door", gap=0.01), stays=True) as (roster, _):
        roster.join(Source("yard", gap=0.01))
        assert not roster.leave("gate")
        roster.leave("door")
        roster.leave("yard")
    assert line.shared_by == [1, 2, 1, 0]


def test_a_camera_that_joins_under_overload_is_decoded_with_as_little_effort_as_the_others():
    line = Line(door=[Sink("door")], yard=[Sink("yard")])
    door, yard = Source("door", gap=0.01), Source("yard", gap=0.01)
    with line.running(door, stays=True) as (roster, _):
        roster.set_effort(DecodeEffort.REFERENCES)
        roster.join(yard)
    assert door.effort is yard.effort is DecodeEffort.REFERENCES


def test_another_sink_takes_the_time_when_the_first_has_failed():
    bad, good = Sink("bad", fails_at=3), Sink("good")
    line, door = Line(door=[bad, good]), Source("door", gap=0.01)
    with line.running(door, stays=True) as (roster, _):
        sweep_until(roster, lambda: len(good.written) > 50)
    stats = door.stats
    assert 40 < stats.latency.count <= stats.frames_inferred + 1
    assert stats.fps is not None and stats.fps < 110


def test_what_failed_is_remembered_without_the_pictures_that_its_frames_hold():
    line = Line(door=[Sink("bad", fails_at=0), Sink("good")])
    with line.running(Source("door", gap=0.01), stays=True) as (roster, _):
        sweep_until(roster, lambda: line.tally.failed_sinks)
    (error,) = line.tally.failed_sinks.values()
    assert error.__traceback__ is None
