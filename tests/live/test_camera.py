"""The life of a live source: its states, its connections, its time, its end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.errors import CameraUnreachable
from pipeline.network.causes import Trouble
from pipeline.settings import LiveSettings
from pipeline.sources import close_sources, open_sources
from pipeline.sources.live import CameraSource, Cause, DecodeEffort, watchdog
from pipeline.sources.live.connection import Picture
from tests.live.kit.odd_servers import SilentServer, refused_url
from tests.live.scripted import Script, Watched, a_picture, camera, ended, refused, watched
from tests.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
BUSY = 5.0  # seconds that a busy machine may add


def pictures(count: int, begin: float = 0.0) -> list[float]:
    return [begin + n / 25 for n in range(count)]


# Beginning ---------------------------------------------------------------------------------------


def test_making_a_source_opens_nothing():
    with SilentServer() as server:
        (source,) = open_sources([server.url()])
        source.close()
        assert server.connections == 0
    assert source.stats.state == "READY"
    assert (source.size_hw, source.rate, source.frame_count) == (None, None, None)


def test_a_camera_that_is_not_there_is_tried_until_it_is():
    script = Script(refused(), refused(), refused())
    script.give(*pictures(3))
    with watched(camera(script)) as watch:
        watch.wait_for_frames(1)
    assert watch.states[:7] == ["CONNECTING", "BACKOFF"] * 3 + ["CONNECTING"]
    assert watch.states[7] == "RUNNING"
    assert watch.causes == ["refused"] * 3
    assert watch.source.stats.failures == {"refused": 3}
    assert watch.source.stats.connections == 1
    event = watch.source.stats.events[1]
    assert event.detail.startswith("connection refused; the next attempt is in ")


def test_a_source_gives_up_after_as_many_attempts_as_it_may_make():
    script = Script(*[refused() for _ in range(9)])
    with watched(camera(script, max_attempts=3)) as watch:
        assert watch.returned.wait(30)
    assert isinstance(watch.error, CameraUnreachable)
    assert str(watch.error) == "rtsp://cam/front: connection refused"
    assert watch.states == ["CONNECTING", "BACKOFF"] * 2 + ["CONNECTING", "FAILED"]
    assert watch.source.stats.error == str(watch.error)
    assert len(script.refusals) == 6


def test_what_time_will_not_mend_is_given_up_at_once():
    script = Script(Trouble(Cause.UNSUPPORTED_PROTOCOL, "no srt here"))
    with watched(camera(script)) as watch:
        assert watch.returned.wait(30)
    assert watch.states == ["CONNECTING", "FAILED"]


def test_a_mistake_of_ours_is_no_trouble_of_the_camera():
    def stumble():
        raise ZeroDivisionError("ours")

    script = Script(on_open=stumble)
    with watched(camera(script)) as watch:
        assert watch.returned.wait(30)
    assert isinstance(watch.error, ZeroDivisionError)
    assert watch.source.stats.state == "FAILED"


# Running -----------------------------------------------------------------------------------------


def test_frames_say_where_they_come_from():
    script = Script()
    script.give(*pictures(2))
    begin = time.monotonic()
    with watched(camera(script)) as watch:
        watch.wait_for_frames(1)
    frame = watch.frames[0]
    assert (frame.source, frame.index, frame.generation, frame.size_hw) == ("cam", 0, 1, (24, 32))
    assert frame.time_base == Fraction(1, 90_000)
    assert begin <= frame.arrival <= time.monotonic()
    assert watch.source.size_hw == (24, 32)
    assert watch.source.stats.last_frame >= frame.arrival
    assert watch.source.stats.first_arrival == frame.arrival


def test_the_shape_of_pixels_comes_with_each_picture():
    script = Script()
    with watched(camera(script)) as watch:
        for n, pixel_hw in enumerate([(11, 16), (1, 1)]):
            script.give(Picture(a_picture(), n / 25, pixel_hw=pixel_hw))
            watch.wait_for_frames(n + 1)
    assert [frame.pixel_hw for frame in watch.frames] == [(11, 16), (1, 1)]


def test_pictures_that_nothing_can_convert_are_a_trouble_of_their_camera():
    script = Script()
    script.give(Picture(av.VideoFrame(32, 24, "rgb4"), 0.0))
    with watched(camera(script)) as watch:
        until(lambda: watch.source.stats.failures["unsupported_codec"] == 1)
        script.give(0.0)
        watch.wait_for_frames(1)  # somebody has set it to something else
    event = next(event for event in watch.source.stats.events if event.state == "BACKOFF")
    assert "pixel format rgb4" in event.detail


def test_a_connection_that_breaks_is_followed_by_the_next_generation():
    script = Script()
    with watched(camera(script)) as watch:
        for generation in (1, 2, 3):
            script.give(*pictures(3, begin=1000.0 * generation))
            until(lambda g=generation: watch.frames and watch.frames[-1].generation == g)
            script.give(ended())
            until(lambda g=generation: watch.source.stats.failures["ended"] == g)
    assert {frame.generation for frame in watch.frames} == {1, 2, 3}
    assert watch.source.stats.failures == {"ended": 3}
    assert not watch.source.stats.anomalies, "a new clock after a reconnect is no jump"


def test_who_takes_slowly_gets_the_latest_and_the_rest_is_counted():
    script, given = Script(), threading.Event()
    source = camera(script, late_seconds=60.0)
    frames = source.frames()
    script.give(0.0)
    first = next(frames)
    script.give(*[n / 25 for n in range(1, 16)], given.set)
    assert given.wait(30)
    second = next(frames)
    frames.close()
    source.close()
    assert second.pts_seconds - first.pts_seconds == pytest.approx(15 / 25, abs=1e-4)
    assert source.stats.frames_dropped == {"queue_full": 14}
    assert source.stats.in_flight == 2


def test_a_reconnect_moves_the_clock_by_the_time_that_passed():
    script = Script()
    with watched(camera(script)) as watch:
        script.give(0.0)
        watch.wait_for_frames(1)
        script.give(ended())
        until(lambda: script.opened == 2)
        threading.Event().wait(0.5)
        script.give(90_000.0)
        watch.wait_for_frames(2)
    first, second = watch.frames
    passed = second.arrival - first.arrival
    assert passed >= 0.5
    assert second.pts_seconds - first.pts_seconds == pytest.approx(passed, abs=0.01)


def test_limits_hold_for_cameras_too():
    script = Script()
    script.give(*pictures(200))
    with watched(camera(script, max_frames=2)) as watch:
        assert watch.returned.wait(30)
    assert len(watch.frames) == 2
    assert watch.states[-1] == "ENDED"


def test_a_duration_ends_a_camera_that_never_came():
    begin = time.monotonic()
    (source,) = open_sources([refused_url()], duration=1.0)
    assert list(source.frames()) == []
    assert 0.9 < time.monotonic() - begin < 1 + BUSY
    source.close()
    assert source.stats.state == "ENDED"


def test_damaged_pictures_are_counted_and_do_not_come():
    script = Script()
    script.give(0.0, "corrupt", "corrupt", 0.04)
    with watched(camera(script)) as watch:
        until(lambda: watch.source.stats.frames_dropped["corrupt"] == 2)
        until(lambda: watch.source.stats.frames_decoded == 4)
    assert watch.source.stats.frames_dropped["corrupt"] == 2


# Silence -----------------------------------------------------------------------------------------


def test_silence_is_seen_from_outside_and_ends_in_a_new_connection():
    script, silent = Script(), threading.Event()
    script.give(0.0, silent.wait)
    with watched(camera(script, stall_seconds=10.0)) as watch:
        watch.wait_for_frames(1)
        last = watch.frames[0].arrival
        until(lambda: "STALLED" in watch.states)
        assert 2.0 <= time.monotonic() - last < 2.0 + BUSY
        script.give(*pictures(200))
        until(lambda: script.opened == 2)
        assert 10.0 <= time.monotonic() - last < 10.0 + BUSY
        until(lambda: watch.frames[-1].generation == 2)
        silent.set()  # the old reader wakes, and finds that nobody wants it
        until(lambda: script.closed == 1)
        assert watch.frames[-1].generation == 2
    assert watch.states[:6] == [
        *("CONNECTING", "RUNNING", "STALLED", "BACKOFF", "CONNECTING", "RUNNING")
    ]
    assert watch.source.stats.failures == {"stalled": 1}


def test_one_that_opens_and_shows_nothing_is_counted_and_noticed_in_time(monkeypatch):
    monkeypatch.setattr(watchdog, "_SILENCE_SECONDS", 0.3)
    script = Script(on_open=lambda: threading.Event().wait(0.2))  # while it is waited for
    with watched(camera(script, open_seconds=600, stall_seconds=0.3)) as watch:
        until(lambda: watch.source.stats.failures["stalled"] == 1, within=0.5 + BUSY)
        assert watch.source.stats.connections >= 1


def test_a_camera_that_recovers_in_time_keeps_its_connection():
    script, silent = Script(), threading.Event()
    script.give(0.0, silent.wait)
    with watched(camera(script, stall_seconds=60.0)) as watch:
        watch.wait_for("STALLED")
        silent.set()
        script.give(2.5)
        until(lambda: watch.states[:4] == ["CONNECTING", "RUNNING", "STALLED", "RUNNING"])
    assert script.opened == 1
    assert "BACKOFF" not in watch.states


def test_pictures_that_are_all_damaged_are_no_life():
    script = Script()
    with watched(camera(script, stall_seconds=2.5)) as watch:
        script.give(0.0)
        watch.wait_for("RUNNING")

        def damaged_on_and_on():
            script.give("corrupt", lambda: threading.Event().wait(0.1))
            return watch.source.stats.failures

        until(damaged_on_and_on)
    assert watch.source.stats.failures == {"corrupt": 1}


def test_an_opening_that_takes_too_long_is_given_up_though_it_cannot_be_interrupted():
    wake = threading.Event()
    script = Script(on_open=wake.wait)
    begin = time.monotonic()
    with watched(camera(script, open_seconds=0.5, max_attempts=1)) as watch:
        assert watch.returned.wait(30)
        assert 0.5 <= time.monotonic() - begin < 1.0 + BUSY
        assert watch.causes == ["timeout"]
        wake.set()
    assert isinstance(watch.error, TimeoutError)


def test_readers_that_hang_are_not_piled_up():
    wake, openings = threading.Event(), []

    def hang():
        openings.append(time.monotonic())
        wake.wait()

    script = Script(on_open=hang)
    script.give(*pictures(100))
    with watched(camera(script, open_seconds=0.2)) as watch:
        until(lambda: watch.source.stats.failures["timeout"] == 3)
        threading.Event().wait(1.5)
        assert len(openings) == 3
        assert [thread.name for thread in threading.enumerate()].count("read cam") == 3
        wake.set()
        watch.wait_for_frames(1)
    assert script.opened == script.closed


# Pausing and ending ------------------------------------------------------------------------------


def test_a_paused_camera_is_disconnected_and_comes_back():
    script = Script()
    script.give(*pictures(3))
    with watched(camera(script)) as watch:
        watch.wait_for("RUNNING")
        watch.source.pause()
        watch.wait_for("PAUSED")
        until(lambda: script.closed == 1)
        watch.source.resume()
        script.give(*pictures(100))
        watch.wait_for("RUNNING")
        assert script.opened == 2
    assert "BACKOFF" not in watch.states
    assert not watch.source.stats.failures


def test_readers_that_hang_are_not_piled_up_by_pausing():
    wake, openings = threading.Event(), []

    def hang():
        openings.append(time.monotonic())
        wake.wait()

    script = Script(on_open=hang)
    script.give(*pictures(100))
    with watched(camera(script, open_seconds=600)) as watch:
        for pauses in range(1, 7):
            watch.wait_for("CONNECTING")
            until(lambda n=pauses: len(openings) == min(n, 3))
            watch.source.pause()
            assert watch.wait_for("PAUSED") < 0.5 + BUSY
            watch.source.resume()
        watch.wait_for("CONNECTING")
        assert len(openings) == 3
        wake.set()
        watch.wait_for_frames(1)
        assert len(openings) == 4
    assert script.opened == script.closed
    assert not watch.source.stats.failures


def test_the_end_comes_at_once_while_readers_hang():
    wake = threading.Event()
    with watched(camera(Script(on_open=wake.wait), open_seconds=600)) as watch:
        for _ in range(3):
            watch.wait_for("CONNECTING")
            watch.source.pause()
            watch.wait_for("PAUSED")
            watch.source.resume()
        until(lambda: watch.source.stats.events[-1].detail)
        assert watch.end() < 0.5 + BUSY / 2
        wake.set()


@contextmanager
def hanging(count: int) -> Iterator[list[CameraSource]]:
    """Cameras that have ended, and whose readers hang until the block is left."""
    wake, sources = threading.Event(), []
    for _ in range(count):
        source = camera(Script(on_open=wake.wait), open_seconds=600)
        watch = Watched(source)
        watch.wait_for("CONNECTING")
        watch.end()
        sources.append(source)
    try:
        yield sources
    finally:
        wake.set()
        close_sources(sources)


def test_who_leaves_a_camera_whose_reader_hangs_does_not_wait():
    with hanging(6) as sources:
        begin = time.monotonic()
        for source in sources:
            source.close()
        assert time.monotonic() - begin < BUSY, "not a moment, and not six of them"


def test_the_way_out_has_one_moment_for_all_cameras_whose_readers_hang():
    with hanging(6) as sources:
        begin = time.monotonic()
        close_sources(sources)
        assert time.monotonic() - begin < 2.0 + BUSY, "not six times two seconds"


def test_the_way_out_waits_for_a_reader_that_comes_back(monkeypatch):
    monkeypatch.setattr("pipeline.sources._FAREWELL_SECONDS", 30.0)
    opened, wake = threading.Event(), threading.Event()

    def hang():
        opened.set()
        wake.wait()

    script = Script(on_open=hang)
    watch = Watched(camera(script, open_seconds=600))
    assert opened.wait(30)
    watch.end()
    leaving = threading.Timer(0.3, wake.set)
    leaving.start()
    close_sources([watch.source])
    assert script.opened == script.closed == 1


def in_backoff(script: Script) -> None:
    script.refusals += [Trouble(Cause.UNAUTHORISED, "no") for _ in range(10_000)]


@pytest.mark.parametrize("state", ["CONNECTING", "RUNNING", "STALLED", "BACKOFF", "PAUSED"])
def test_the_end_comes_at_once_from_every_state(state):
    wake = threading.Event()
    script = Script(on_open=wake.wait if state == "CONNECTING" else lambda: None)
    if state == "BACKOFF":
        in_backoff(script)
    elif state == "STALLED":
        script.give(0.0, wake.wait)
    elif state == "RUNNING":
        script.give(0.0)
    with watched(camera(script, stall_seconds=60)) as watch:
        if state == "PAUSED":
            watch.source.pause()
        watch.wait_for(state)
        assert watch.end() < 0.5 + BUSY / 2
        wake.set()
    assert watch.states[-1] == "ENDED"
    assert watch.error is None


def test_an_end_before_the_beginning_is_the_end():
    script = Script()
    source = camera(script)
    source.end()
    assert list(source.frames()) == []
    assert script.opened == 0


def test_who_stops_reading_ends_the_source():
    script = Script()
    script.give(*pictures(10))
    source = camera(script)
    for _ in source.frames():
        break
    source.close()
    source.close()
    assert source.stats.state == "ENDED"
    until(lambda: script.closed == 1)


PROGRAM = """
import signal, sys
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from run_stream import leave

