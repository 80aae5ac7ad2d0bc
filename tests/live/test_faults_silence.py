"""Cameras that fall silent while the connection stands, and what they say afterwards."""

from __future__ import annotations

import time

import pytest

from tests.live.kit.watching import Watcher
from tests.waiting import until

LATER = 6.0  # what a busy machine may add to any deadline


@pytest.mark.parametrize("silence", ["stall", "freeze"])
def test_a_silent_camera_is_noticed_and_connected_anew(cameras, silence):
    camera = cameras.add(size=(160, 120))
    with Watcher(camera.url + "#stall_seconds=10&open_seconds=3") as watcher:
        watcher.wait_frames(10)
        camera.stall() if silence == "stall" else cameras.freeze()
        watcher.wait_state("STALLED", 2.5 + LATER)
        assert time.monotonic() - watcher.stats.last_frame >= 2.0
        seen = len(watcher.seen)
        watcher.wait_failure("stalled", 1, 10 + LATER)
        until(lambda: watcher.stats.state in ("BACKOFF", "CONNECTING"), LATER)
        camera.resume() if silence == "stall" else cameras.thaw()
        fresh = watcher.wait_frames(5)
        assert watcher.stats.state == "RUNNING" and watcher.stats.connections >= 2
        assert len({frame.generation for frame in watcher.seen[:seen]}) == 1
        assert all(frame.generation >= 2 for frame in fresh)
        assert all(frame.fault < 12 for frame in watcher.seen), "a picture was made up"


def test_a_short_silence_costs_no_connection(cameras):
    camera = cameras.add(size=(160, 120))
    with Watcher(camera.url + "#stall_seconds=60") as watcher:
        watcher.wait_frames(10)
        camera.stall()
        watcher.wait_state("STALLED", 2.5 + LATER)
        camera.resume()
        watcher.wait_frames(10)
        states = watcher.states
        assert "RUNNING" in states[states.index("STALLED") :] and "BACKOFF" not in states
        assert watcher.stats.connections == 1


@pytest.mark.parametrize("way", ["camera", "wire"])
def test_what_was_held_back_is_old_and_not_delivered(cameras, wire, way):
    camera = cameras.add(size=(160, 120))
    line = wire(cameras.port)
    with Watcher(line.through(camera.url) + "#stall_seconds=30&late_seconds=1") as watcher:
        watcher.wait_frames(30)
        camera.stall() if way == "camera" else line.hold()
        held = camera.painted()
        watcher.wait_state("STALLED", 2.5 + LATER)
        until(lambda: camera.painted() > held + 150, 60, "six seconds of pictures")
        camera.resume(burst=True) if way == "camera" else line.release()
        fresh = watcher.wait_frames(20)
        late = sum(watcher.stats.frames_dropped.values())
        assert late > 50, f"{watcher.stats.frames_dropped}"
        typical = sorted(frame.age for frame in watcher.seen[5:30])[12]
        assert all(frame.age - typical < 1.5 + LATER / 4 for frame in fresh)
        assert watcher.stats.connections == 1


def test_a_camera_over_http_that_falls_silent_is_noticed_too(mjpeg):
    server = mjpeg(size=(160, 120), fps=20)
    with Watcher(server.url + "#stall_seconds=10") as watcher:
        watcher.wait_frames(5)
        server.stall()
        until(lambda: "STALLED" in watcher.states, 2.5 + LATER)
        watcher.wait_failure("stalled", 1, 10 + LATER)
        server.resume()
        watcher.wait_frames(5)
        assert watcher.stats.connections >= 2
