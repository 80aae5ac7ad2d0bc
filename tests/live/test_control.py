"""A running line whose sources come and go: the whole program, over its API."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import run_stream
from pipeline.control import LineControl, RunningLine
from pipeline.detect import Shown
from pipeline.serve import LineNotRunning
from pipeline.settings import RecordedSettings, Settings
from pipeline.sources import Source
from tests.live.kit.cameras import CameraServer
from tests.live.kit.mjpeg import MjpegServer
from tests.live.kit.odd_servers import OddServer, SilentServer
from tests.live.kit.ports import free_port
from tests.live.kit.serving import read_request
from tests.live.kit.vitals import Sample, Vitals
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
STREET = "replay:synthetic://street?size=160x96&fps=5&seconds=600&seed={}"
FPS = 10
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

    def text(self, path: str) -> str:
        """What is served there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return str(answer.read().decode())

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
def start(tmp_path: Path, small_model: Path) -> Iterator[Callable[..., Program]]:
    """``start(SOURCE, ..., "--out", ...)``: the program, ended with the test.

    With a model that takes no time, unless the arguments name another.
    """
    programs: list[Program] = []

    def run(*arguments: str) -> Program:
        model = [] if "--model" in arguments else ["--model", str(small_model)]
        programs.append(Program(tmp_path, *model, *arguments))
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


