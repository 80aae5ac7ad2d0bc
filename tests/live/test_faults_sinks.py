"""Outputs that fail or fall behind: each fails alone, and the cameras never wait for one."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from contextlib import ExitStack
from typing import Any

import pytest

from tests.brokers.servers import mosquitto
from tests.live.kit.line import Line, adds_up
from tests.live.kit.odd_servers import SilentServer
from tests.live.kit.page import PageOfLine
from tests.live.kit.ports import free_port
from tests.live.kit.rates import last_second, usual_rate
from tests.serve.client import Client, next_part
from tests.waiting import until

FPS = 10
_ESTABLISHED = 1  # of the states of Linux's TCP
SOME_SECONDS = 8  # three windows of two seconds, and a start


def entry(line: Line, words: str) -> dict[str, Any]:
    """The report's entry on the one output whose name contains `words`."""
    (found,) = (sink for name, sink in line.report["sinks"].items() if words in name)
    return dict(found)


def check_others(line: Line) -> None:
    """The records were written all the while, and every frame is accounted for."""
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    assert source["frames_inferred"] >= 40
    assert len(line.records()) >= 40
    assert source["latency_ms"]["p50"] < 3000


def test_a_full_disk_ends_that_output_only(cameras, start_line, tmp_path):
    camera = cameras.add(size=(160, 120))
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    line = start_line([camera.url], out=[str(tmp_path / "full.jsonl")])
    line.wait_records(40, "lines-")
    line.stop()
    assert "disk is full" in entry(line, "full.jsonl")["error"]
    assert "disk is full" in line.words
    check_others(line)


def test_a_broker_that_is_not_there_holds_up_nothing(cameras, start_line):
    camera = cameras.add(size=(160, 120))
    line = start_line([camera.url], out=[f"mqtt://127.0.0.1:{free_port()}/boxes"])
    line.wait_records(40)
    assert line.stop() < 20
    check_others(line)


def test_a_broker_that_says_nothing_holds_up_nothing(cameras, start_line):
    camera = cameras.add(size=(160, 120))
    with SilentServer() as broker:
        line = start_line([camera.url], out=[f"redis://127.0.0.1:{broker.port}/0"])
        line.wait_records(40)
        assert line.stop() < 20
    check_others(line)


@pytest.mark.slow
def test_viewers_who_freeze_take_nothing_from_the_rate(cameras, start_line):
    camera = cameras.add(size=(640, 360), fps=FPS)
    page = Client(f"http://127.0.0.1:{free_port()}")
    line = start_line([f"{camera.url}#name=cam"], out=[f"http://127.0.0.1:{page.port}"])
    line.wait_records(SOME_SECONDS * FPS)
    alone_until = last_second(line.records())
    with ExitStack() as stack:
        waves = []
        for _ in range(2):  # who has been frozen for ten seconds is given up
            viewers = [stack.enter_context(page.connect(receive_bytes=4096)) for _ in range(4)]
            for viewer, path in zip(viewers, ("/pictures", "/streams/cam.mjpg") * 2, strict=True):
                viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            until(lambda them=viewers: all(unread_bytes(one) > 500 for one in them), 30, "pictures")
            line.wait_records(FPS)
            waves.append((last_second(line.records()), [*map(unread_bytes, viewers)]))
            line.wait_records(SOME_SECONDS * FPS // 2)
            assert [*map(unread_bytes, viewers)] == waves[-1][1], "they were not frozen"
            assert all(map(is_connected, viewers)), "they were given up"
        with page.open("/streams/cam.mjpg") as reading:
            assert next_part(reading) and next_part(reading)
        assert line.stop() < 20
    check_others(line)
    check_rate(line, alone_until, waves[0][0])


@pytest.mark.slow
def test_a_broker_that_is_killed_takes_nothing_from_the_rate(cameras, start_line, tmp_path):
    pytest.importorskip("paho.mqtt.client", reason="the extra 'brokers' is not installed")
    camera = cameras.add(size=(160, 120), fps=FPS)
    broker = mosquitto(tmp_path)
    broker.start()
    try:
        line = start_line([camera.url], out=[f"mqtt://127.0.0.1:{broker.port}/boxes"])
        line.wait_records(SOME_SECONDS * FPS)
    finally:
        broker.kill()
    killed_at = last_second(line.records())
    line.wait_records(SOME_SECONDS * FPS)
    assert line.stop() < 20
    check_others(line)
    check_rate(line, killed_at, killed_at)
    told = entry(line, "mqtt")
    assert told["sent"] > FPS, f"it was not there before: {told}"
    assert told["sent"] < len(line.records()) - FPS, f"it was there afterwards: {told}"


def is_connected(connection: socket.socket) -> bool:
    """Whether neither side has ended it."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def check_rate(line: Line, sound_until: float, broken_since: float) -> None:
    """The camera's rate was kept before and after, within a tenth."""
    before = usual_rate(line.records(), before=sound_until, window_seconds=2)
    after = usual_rate(line.records(), since=broken_since, window_seconds=2)
    assert before == pytest.approx(FPS, rel=0.1)
    assert after == pytest.approx(before, rel=0.1)


def unread_bytes(connection: socket.socket) -> int:
    """What has come and was not read."""
    (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))
    return int(count)


def test_an_output_that_fails_or_loses_frames_is_seen_while_the_line_runs(
    cameras, start_line, tmp_path
):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    camera = cameras.add(size=(160, 120))
    (tmp_path / "full-door.jsonl").symlink_to("/dev/full")
    away = f"rtsp://user:hunter22@127.0.0.1:{free_port()}/away"
    page = PageOfLine()
    line = start_line(
        [f"{camera.url}#name=door"],
        out=[str(tmp_path / "full-{source}.jsonl"), away, page.url],
    )

    def sink(words: str) -> dict[str, Any]:
        (found,) = (one for one in page.state()["sinks"] if words in one["name"])
        return dict(found)

    until(page.is_ready, 60, "the page")
    until(lambda: sink("full-door")["error"], 30, "the full disk")
    assert "disk is full" in sink("full-door")["error"]
    until(lambda: "unreachable" in sink("/away")["frames_dropped"], 30, "a loss")
    until(lambda: sink("lines-")["frames"] >= 10, 30, "results")
    assert not sink("lines-")["error"]
    told = page.ask("/metrics")[1]
    assert "hunter22" not in told + str(page.state())
    failed = [words for words in told.splitlines() if words.startswith("boxstream_sink_failed")]
    assert [words for words in failed if words.endswith(" 1.0")] == [
        words for words in failed if "full-door" in words
    ]
    assert 'cause="unreachable"' in told
    line.stop()
    assert "disk is full" in entry(line, "full-door")["error"]


def test_a_folder_that_cannot_be_written_is_refused_before_the_camera_is_asked(
    cameras, tmp_path, small_model, start_line
):
    camera = cameras.add(size=(160, 120))
    (tmp_path / "file").write_text("in the way")
    line = start_line([camera.url], out=[str(tmp_path / "file" / "a.mp4")])
    assert line.process.wait(timeout=60) == 5
    assert "file" in line.words
