"""Cameras whose clocks are wrong: the line's own clock follows real time all the same."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import pytest

from tests.live.kit.watching import Seen, Watcher

SLACK = 2.5  # seconds that a busy machine may hold a picture up


def assert_follows_real_time(watcher: Watcher) -> None:
    """Times rise strictly, and run as fast and as long as the wall clock."""
    times = [frame.pts_seconds for frame in watcher.seen]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert seconds_a_second(watcher.seen) == pytest.approx(1, abs=0.1)
    first = watcher.seen[0]
    for frame in watcher.seen:
        passed = frame.at - first.at
        assert frame.pts_seconds - first.pts_seconds == pytest.approx(passed, abs=SLACK)


def seconds_a_second(seen: Sequence[Seen]) -> float:
    """How fast the source's clock runs: the median over frames half of all apart."""
    pairs = zip(seen, seen[len(seen) // 2 :], strict=False)
    return statistics.median(
        (later.pts_seconds - frame.pts_seconds) / (later.at - frame.at) for frame, later in pairs
    )


@pytest.mark.parametrize("seconds", [6 * 3600.0, -6 * 3600.0, 40.0, -40.0])
def test_a_jump_of_the_camera_s_clock_is_counted_and_not_followed(cameras, seconds):
    camera = cameras.add(size=(160, 120), first_timestamp=0x50000000)
    with Watcher(camera.url) as watcher:
        watcher.wait_frames(15)
        camera.jump(seconds)
        watcher.wait_frames(40)
        assert watcher.stats.connections == 1
        assert watcher.stats.anomalies["pts_jump"] >= 1
        assert_follows_real_time(watcher)


def test_the_end_of_the_rtp_clock_is_no_event(cameras):
    camera = cameras.add(size=(160, 120), first_timestamp=2**32 - 90_000 * 2)
    with Watcher(camera.url) as watcher:
        watcher.wait_frames(100)  # four seconds
        assert watcher.stats.anomalies["pts_jump"] == 0
        assert watcher.stats.connections == 1
        assert_follows_real_time(watcher)


def test_pictures_without_a_time_get_that_of_their_arrival(mjpeg):
    server = mjpeg(size=(160, 120), fps=20)
    with Watcher(server.url) as watcher:
        watcher.wait_frames(60)
        assert_follows_real_time(watcher)
        assert not watcher.stats.anomalies


@pytest.mark.parametrize("factor", [0.2, 4])
def test_a_rate_that_is_not_the_one_announced_changes_nothing(cameras, factor):
    camera = cameras.add(size=(160, 120), fps=25)
    camera.rate(25 * factor)
    with Watcher(camera.url) as watcher:
        watcher.wait_frames(round(max(30, 75 * factor)), within=60)
        assert_follows_real_time(watcher)
        came = watcher.stats.offered_fps
        assert came > 1.5 * 25 if factor > 1 else came < 25 / 2, f"the camera kept its word: {came}"
        assert watcher.stats.connections == 1
