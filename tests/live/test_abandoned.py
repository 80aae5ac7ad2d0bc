"""Cameras that hang come and go without end; their threads do not."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from pipeline.graph import background
from pipeline.settings import LiveSettings
from pipeline.sources import close_sources
from pipeline.sources.delivery import Limits
from pipeline.sources.live import CameraSource
from pipeline.sources.live.abandoned import Abandoned
from pipeline.sources.live.decoder import Effort
from tests.live.kit.odd_servers import SilentServer
from tests.live.scripted import Impatient, Script, Watched, ended, watched
from tests.live.test_control import STREET, Program, start
from tests.waiting import until

__all__ = ["start"]

MOST = 8


class Street:
    """Cameras of one process, some of which hang.

    Attributes:
        wake: Set, those that hang go on.
        openings: How many readers were begun.
    """

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.abandoned = Abandoned(MOST)
        self.openings = 0

    def hang(self) -> None:
        self.openings += 1
        self.wake.wait()

    def camera(self, script: Script | None = None, **live: float) -> CameraSource:
        """One that does what a script says; without one it hangs."""
        script = script or Script(on_open=self.hang)
        return CameraSource(
            name="cam",
            url="rtsp://cam/front",
            connect=lambda: script,
            live=LiveSettings(**live),
            limits=Limits(None, None),
            effort=Effort(),
            backoff=Impatient(),
            abandoned=self.abandoned,
        )

    def leave_behind(self, count: int) -> None:
        """So many cameras begin to hang and are removed."""
        for _ in range(count):
            with watched(self.camera(open_seconds=600)) as watch:
                watch.wait_for("CONNECTING")
                wanted = self.openings
                until(lambda n=wanted: self.openings >= n)


@pytest.fixture
def street(monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    monkeypatch.setattr("pipeline.sources._FAREWELL_SECONDS", 0.0)
    street = Street()
    yield street
    street.wake.set()
    until(lambda: street.abandoned.count == 0)


def test_a_thousand_cameras_that_hang_leave_few_threads(street: Street) -> None:
    before = threading.active_count()
    for _ in range(1000):
        watch = Watched(street.camera(open_seconds=600))
        until(lambda w=watch: w.source.stats.events)
        watch.end()
        close_sources([watch.source])
    assert street.openings <= MOST == street.abandoned.count
    until(lambda: threading.active_count() <= before + MOST)
    assert watch.source.stats.failures == {"readers_hang": 1}
    street.wake.set()
    until(lambda: threading.active_count() <= before)


def test_a_camera_that_has_to_wait_says_why_and_goes_on_when_it_can(street: Street) -> None:
    street.leave_behind(MOST)
    script = Script()
    script.give(*(n / 25 for n in range(100)))
    with watched(street.camera(script)) as watch:
        watch.wait_for("BACKOFF")
        event = watch.source.stats.events[-1]
        assert event.cause == "readers_hang"
        assert f"{MOST} connections of this program hang" in event.detail
        assert "name server" in event.detail
        assert not script.opened
        street.wake.set()
        assert watch.wait_for("RUNNING") < 10
    assert watch.source.stats.failures == {"readers_hang": 1}


def test_a_camera_that_waits_for_others_can_be_paused_and_ended_at_once(street: Street) -> None:
    street.leave_behind(MOST)
    with watched(street.camera(Script())) as watch:
        watch.wait_for("BACKOFF")
        watch.source.pause()
        assert watch.wait_for("PAUSED") < 5
        watch.source.resume()
        watch.wait_for("BACKOFF")
        assert watch.end() < 5


def test_a_living_camera_does_not_pay_for_those_that_hang(street: Street) -> None:
    script = Script()
    script.give(0.0, 0.04)
    with watched(street.camera(script)) as watch:
        watch.wait_for("RUNNING")
        street.leave_behind(MOST)
        script.give(ended(), *(n / 25 for n in range(100)))
        until(lambda: watch.source.stats.connections == 2)
        watch.wait_for_frames(3)
    assert "readers_hang" not in watch.source.stats.failures
    assert street.abandoned.too_many


def test_a_camera_that_hangs_itself_waits_like_a_new_one(street: Street) -> None:
    street.leave_behind(MOST - 1)
    script = Script()
    script.give(0.0, 0.04)
    with watched(street.camera(script, stall_seconds=0.5)) as watch:
        watch.wait_for("RUNNING")
        script.give(street.hang)
        until(lambda: watch.source.stats.failures["readers_hang"] == 1)
        assert watch.source.stats.failures["stalled"] == 1
        assert script.opened == 1
        street.wake.set()
        script.give(*(n / 25 for n in range(100)))
        until(lambda: watch.source.stats.connections == 2)


def test_a_reader_that_has_gone_is_not_kept_though_nobody_counts() -> None:
    """As of a camera that is sound, whose readers are slow to go."""
    abandoned = Abandoned()
    slow = background(lambda: None, "slow")
    abandoned.add(slow)
    slow.join()
    kept = weakref.ref(slow)
    del slow
    abandoned.add(background(lambda: None, "another"))
    assert kept() is None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_over_the_api_the_bound_shows_and_falls(
    start: Callable[..., Program],
) -> None:
    program = start(STREET.format(1), "--out", "null:")

    def hanging() -> int:
        lines = program.text("/metrics").splitlines()
        (line,) = (line for line in lines if line.startswith("boxstream_readers_hanging "))
        return round(float(line.split()[1]))

    assert hanging() == 0
    with SilentServer() as silent:
        url = silent.url() + "#open_seconds=100"
        names = [f"cam{number}" for number in range(70)]
        for name in names:
            assert program.ask("POST", "/api/sources", {"url": url, "name": name})[0] == 201
        for name in names:
            assert program.ask("DELETE", f"/api/sources/{name}")[0] == 204
        until(lambda: hanging() >= 64)
        waiting = "another"
        assert program.ask("POST", "/api/sources", {"url": url, "name": waiting})[0] == 201
        until(lambda: program.sources()[waiting]["cause"])
        seen = program.sources()[waiting]
        assert seen["state"] == "BACKOFF" and "name server" in seen["detail"]
        assert seen["failures"] == {"readers_hang": 1}
        assert f'cause="readers_hang",source="{waiting}"' in program.text("/metrics")
    until(lambda: program.sources()[waiting]["failures"].get("refused"), 60, "an attempt")
    until(lambda: hanging() == 0)
    before = program.sources()["street"]["frames_inferred"]
    program.wait_frames("street", before + 3)
