"""Outputs that fail or fall behind: each fails alone, and the cameras never wait for one."""

from __future__ import annotations

import socket
from typing import Any

from tests.live.kit.line import Line, adds_up
from tests.live.kit.odd_servers import SilentServer
from tests.live.kit.ports import free_port
from tests.waiting import until


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


def test_a_viewer_of_the_page_who_never_reads_holds_up_nothing(cameras, start_line):
    camera = cameras.add(size=(160, 120))
    port = free_port()
    line = start_line([camera.url], out=[f"http://127.0.0.1:{port}"])
    line.wait_records(5)
    until(lambda: is_open(port), 30, "the page")
    greedy = []
    for path in ("/", "/metrics", "/api/sources"):
        viewer = socket.create_connection(("127.0.0.1", port), timeout=10)
        viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        greedy.append(viewer)
    line.wait_records(40)
    assert line.stop() < 20
    for viewer in greedy:
        viewer.close()
    check_others(line)


def test_a_folder_that_cannot_be_written_is_refused_before_the_camera_is_asked(
    cameras, tmp_path, small_model, start_line
):
    camera = cameras.add(size=(160, 120))
    (tmp_path / "file").write_text("in the way")
    line = start_line([camera.url], out=[str(tmp_path / "file" / "a.mp4")])
    assert line.process.wait(timeout=60) == 5
    assert "file" in line.words


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
