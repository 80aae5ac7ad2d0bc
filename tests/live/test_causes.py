"""Every failure has its word, its error, and its time. The servers are real."""

from __future__ import annotations

import socket
import time

import av
import pytest

from pipeline import errors
from pipeline.errors import SourceError
from pipeline.network.causes import Trouble, of_reading
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from pipeline.sources.live import Cause
from tests.live.kit.odd_servers import (
    ClosingServer,
    GarbageServer,
    OddServer,
    SilentServer,
    StatusServer,
    refused_url,
)
from tests.live.scripted import watched
from tests.waiting import until

OPEN_SECONDS = 1.0  # of servers that are to be given up
PATIENT_SECONDS = 30.0  # of those that have an answer, which a busy machine may hear late
BUSY = 5.0  # seconds that a busy machine may add


def failure(
    url: str, open_seconds: float = PATIENT_SECONDS, **live: object
) -> tuple[str, SourceError, float]:
    """The cause for which a source gives up at its first attempt, the error, and the time."""
    settings = LiveSettings(open_seconds=open_seconds, max_attempts=1, **live)
    (source,) = open_sources([url], live=settings)
    begin = time.monotonic()
    with pytest.raises(SourceError) as caught:
        list(source.frames())
    took = time.monotonic() - begin
    source.close()
    stats = source.stats
    assert (stats.state, stats.error) == ("FAILED", str(caught.value))
    assert [event.state for event in stats.events] == ["CONNECTING", "FAILED"]
    (cause,) = stats.failures
    assert stats.events[-1].cause == cause
    return cause, caught.value, took


@pytest.mark.parametrize("scheme", ["rtsp", "http", "https", "rtmp", "tcp"])
def test_a_closed_port_is_refused(scheme):
    cause, error, took = failure(refused_url(scheme))
    assert cause == "refused"
    assert isinstance(error, errors.CameraUnreachable | ConnectionError)
    assert took < BUSY


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp"])
def test_a_host_that_does_not_exist_is_dns(scheme):
    cause, error, _ = failure(f"{scheme}://no-such-camera.invalid/x")
    assert cause == "dns"
    assert isinstance(error, errors.CameraUnreachable)
    assert "no-such-camera.invalid" in str(error)


def test_a_host_name_that_no_dns_could_hold_is_dns():
    assert failure(f"rtsp://{'a' * 80}.ä/x")[0] == "dns"


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https", "rtmp"])
def test_a_server_that_says_nothing_is_a_timeout(scheme):
    with SilentServer() as server:
        cause, error, took = failure(server.url(scheme), OPEN_SECONDS)
    assert cause == "timeout"
    assert isinstance(error, errors.StreamStalled | TimeoutError)
    assert OPEN_SECONDS - 0.1 < took < OPEN_SECONDS + BUSY


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize(
    ("status", "cause", "error"),
    [
        ("401 Unauthorized", "unauthorised", PermissionError),
        ("403 Forbidden", "unauthorised", PermissionError),
        ("404 Not Found", "not_found", FileNotFoundError),
        ("454 Session Not Found", "other", ConnectionError),
        ("500 Internal Server Error", "other", ConnectionError),
    ],
)
def test_a_server_that_says_no_is_taken_at_its_word(scheme, status, cause, error):
    with StatusServer(status) as server:
        found, raised, _ = failure(server.url(scheme, login="me:wrong"))
    assert found == cause
    assert isinstance(raised, error)
    assert "me:wrong" not in str(raised)


@pytest.mark.parametrize("scheme", ["http", "rtmp"])
def test_a_server_that_hangs_up_has_ended_it(scheme):
    with ClosingServer() as server:
        assert failure(server.url(scheme))[0] == "ended"


@pytest.mark.parametrize("scheme", ["https", "rtsps"])
def test_a_server_without_tls_is_a_tls_failure(scheme):
    with GarbageServer() as server:
        cause, error, _ = failure(server.url(scheme))
    assert cause == "tls"
    assert isinstance(error, errors.TlsFailed)


class PageServer(OddServer):
    """A web page where a camera should be."""

    def handle(self, client: socket.socket) -> None:
        client.recv(4096)
        page = b"<html><body>Please log in</body></html>" * 20
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n"
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + page)
        client.recv(4096)


def test_a_web_page_is_no_video():
    with PageServer() as server:
        cause, error, _ = failure(server.url("http"))
    assert cause == "no_video"
    assert isinstance(error, errors.NoVideo)


def test_a_certificate_that_nobody_signed_counts_only_when_it_is_checked(unsigned_context):
    with PageServer(context=unsigned_context) as server:
        assert failure(server.url("https"), verify_tls=True)[0] == "tls"
        assert failure(server.url("https"))[0] == "no_video", "it came through"


@pytest.mark.parametrize("codec", ["sound", "unknown"])
def test_a_camera_without_pictures_is_no_video(cameras, codec):
    (source,) = open_sources([cameras.add(codec=codec).url])
    with watched(source) as watch:  # a busy server may first say that it cannot
        until(lambda: source.stats.failures["no_video"], within=60)
    assert source.stats.connections == 0
    (event, *_) = [event for event in source.stats.events if event.cause == "no_video"]
    assert event.detail.startswith("no video comes, only ")
    assert watch.frames == []


def has_srt() -> bool:
    try:
        av.open("srt://127.0.0.1:1", timeout=0.1).close()
    except av.ProtocolNotFoundError:
        return False
    except av.FFmpegError:
        pass  # some other trouble, so the protocol is known
    return True


@pytest.mark.skipif(has_srt(), reason="this FFmpeg has SRT")
def test_a_protocol_that_was_not_built_in_ends_the_source_at_once():
    (source,) = open_sources(["srt://127.0.0.1:9000"], live=LiveSettings(max_attempts=None))
    with pytest.raises(errors.UnsupportedProtocol, match="without srt://; install a PyAV"):
        list(source.frames())
    assert source.stats.failures == {"unsupported_protocol": 1}


def test_every_cause_has_an_error_that_people_already_catch():
    for cause in Cause:
        error = Trouble(cause, "because").as_error("rtsp://cam/x")
        assert isinstance(error, SourceError)
        assert isinstance(error, OSError)
        assert error.exit_code == 3
        assert str(error) == "rtsp://cam/x: because"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (av.ExitError(0, ""), Cause.STALLED),
        (av.TimeoutError(0, ""), Cause.STALLED),
        (av.InvalidDataError(0, ""), Cause.CORRUPT),
        (av.ConnectionResetError(0, ""), Cause.ENDED),
        (av.OSError(5, ""), Cause.ENDED),
    ],
)
def test_an_open_connection_breaks_for_other_reasons(error, cause):
    assert of_reading(error, 10.0).cause is cause