def test_a_name_that_was_used_is_not_given_again_unasked(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(STREET.format(1), "--out", str(tmp_path / "{source}.jsonl"))
    program.wait_frames("street", 1)
    assert program.ask("POST", "/api/sources", {"url": NOBODY, "name": "street"})[0] == 409
    assert program.ask("DELETE", "/api/sources/street")[0] == 204
    assert program.ask("DELETE", "/api/sources/street")[0] == 404
    lines = (tmp_path / "street.jsonl").read_text()
    status, answer = program.ask("POST", "/api/sources", {"url": STREET.format(2)})
    assert (status, answer["name"]) == (201, "street-2")
    program.wait_frames("street-2", 1)
    assert (tmp_path / "street.jsonl").read_text().startswith(lines)


def test_a_removed_camera_comes_back_under_its_name_with_books_and_outputs_of_its_own(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    program = start(STREET.format(1), "--out", str(tmp_path / "{source}.jsonl"))
    program.wait_frames("street", 2)
    program.ask("PATCH", "/api/sources/street", {"threshold": 0.99})
    assert program.ask("DELETE", "/api/sources/street")[0] == 204
    wish = {"url": STREET.format(2), "name": "street"}
    answers = iter(lambda: program.ask("POST", "/api/sources", wish), None)
    until(lambda: next(answers)[0] == 201, 20, "the outputs finished")
    assert program.sources()["street"]["threshold"] is None
    program.wait_frames("street", 1)
    report = program.stop()
    counts = [report["sources"][name]["frames_inferred"] for name in ("street~1", "street")]
    written = [report["sinks"][str(tmp_path / f"street.jsonl{end}")] for end in ("~1", "")]
    assert [sink["frames"] for sink in written] == counts and counts[0] >= 2 and counts[1] >= 1
    assert len((tmp_path / "street.jsonl").read_text().splitlines()) == sum(counts)
    assert report["totals"]["frames"] == sum(counts)


def test_a_camera_whose_files_could_be_anothers_is_refused_and_another_name_helps(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    outs = [str(tmp_path / f"{{source}}{times}.jsonl") for times in ("%H%M", "%H")]
    program = start(STREET.format(1), "--out", *outs)
    program.wait_frames("street", 1)
    wish = {"url": STREET.format(2), "name": "street12"}
    status, answer = program.ask("POST", "/api/sources", wish)
    assert status == 422 and "give one of them another name" in json.dumps(answer)
    assert program.ask("POST", "/api/sources", wish | {"name": "street-2"})[0] == 201
    program.wait_frames("street-2", 1)
    assert list(program.sources()) == ["street", "street-2"]


def test_one_source_is_shown_by_thresholds_of_its_own(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    urls = [f"{STREET.format(seed)}#name={name}" for seed, name in ((1, "door"), (2, "yard"))]
    words = ["--model", "street", "--threshold", "1.0"]
    program = start(*urls, *words, "--out", str(tmp_path / "{source}.jsonl"))

    def found(name: str) -> int:
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines(keepends=True)
        return sum(len(json.loads(line)["detections"]) for line in lines if line[-1] == "\n")

    for name in ("door", "yard"):
        program.wait_frames(name, 3)
    assert found("door") == found("yard") == 0
    status, seen = program.ask("PATCH", "/api/sources/door", {"threshold": 0.02})
    assert (status, seen["threshold"], seen["class_thresholds"]) == (200, 0.02, None)
    until(lambda: found("door"), 60, "a detection of a low score")
    program.wait_frames("yard", program.sources()["yard"]["frames_inferred"] + 3)
    assert found("yard") == 0
    assert program.ask("PATCH", "/api/sources/nobody", {"threshold": 0.02})[0] == 404
    assert program.ask("PATCH", "/api/sources/door", {"threshold": None})[1]["threshold"] is None


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


@pytest.mark.parametrize("limit", [{"max_frames": 3}, {"duration": 0.5}])
def test_an_added_source_is_read_and_ends_as_the_settings_say(limit: dict[str, Any]) -> None:
    joined = list[Source]()
    roster = SimpleNamespace(
        stays=True, sources=[], names_used=set(), names_in_use=set(), join=joined.append
    )
    control = LineControl(Settings(recorded=RecordedSettings(stride=2), **limit), (), ())
    control.attach(cast(RunningLine, SimpleNamespace(roster=roster)))
    control.add("synthetic://street?size=160x96&fps=10&seconds=2", None)
    assert [round(10 * frame.pts_seconds) for frame in joined[0].frames()] == [0, 2, 4]


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
    cameras: CameraServer,
    mjpeg: Callable[..., MjpegServer],
) -> None:
    """Sources of all kinds, one after the other, while another goes on at its rate."""
    stays = cameras.add("stays", size=(160, 120), fps=FPS).url + "#name=stays"
    program = start(stays, "--out", "null:")
    program.wait_frames("stays", 3)
    halves, frames = list[Sample](), list[tuple[float, int]]()
    alone = at_rest(program, below=1000)
    with SilentServer() as silent:
        urls = {
            "refused": NOBODY,
            "silent": silent.url() + "#open_seconds=3",
            "paused": NOBODY,
            "live": mjpeg().url,
        }
        for cycle in range(1, 1001):
            kind = "live" if cycle % 10 == 0 else ("refused", "silent", "paused")[cycle % 3]
            _, answer = program.ask("POST", "/api/sources", {"url": urls[kind]})
            live_a_little(program, answer["name"], kind)
            assert program.ask("DELETE", f"/api/sources/{answer['name']}")[0] == 204
            if cycle % 25 == 0:
                count = program.sources()["stays"]["frames_inferred"]
                frames.append((time.monotonic(), count))
            if cycle % 500 == 0:
                halves.append(at_rest(program, below=alone["threads"] + 10))
    rates = [(b - a) / (then - at) for (at, a), (then, b) in itertools.pairwise(frames)]
    assert statistics.median(rates) == pytest.approx(FPS, rel=0.1), rates
    first, last = halves
    assert all(last[key] <= first[key] + 3 for key in ("descriptors", "threads")), halves
    assert last["rss_mb"] - first["rss_mb"] <= 8, f"it grows with every source: {halves}"
    assert len(program.stop()["sources"]) <= 51


def at_rest(program: Program, below: float) -> Sample:
    """The least of each sign of life of a program in which one source is left.

    Readers that hang in a silent server go when their time to open is over; memory is given back
    every ten seconds.
    """
    vitals = Vitals(program.process.pid)

    def rests() -> bool:
        vitals.take(0)
        return vitals.samples[-1]["threads"] < below and len(program.sources()) == 1

    until(rests, 60, f"fewer threads than {below}")
    begin = time.monotonic()
    until(lambda: rests() and time.monotonic() - begin > 11, 60, "memory given back")
    return {key: min(sample[key] for sample in vitals.samples) for key in vitals.samples[0]}


def live_a_little(program: Program, name: str, kind: str) -> None:
    """Wait for what a source of that kind comes to."""
    path = f"/api/sources/{name}"
    if kind == "live":
        program.wait_frames(name, 1)
    elif kind == "silent":
        until(lambda: program.sources()[name]["state"] == "CONNECTING", 30, f"{name} hangs")
    elif kind == "paused":
        assert program.ask("PATCH", path, {"paused": True})[0] == 200
        assert program.ask("PATCH", path, {"paused": False})[0] == 200


def test_a_line_that_has_ended_is_still_seen_but_takes_no_orders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, was_asked = run_stream.stream, threading.Event()

    def stream_and_ask(*arguments: Any) -> None:
        stream(*arguments)
        control = arguments[-1]
        for order in (
            partial(control.add, NOBODY, None),
            partial(control.remove, "street"),
            partial(control.pause, "street", True),
            partial(control.set_threshold, 0.5, {}),
        ):
            with pytest.raises(LineNotRunning, match="has ended"):
                order()
        assert [stats.state for stats in control.sources()] == ["ENDED"]
        assert control.engine()["calls"] > 0
        was_asked.set()

    monkeypatch.setattr(run_stream, "stream", stream_and_ask)
    recording = "synthetic://street?seed=3&size=160x96&fps=25&seconds=0.2"
    assert run_stream.main([recording, "--out", "http://127.0.0.1:0", "--quiet"]) == 0
    assert was_asked.is_set()


def test_thresholds_that_were_changed_hold_for_the_recordings_that_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, thresholds = run_stream.stream, list[float]()

    def stream_and_change(*arguments: Any) -> None:
        stream(*arguments)
        thresholds.append(arguments[-1].engine()["threshold"])
        (shown,) = (each for each in arguments if isinstance(each, Shown))
        shown.change(0.9, {})

    monkeypatch.setattr(run_stream, "stream", stream_and_change)
    recordings = [f"synthetic://street?seed={n}&size=160x96&fps=25&seconds=0.2" for n in (3, 4)]
    words = ["--set", "concurrent=1", "detection.threshold=0.4", "--quiet"]
    assert run_stream.main([*recordings, "--out", "http://127.0.0.1:0", *words]) == 0
    assert thresholds == [0.4, 0.9]


def test_a_run_of_recordings_takes_no_cameras_but_other_thresholds(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    """A recording makes the line wait, which a camera must not; and it ends the line."""
    lines = tmp_path / "street.jsonl"
    recording = "synthetic://street?seed=3&size=320x180&fps=25&seconds=600"
    words = ["--model", "street", "--threshold", "0.99"]
    program = start(recording, *words, "--out", str(lines))
    program.wait_frames("street", 3)
    status, answer = program.ask("POST", "/api/sources", {"url": NOBODY})
    assert status == 422 and "recordings only" in json.dumps(answer)
    assert set(program.sources()) == {"street"}
    assert program.ask("PATCH", "/api/detection", {"threshold": 0.1})[0] == 200

    def scores() -> list[float]:
        whole = [line for line in lines.read_text().splitlines(keepends=True) if line[-1] == "\n"]
        return [found["score"] for line in whole for found in json.loads(line)["detections"]]

    until(lambda: any(score < 0.9 for score in scores()), 60, "a detection of a low score")