(source,) = open_sources([sys.argv[1]], live=LiveSettings(open_seconds=120))
signal.signal(signal.SIGTERM, lambda *_: source.end())
print("ready", flush=True)
print(len(list(source.frames())), source.stats.state)
leave(7)
"""


@contextmanager
def hanging_program(url: str) -> Iterator[subprocess.Popen[str]]:
    """A program that reads a camera; killed, if it has to be, at the end of the block."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM, url]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_program_ends_in_time_though_its_reader_hangs_in_the_network():
    """`end` is called by a signal's handler, in the thread that waits in `frames`."""
    with SilentServer() as server, hanging_program(server.url()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until(lambda: server.connections == 1, within=90)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
        took = time.monotonic() - begin
    assert (out, errors, process.returncode) == ("0 ENDED\n", "", 7)
    assert took < 1.0 + BUSY


def test_the_end_is_seen_when_it_is_called_just_before_the_source_begins_to_wait():
    """As by a signal's handler in the same thread; nobody is there yet to be woken."""
    never = threading.Event()
    source = camera(Script(on_open=never.wait), open_seconds=120.0)

    class Interrupted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            source.end()
            return super().wait(timeout)

    source._desk = Interrupted()
    with watched(source) as watch:
        assert watch.returned.wait(10.0 + BUSY)
        never.set()


# Decoding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", list(DecodeEffort))
def test_effort_is_saved_while_a_camera_runs_and_given_back(cameras, effort, monkeypatch):
    monkeypatch.setattr(watchdog, "_SILENCE_SECONDS", 15.0)  # a busy machine is no silence
    camera = cameras.add(size=(160, 96), keyframe_every=5)
    (source,) = open_sources([camera.url], live=LiveSettings(stall_seconds=20))
    with watched(source) as watch:
        watch.wait_for_frames(5)
        source.set_effort(effort)
        painted, count = camera.painted(), len(watch.frames)
        until(lambda: camera.painted() >= painted + 50)
        until(lambda: len(watch.frames) - count >= 5)
        source.set_effort(DecodeEffort.FULL)
        watch.wait_for_frames(len(watch.frames) + 20)
    stats = source.stats
    assert "STALLED" not in watch.states
    assert not stats.frames_dropped["corrupt"]
    assert not stats.anomalies["corrupt_packet"]
