"""The books of a run."""

from __future__ import annotations

import numpy as np

from pipeline.errors import SinkError
from pipeline.frame import Detections, Result
from pipeline.metrics import SinkStats, SourceStats
from pipeline.sinks.null import NullSink
from pipeline.tally import Tally
from tests.pipeline.frames import blank


def result(source: str) -> Result:
    nothing = Detections(
        np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
    )
    return Result(blank(2, 2, source=source), nothing)


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
