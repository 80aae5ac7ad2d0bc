"""Clocks that are set and machines that sleep: no figure turns negative, and life goes on."""

from __future__ import annotations

import itertools
import signal
import statistics
import time

import pytest

from pipeline.sources.live import watchdog
from tests.live.kit.line import adds_up
from tests.live.kit.watching import Watcher
from tests.waiting import until


@pytest.mark.parametrize("hours", [-1, 1])
def test_setting_the_clock_of_the_machine_changes_nothing(cameras, monkeypatch, hours):
    monkeypatch.setattr(watchdog, "_SILENCE_SECONDS", 15.0)  # a busy machine is no silence
    camera = cameras.add(size=(160, 120))
    with Watcher(camera.url) as watcher:
        watcher.wait_frames(10)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
        watcher.wait_frames(30)
        times = [frame.pts_seconds for frame in watcher.seen]
        assert all(0 < b - a < 10 for a, b in itertools.pairwise(times))
        assert watcher.states == ["CONNECTING", "RUNNING"]


def test_a_machine_that_slept_goes_on_with_the_present(cameras, start_line):
    camera = cameras.add(size=(160, 120))
    line = start_line([camera.url + "#stall_seconds=4"])
    line.wait_records(20)
    line.process.send_signal(signal.SIGSTOP)
    painted = camera.painted()
    until(lambda: camera.painted() > painted + 150, 60, "six seconds")
    line.process.send_signal(signal.SIGCONT)
    line.wait_records(20)
    line.stop()
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    assert source["state"] == "ENDED" and source["frames_inferred"] >= 40
    assert 0 <= source["latency_ms"]["p50"] < 5000
    assert all(entry["pts_seconds"] >= 0 for entry in line.records())


def test_the_camera_says_when_it_took_a_picture(cameras):
    """It does so every few seconds; the clock painted in the pictures knows better."""
    camera = cameras.add(size=(320, 180))
    with Watcher(camera.url) as watcher:
        until(lambda: watcher.stats.transit.count >= 50, 60, "a sender's report and 50 frames")
    said = watcher.stats.transit
    counted = watcher.seen[-said.count :]  # all since the report
    painted = statistics.median(frame.age_at_arrival for frame in counted) * 1e3
    assert said.percentile_ms(50) == pytest.approx(painted, abs=20)
    assert "camera_clock_wrong" not in watcher.stats.anomalies


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_camera_whose_clock_is_wrong_is_noticed_and_not_believed(cameras, monkeypatch, hours):
    camera = cameras.add(size=(160, 120))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    with Watcher(camera.url) as watcher:
        until(lambda: watcher.stats.anomalies["camera_clock_wrong"] >= 10, 60, "its word")
        assert watcher.stats.transit.count == 0
