"""Cameras that cannot be opened: each failure has its name, its time, and hurts nobody else."""

from __future__ import annotations

import itertools
import threading

import pytest

from tests.live.kit.odd_servers import (
    ClosingServer,
    DrippingServer,
    GarbageServer,
    OddServer,
    SilentServer,
    StatusServer,
    refused_url,
)
from tests.live.kit.watching import Watcher
from tests.waiting import until

OPEN_SECONDS = 1.5
LATER = 5.0  # what a busy machine may add to any deadline


def check_failure(url: str, causes: set[str], earliest: float = 0.0) -> None:
    """Opening `url` fails in time for one of `causes`, again and again, and ends at once."""
    threads = threading.active_count()
    with Watcher(f"{url}#open_seconds={OPEN_SECONDS:g}") as watcher:
        took = until(lambda: bool(watcher.stats.failures), OPEN_SECONDS + LATER, str(watcher.stats))
        assert earliest - 0.5 <= took
        assert set(watcher.stats.failures) <= causes
        watcher.wait_state("BACKOFF", LATER)
        assert watcher.states[:2] == ["CONNECTING", "BACKOFF"]
        assert watcher.causes and watcher.stats.connections == 0
        assert watcher.end() < LATER
        assert watcher.stats.state == "ENDED" and watcher.error is None
    until(lambda: threading.active_count() <= threads, OPEN_SECONDS + LATER, "end of all readers")


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_a_refused_connection_is_called_refused_at_once(scheme):
    check_failure(refused_url(scheme), {"refused"})


def test_a_host_without_an_address_is_called_dns():
    check_failure("rtsp://no-such-camera.invalid/cam", {"dns"})


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(
    ("status", "cause"),
    [
        ("401 Unauthorized", "unauthorised"),
        ("403 Forbidden", "unauthorised"),
        ("404 Not Found", "not_found"),
        ("503 Service Unavailable", "other"),
    ],
)
def test_what_a_server_answers_is_told_apart(scheme, status, cause):
    with StatusServer(status) as server:
        check_failure(server.url(scheme, login="me:wrong"), {cause})


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("odd", [SilentServer, DrippingServer])
def test_a_server_that_never_comes_to_the_point_is_given_up_at_the_deadline(
    scheme, odd: type[OddServer]
):
    with odd() as server:
        check_failure(server.url(scheme), {"timeout"}, earliest=OPEN_SECONDS)
        with Watcher(f"{server.url(scheme)}#open_seconds={OPEN_SECONDS:g}") as watcher:
            until(lambda: is_punctual(watcher) or watcher.stats.failures["timeout"] >= 3, 30)
            assert is_punctual(watcher), f"{attempts(watcher)} of {OPEN_SECONDS} s"


def attempts(watcher: Watcher) -> list[float]:
    """How many seconds each attempt to connect took until it was given up."""
    return [
        later.wall_time - event.wall_time
        for event, later in itertools.pairwise(list(watcher.stats.events))
        if (event.state, later.state) == ("CONNECTING", "BACKOFF")
    ]


def is_punctual(watcher: Watcher) -> bool:
    """Whether the best attempt so far ended when it should; a busy machine may spoil two."""
    taken = attempts(watcher)
    assert all(seconds > OPEN_SECONDS - 0.1 for seconds in taken), f"too early: {taken}"
    return bool(taken) and min(taken) < OPEN_SECONDS + 0.5


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("odd", [GarbageServer, ClosingServer])
def test_a_server_that_talks_nonsense_is_no_camera(scheme, odd: type[OddServer]):
    with odd() as server:
        check_failure(server.url(scheme), {"timeout", "other", "no_video", "ended", "corrupt"})


def test_a_wrong_password_is_called_unauthorised_and_not_tried_often(start_cameras):
    server = start_cameras(user="viewer", password="right")
    server.add(size=(160, 120))
    with Watcher(server.url("cam", login=("viewer", "wrong"))) as watcher:
        watcher.wait_failure("unauthorised", 1)
        watcher.wait_state("BACKOFF")
        wait = watcher.stats.events[-1].detail
        assert float(wait.split()[-2]) > 5, "an account may be locked by many attempts"


def test_a_path_that_the_camera_does_not_know_is_called_not_found(cameras):
    cameras.add("front", size=(160, 120))
    check_failure(cameras.url("back"), {"not_found"})


@pytest.mark.parametrize("codec", ["sound", "unknown"])
def test_a_stream_without_a_picture_is_named(cameras, codec):
    camera = cameras.add(codec=codec, size=(160, 120))
    with Watcher(f"{camera.url}#open_seconds={OPEN_SECONDS:g}") as watcher:
        watcher.wait_failure("no_video")  # a busy server may first have no proper answer at all
        assert watcher.stats.connections == 0 and not watcher.seen


def test_a_camera_that_comes_up_later_is_found(cameras):
    camera = cameras.add(size=(160, 120))
    cameras.kill()
    with Watcher(camera.url) as watcher:
        watcher.wait_failure("refused", 2)
        cameras.start()
        watcher.wait_frames(5)
        assert watcher.stats.state == "RUNNING" and watcher.stats.connections == 1


def test_attempts_can_be_limited():
    with Watcher(refused_url() + "#max_attempts=2") as watcher:
        watcher.wait_state("FAILED")
        until(lambda: watcher.error is not None)
        assert watcher.stats.failures == {"refused": 2}
        assert "127.0.0.1" in str(watcher.error)


def test_it_ends_quickly_from_every_state(cameras):
    camera = cameras.add(size=(160, 120))
    with SilentServer() as silent:
        for url, state in (
            (silent.url("rtsp"), "CONNECTING"),
            (refused_url(), "BACKOFF"),
            (camera.url, "RUNNING"),
        ):
            with Watcher(url) as watcher:
                watcher.wait_state(state)
                assert watcher.end() < LATER, state
        with Watcher(camera.url) as watcher:
            watcher.wait_frames(1)
            camera.stall()
            watcher.wait_state("STALLED")
            assert watcher.end() < LATER
