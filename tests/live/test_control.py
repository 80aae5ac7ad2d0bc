"""A running line whose sources come and go: the whole program, over its API."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.kit.odd_servers import OddServer
from tests.live.kit.ports import free_port
from tests.live.kit.serving import read_request
from tests.live.kit.vitals import Vitals
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
STREET = "replay:synthetic://street?size=160x96&fps=5&seconds=600&seed={}"
NOBODY = "rtsp://127.0.0.1:9/none"


class Program:
    """boxstream with a page, as a process; `arguments` end with ``--out``, for one more of them."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port, self.report = free_port(), folder / "report.json"
        page = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "run_stream.py", *arguments, page, "--report", str(self.report)]
        self.process = subprocess.Popen([*command, "--quiet"], cwd=REPOSITORY)
        until(self._answers, within=60, what="the page")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(
                method, path, json.dumps(body) if body is not None else None, headers
            )
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def sources(self) -> dict[str, dict[str, Any]]:
        """All sources by name."""
        return {source["name"]: source for source in self.ask("GET", "/api/sources")[1]}

    def wait_frames(self, name: str, count: int) -> None:
        """Wait until so many frames of a source have been inferred."""
        until(lambda: self.sources()[name]["frames_inferred"] >= count, 60, f"frames of {name}")

    def stop(self) -> dict[str, Any]:
        """End it in order; return its report."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 130
        return json.loads(self.report.read_text())

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the program has ended"
        try:
            return self.ask("GET", "/ready")[0] == 200
        except OSError:
            return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """``start(SOURCE, ..., "--out", ...)``: the program, ended with the test."""
    programs: list[Program] = []

    def run(*arguments: str) -> Program:
        programs.append(Program(tmp_path, *arguments))
        return programs[-1]

    yield run
    for program in programs:
        program.process.kill()
        program.process.wait()


def test_a_source_joins_and_leaves_and_its_files_are_finished(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(STREET.format(1), "--out", str(tmp_path / "{source}.jsonl"))
    program.wait_frames("street", 3)
    status, answer = program.ask(
        "POST", "/api/sources", {"url": STREET.format(2), "name": "second"}
    )
    assert (status, answer["name"]) == (201, "second")
    program.wait_frames("second", 3)
    assert program.ask("DELETE", "/api/sources/second")[0] == 204
    assert "second" not in program.sources()
    before = program.sources()["street"]["frames_inferred"]
    program.wait_frames("street", before + 3)
    report = program.stop()
    for name in ("street", "second"):
        source = report["sources"][name]
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == source["frames_inferred"] >= 3
        assert {json.loads(line)["source"] for line in lines} == {name}
        dropped = sum(source["frames_dropped"].values())
        assert source["frames_decoded"] == source["frames_inferred"] + dropped


def test_a_name_that_was_used_is_not_used_again(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(STREET.format(1), "--out", str(tmp_path / "{source}.jsonl"))
    program.wait_frames("street", 1)
    assert program.ask("POST", "/api/sources", {"url": NOBODY, "name": "street"})[0] == 409
    assert program.ask("DELETE", "/api/sources/street")[0] == 204
    assert program.ask("DELETE", "/api/sources/street")[0] == 404
    lines = (tmp_path / "street.jsonl").read_text()
    assert program.ask("POST", "/api/sources", {"url": NOBODY, "name": "street"})[0] == 409
    status, answer = program.ask("POST", "/api/sources", {"url": STREET.format(2)})
    assert (status, answer["name"]) == (201, "street-2")
    program.wait_frames("street-2", 1)
    assert (tmp_path / "street.jsonl").read_text().startswith(lines)


class Eavesdropper(OddServer):
    """Asks whoever comes for user and password, and keeps what it is sent."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        if request := read_request(client):
            self.heard += request
            client.sendall(
                b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="camera"\r\n'
                b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            )


