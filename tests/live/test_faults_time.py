"""Clocks that are set and machines that sleep: no figure turns negative, and life goes on."""

from __future__ import annotations

import itertools
import signal
import time

import pytest

from tests.live.kit.line import adds_up
from tests.live.kit.watching import Watcher
from tests.waiting import until


@pytest.mark.parametrize("hours", [-1, 1])
def test_setting_the_clock_of_the_machine_changes_nothing(cameras, monkeypatch, hours):
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
