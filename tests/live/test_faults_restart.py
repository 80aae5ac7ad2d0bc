"""Cameras that die and come back, the same or another."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from pipeline.garbage import Garbage
from pipeline.sources.live.connection import CameraConnection
from pipeline.sources.live.mailbox import Mailbox
from pipeline.sources.live.reader import Reader
from tests.alone import alone
from tests.benchmarks.cost import resident_mb
from tests.collector import without_collector
from tests.live.kit.cameras import CameraServer, why_no_cameras
from tests.live.kit.watching import Watcher
from tests.waiting import until

RESTARTS = 50


def test_a_killed_camera_is_back_soon_after_it_is_up(cameras):
    camera = cameras.add(size=(160, 120))
    with Watcher(camera.url) as watcher:
        watcher.wait_frames(10)
        cameras.kill()
        until(lambda: watcher.stats.state in ("BACKOFF", "CONNECTING"), 10)
        watcher.wait_failure("refused")
        cameras.start()
        took = until(lambda: watcher.stats.connections == 2, 20, "a second connection")
        watcher.wait_frames(5)
        assert took < 10
        assert [frame.generation for frame in watcher.seen] == sorted(
            frame.generation for frame in watcher.seen
        )
        assert_times_rise(watcher)
        pause = max(b.pts_seconds - a.pts_seconds for a, b in itertools.pairwise(watcher.seen))
        waited = max(b.at - a.at for a, b in itertools.pairwise(watcher.seen))
        assert pause == pytest.approx(waited, abs=2.0), "the clock did not go on meanwhile"


@pytest.mark.parametrize("busy", [False, True])
def test_a_broken_connection_leaves_nothing_to_the_garbage_collector(cameras, busy, monkeypatch):
    """What would wait for it is megabytes: a decoder with its pictures."""
    if busy:  # then a reader ends a moment after the source has turned to the next
        monkeypatch.setattr("pipeline.sources.live.camera._PATIENCE_WITH_READERS", 0.0)
    camera = cameras.add(size=(160, 120))
    with Watcher(camera.url) as watcher, without_collector():
        watcher.wait_frames(5)
        begin = held()
        for _ in range(3):
            cameras.hang_up()
            watcher.wait_frames(5)
        cameras.kill()
        watcher.wait_failure("refused", times=2)
        cameras.start()
        watcher.wait_frames(5)
        watcher.source.pause()
        watcher.wait_state("PAUSED")
        watcher.source.resume()
        watcher.wait_frames(5)
        assert watcher.stats.connections == 6
        until(lambda: held() <= begin, 5, f"of {begin} and no more, but {held()}")


def held() -> Counter[str]:
    """How many there are of what a connection consists of."""
    kinds = (InputContainer, VideoCodecContext, Packet, CameraConnection, Reader, Mailbox)
    types = map(type, gc.get_objects())  # not isinstance, which asks objects that pretend
    return Counter(kind.__name__ for kind in types if kind in kinds)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_camera_that_is_killed_fifty_times_is_back_every_time_and_leaves_nothing_behind():
    missing = why_no_cameras()
    if missing:
        pytest.skip(missing)
    notes = alone(fifty_restarts)
    waited = [note.waited_seconds for note in notes]
    assert statistics.median(waited) < 2.5, f"from listening to the first picture: {waited}"
    counted = [1, *(note.connections for note in notes)]
    assert all(later > earlier for earlier, later in itertools.pairwise(counted))
    assert counted[-1] <= RESTARTS + 3, f"a return was counted twice, or did not last: {counted}"
    assert_flat([note.threads for note in notes], 1)
    assert_flat([note.descriptors for note in notes], 3)
    assert_flat([note.megabytes for note in notes], 3)


@dataclass(frozen=True)
class Note:
    """How things stand when a camera is back."""

    waited_seconds: float
    connections: int
    threads: int
    descriptors: int
    megabytes: float


def fifty_restarts() -> list[Note]:
    """Kill a camera's whole server again and again; what is noted at the first picture of each.

    The back-off is that of every camera. Only what it takes for a good connection, which ten
    seconds of pictures are, is scaled down to a moment, as the test cannot wait for them. What
    FFmpeg's pieces leave between what is used is given back as it is in a line.
    """
    notes = []
    with CameraServer() as server, Garbage() as garbage:
        camera = server.add(size=(160, 120))
        with Watcher(camera.url + "#stable_seconds=0.2") as watcher:
            for _ in range(RESTARTS):
                watcher.wait_frames(10)
                server.kill()
                server.start()
                waited = watcher.wait_generation(watcher.seen[-1].generation + 1)
                garbage.collect()
                opened = len(os.listdir("/proc/self/fd"))
                notes.append(
                    Note(
                        waited,
                        watcher.stats.connections,
                        threading.active_count(),
                        opened,
                        resident_mb(),
                    )
                )
            assert_times_rise(watcher)
    return notes


def assert_flat(values: Sequence[float], tolerance: float) -> None:
    """The second half is no more than that above the first, once that has warmed up."""
    half = len(values) // 2
    first, second = values[half // 2 : half], values[half:]
    grown = statistics.median(second) - statistics.median(first)
    assert grown <= tolerance, f"grew by {grown}: {values}"


@pytest.mark.parametrize(
    "change",
    [
        {"size": (320, 240)},
        {"size": (120, 160), "fps": 10},
        {"codec": "mjpeg", "size": (160, 128)},
    ],
    ids=["size", "shape and rate", "codec"],
)
def test_a_camera_may_come_back_with_another_picture(cameras, change):
    camera = cameras.add(size=(176, 144))
    with Watcher(camera.url) as watcher:
        watcher.wait_frames(10)
        cameras.kill()
        width, height = change["size"]
        camera.options |= {"width": width, "height": height}
        camera.options |= {key: value for key, value in change.items() if key != "size"}
        cameras.start()
        until(lambda: watcher.seen[-1].generation >= 2, 30, "a frame of the new connection")
        watcher.wait_frames(5)
        sizes = [frame.size_wh for frame in watcher.seen if frame.generation == 1]
        assert set(sizes) == {(176, 144)}
        new = [frame for frame in watcher.seen if frame.generation >= 2]
        assert {frame.size_wh for frame in new} == {change["size"]}
        assert all(frame.fault < 12 for frame in watcher.seen)
        assert watcher.source.size_hw == (height, width)
        assert_times_rise(watcher)


def test_frames_of_an_old_connection_do_not_come_after_those_of_a_new_one(cameras):
    camera = cameras.add(size=(160, 120))
    with Watcher(camera.url, call_seconds=0.2) as watcher:
        for _ in range(3):
            watcher.wait_frames(3)
            before = watcher.stats.connections
            cameras.hang_up()
            until(lambda before=before: watcher.stats.connections > before, 20)
        watcher.wait_frames(3)
        generations = [frame.generation for frame in watcher.seen]
        assert generations == sorted(generations)
        numbers = [frame.number for frame in watcher.seen]
        assert numbers == sorted(numbers), "a picture came after a later one"


def assert_times_rise(watcher: Watcher) -> None:
    times = [frame.pts_seconds for frame in watcher.seen]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert [frame.index for frame in watcher.seen] == list(range(len(times)))