def test_an_added_camera_is_sent_no_secret_of_ours(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever may add a camera could have our environment and files sent to one of theirs."""
    monkeypatch.setenv("OUR_SECRET", "open-sesame")
    (tmp_path / "login").write_text("viewer:open-sesame\n")
    program = start(
        *(STREET.format(1), "--set", f"live.credentials={tmp_path / 'login'}", "--out", "null:")
    )
    program.wait_frames("street", 1)
    with Eavesdropper() as server:
        asked = {
            f"{server.url('http')}?leak=$OUR_SECRET": "OUR_SECRET",
            server.url("http", "viewer:${OUR_SECRET}"): "OUR_SECRET",
            f"{server.url('http')}#credentials={tmp_path / 'login'}": "credentials",
        }
        for url, why in asked.items():
            status, answer = program.ask("POST", "/api/sources", {"url": url})
            assert status == 422 and why in answer["detail"] and answer["remedy"], answer
        assert server.connections == 0
        assert program.ask("POST", "/api/sources", {"url": server.url("http")})[0] == 201
        until(lambda: program.sources()["127.0.0.1-cam"]["failures"], 60, "a refusal")
        assert server.heard
        assert not [line for line in server.heard if line.lower().startswith("authorization")]
    assert "open-sesame" not in json.dumps(program.stop())


def test_a_paused_source_gives_nothing_until_it_goes_on(start: Callable[..., Program]) -> None:
    program = start(STREET.format(1), "--out", "null:")
    program.wait_frames("street", 2)
    assert program.ask("PATCH", "/api/sources/street", {"paused": True})[0] == 200
    until(lambda: program.sources()["street"]["state"] == "PAUSED", 20, "the pause")
    done = program.sources()["street"]["frames_inferred"]
    assert program.ask("GET", "/ready")[0] == 503
    assert program.sources()["street"]["frames_inferred"] <= done + 1
    assert program.ask("PATCH", "/api/sources/street", {"paused": False})[0] == 200
    program.wait_frames("street", done + 3)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_thousand_sources_that_came_and_went_leave_the_program_as_it_was(
    start: Callable[..., Program],
) -> None:
    program = start(STREET.format(1), "--out", "null:")
    vitals = Vitals(program.process.pid)
    for cycle in range(1, 1001):
        _, answer = program.ask("POST", "/api/sources", {"url": NOBODY})
        assert program.ask("DELETE", f"/api/sources/{answer['name']}")[0] == 204
        if cycle % 50 == 0:
            until(lambda: len(program.sources()) == 1)
            vitals.take(cycle)
    first = vitals.samples[3]

    def is_as_before() -> bool:
        """Those that were told to go may take a moment."""
        vitals.take(1000)
        last = vitals.samples[-1]
        return all(last[key] <= first[key] + 3 for key in ("descriptors", "threads"))

    until(is_as_before, 30, f"as few threads and descriptors as in {first}")
    grown = vitals.samples[-1]["rss_mb"] - first["rss_mb"]
    assert grown <= 12, "it grows with every source"
    done = program.sources()["street"]["frames_inferred"]
    program.wait_frames("street", done + 3)
    assert len(program.stop()["sources"]) <= 51


def test_a_run_of_recordings_takes_no_cameras_but_other_thresholds(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    """A recording makes the line wait, which a camera must not; and it ends the line."""
    lines = tmp_path / "street.jsonl"
    recording = "synthetic://street?seed=3&size=320x180&fps=25&seconds=600"
    program = start(recording, "--threshold", "0.99", "--out", str(lines))
    program.wait_frames("street", 3)
    status, answer = program.ask("POST", "/api/sources", {"url": NOBODY})
    assert status == 422 and "recordings only" in json.dumps(answer)
    assert set(program.sources()) == {"street"}
    assert program.ask("PATCH", "/api/detection", {"threshold": 0.1})[0] == 200

    def scores() -> list[float]:
        whole = [line for line in lines.read_text().splitlines(keepends=True) if line[-1] == "\n"]
        return [found["score"] for line in whole for found in json.loads(line)["detections"]]

    until(lambda: any(score < 0.9 for score in scores()), 60, "a detection of a low score")
