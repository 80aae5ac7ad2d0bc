"""When a batch leaves, and with whose frames."""

from __future__ import annotations

import threading

from pipeline.batch import batches
from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.tally import Tally
from pipeline.channel import Channel
from pipeline.frame import Frame
from pipeline.pace import Pace
from pipeline.settings import EngineSettings, Settings
from tests.pipeline.frames import blank


def closed_channel(counts: list[int]) -> Channel[Frame]:
    """One lane for each source, with so many frames, all delivered."""
    channel = Channel[Frame](capacity=max(counts), lanes=len(counts))
    for lane, count in enumerate(counts):
        for index in range(count):
            channel.put(blank(2, 2, source="abc"[lane], index=index), lane)
        channel.close(lane)
    return channel


def recorded(patience_seconds: float) -> Pace:
    """The pace of a line without cameras."""
    tally = Tally([SourceStats(name) for name in "abc"], ["car"], print)
    return Pace(tally, Settings(engine=EngineSettings(batch_wait_seconds=patience_seconds)))


def names(groups: list[list[Frame]]) -> list[list[str]]:
    return [[f"{frame.source}{frame.index}" for frame in group] for group in groups]


def test_batches_are_full_until_the_last_one() -> None:
    groups = list(batches(closed_channel([10]), size=4, pace=recorded(60)))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert names(groups)[1] == ["a4", "a5", "a6", "a7"]


def test_a_batch_takes_from_the_sources_in_turn() -> None:
    groups = batches(closed_channel([4, 2]), size=3, pace=recorded(60))
    assert names(list(groups)) == [["a0", "b0", "a1"], ["b1", "a2", "a3"]]


def test_no_frames_give_no_batches() -> None:
    channel = Channel[Frame](capacity=1)
    channel.close()
    assert list(batches(channel, size=4, pace=recorded(60))) == []


def test_a_partial_batch_leaves_when_its_time_is_up() -> None:
    channel = Channel[Frame](capacity=8)
    channel.put(blank(2, 2))
    group = next(batches(channel, size=4, pace=recorded(0.01)))  # the source is alive, but silent
    assert names([group]) == [["a0"]]


def test_a_batch_is_not_kept_waiting_by_a_source_that_ended() -> None:
    channel = Channel[Frame](capacity=1, lanes=2)
    channel.close(1)
    channel.put(blank(2, 2), 0)
    assert (
        len(next(batches(channel, size=4, pace=recorded(60)))) == 1
    )  # lane 0 is full, lane 1 closed


def test_a_frame_that_comes_in_time_joins_the_batch() -> None:
    channel = Channel[Frame](capacity=8)
    channel.put(blank(2, 2, index=0))
    late = threading.Thread(target=lambda: channel.put(blank(2, 2, index=1)))
    groups = batches(channel, size=2, pace=recorded(60))
    late.start()
    assert names([next(groups)]) == [["a0", "a1"]]
    late.join()
