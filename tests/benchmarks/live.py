"""How old are results when they come, and what becomes of them when cameras fail?

A GStreamer RTSP server paints the time into every picture (`tests/live/kit`); each program's
results are dated when they reach the end of its line. All programs have the same detector, whose
every call takes a fixed time (`viewers`). Overload is measured one program at a time, failures
with all programs watching the same camera at once.

Roboflow's InferencePipeline joins in where ``--inference-python`` names a Python that has it
(``pip install inference openvino av`` in an environment of its own), and is left out elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from tests.benchmarks.material import REPOSITORY
from tests.benchmarks.outcome import Row, arguments, report, wanted
from tests.live.kit.cameras import CameraServer, why_no_cameras
from tests.live.kit.odd_servers import refused_url
from tests.live.kit.wire import Wire

FPS, SIZE = 25, (640, 360)
OVERLOADS = {"1x": 40.0, "2.5x": 100.0, "5x": 200.0}
WARM_UP_SECONDS = 3.0
START_SECONDS = 120.0  # some import for a minute on a busy machine
SLOW_FPS, EASY_CALL_MS = 10, 20.0  # so that all programs together do not fill the machine
OVERLOAD_SECONDS, DEAD_SECONDS, SILENT_SECONDS = 20.0, 4.0, 45.0
GIVE_UP_SECONDS = 25.0
COLUMNS = {
    "name": "what, program",
    "p50_ms": "age p50 ms",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "max_ms": "max",
    "growth_ms": "growth",
    "fps": "results/s",
    "back_seconds": "back after s",
    "verdict": "what happened",
}


class Viewer:
    """A program that watches, and what it has said so far.

    Attributes:
        results: Its lines, in order; a dictionary each.
    """

    def __init__(self, program: str, urls: Sequence[str], call_ms: float, python: str) -> None:
        self.program = program
        self.results: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        command = [python, "-m", "tests.benchmarks.viewers", program, "--call-ms", str(call_ms)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OPENCV_LOG_LEVEL": "FATAL"}
        self._process = subprocess.Popen(
            [*command, *urls],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""
        self._readers = [threading.Thread(target=run) for run in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    @property
    def has_ended(self) -> bool:
        """Whether the program has ended by itself."""
        return self._process.poll() is not None

    def wait_for(self, seen: Callable[[dict[str, Any]], bool], seconds: float) -> float | None:
        """When the first result came for which `seen` holds; None if it ended, or never came."""
        deadline, looked = time.monotonic() + seconds, 0
        while True:
            with self.changed:
                for result in self.results[looked:]:
                    if seen(result):
                        return float(result["at"])
                looked = len(self.results)
                left = deadline - time.monotonic()
                if left <= 0 or self.has_ended:
                    return None
                self.changed.wait(min(left, 0.5))

    def between(self, start: float, end: float) -> list[dict[str, Any]]:
        """Readable results that came in that time."""
        with self.changed:
            found = list(self.results)
        return [r for r in found if start <= r["at"] < end and r["age"] is not None]

    def close(self) -> None:
        """Stop it, kindly at first."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=8)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for reader in self._readers:
            reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                with self.changed:
                    self.results.append(json.loads(line))
                    self.changed.notify_all()

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors = self._process.stderr.read()


@contextmanager
def watching(
    programs: Sequence[str], urls: Sequence[str], call_ms: float, pythons: dict[str, str]
) -> Iterator[list[Viewer]]:
    """The programs, each watching the same cameras."""
    with ExitStack() as stack:
        viewers = []
        for program in programs:
            viewers.append(Viewer(program, urls, call_ms, pythons[program]))
            stack.callback(viewers[-1].close)
        yield viewers


def overload(program: str, name: str, seconds: float, pythons: dict[str, str]) -> Row:
    """Age of results when each call takes so long; one program alone on the machine."""
    call_ms = OVERLOADS[name]
    with CameraServer() as server:
        camera = server.add("front", size=SIZE, fps=FPS)
        with watching([program], [camera.url], call_ms, pythons) as (viewer,):
            began = viewer.wait_for(lambda _result: True, START_SECONDS)
            if began is None:
                return {"name": f"{name} {program}", "verdict": "no result at all"}
            start, end = began + WARM_UP_SECONDS, began + WARM_UP_SECONDS + seconds
            viewer.wait_for(lambda result: result["at"] >= end, seconds + 10)
            found = viewer.between(start, end)
    ages = [result["age"] * 1e3 for result in found]
    return {
        "name": f"{name} {program}",
        "call_ms": call_ms,
        **percentiles(ages),
        "growth_ms": round(growth(ages)),
        "fps": round(len(found) / seconds, 2),
        "said": account(viewer),
        "verdict": "age grows without end" if growth(ages) > 1000 else "age stays",
    }


def percentiles(ages: Sequence[float]) -> dict[str, int | None]:
    """Of ages in ms."""
    if not ages:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None, "max_ms": None}
    values = {f"p{p}_ms": round(float(np.percentile(ages, p))) for p in (50, 95, 99)}
    return values | {"max_ms": round(max(ages))}


def growth(ages: Sequence[float]) -> float:
    """Median of the last fifth less that of the first."""
    fifth = max(1, len(ages) // 5)
    return statistics.median(ages[-fifth:]) - statistics.median(ages[:fifth]) if ages else 0.0


def account(viewer: Viewer) -> dict[str, Any] | None:
    """What boxstream says about its own drops; nobody else says anything."""
    lines = [line for line in viewer.errors.splitlines() if line.startswith('{"state"')]
    return json.loads(lines[-1]) if lines else None


def killed(
    programs: Sequence[str], rounds: int, new_size: bool, pythons: dict[str, str]
) -> list[Row]:
    """The camera dies, and is back on its port four seconds later, perhaps with another size."""
    times: dict[str, list[float | None]] = {program: [] for program in programs}
    what = "killed, other size" if new_size else "killed"
    for _ in range(rounds):
        with CameraServer() as server:
            camera = server.add("front", size=SIZE, fps=SLOW_FPS)
            with watching(programs, [camera.url], EASY_CALL_MS, pythons) as viewers:
                started = all_started(viewers)
                server.kill()
                threading.Event().wait(DEAD_SECONDS)
                camera.options |= {"width": 320, "height": 240} if new_size else {}
                server.start()
                back = time.monotonic()
                for viewer in started:
                    at = viewer.wait_for(is_fresh_since(back), GIVE_UP_SECONDS)
                    times[viewer.program].append(None if at is None else at - back)
    return [recovery(f"{what}: {name}", found) for name, found in times.items()]


def recovery(name: str, found: Sequence[float | None]) -> Row:
    """The row for times until the first new picture; None for never."""
    back = [seconds for seconds in found if seconds is not None]
    if not back:
        return {"name": name, "verdict": "never came back"}
    verdict = "comes back" if len(back) == len(found) else f"{len(back)} times of {len(found)}"
    return {"name": name, "back_seconds": round(statistics.median(back), 2), "verdict": verdict}


def silent(programs: Sequence[str], seconds: float, pythons: dict[str, str]) -> list[Row]:
    """Nothing passes the wire for so long, no connection breaks; then everything does."""
    rows: list[Row] = []
    with CameraServer() as server, Wire(server.port) as wire:
        camera = server.add("front", size=SIZE, fps=SLOW_FPS)
        urls = [wire.through(camera.url)]
        with watching(programs, urls, EASY_CALL_MS, pythons) as viewers:
            all_started(viewers)
            wire.hold()
            held = time.monotonic()
            threading.Event().wait(seconds)
            wire.release()
            back = time.monotonic()
            for viewer in viewers:
                at = viewer.wait_for(is_fresh_since(back), GIVE_UP_SECONDS)
                name = f"silent {seconds:g} s: {viewer.program}"
                late = [r["age"] * 1e3 for r in viewer.between(held + 2, back + GIVE_UP_SECONDS)]
                old = sum(age > 2000 for age in late)
                verdict = f"{old} results older than 2 s" if old else "no old picture"
                if at is None:
                    verdict += "; never came back"
                since = None if at is None else round(at - back, 2)
                oldest = round(max(late)) if late else None
                rows.append(
                    {"name": name, "back_seconds": since, "max_ms": oldest, "verdict": verdict}
                )
    return rows


def dead_at_start(programs: Sequence[str], seconds: float, pythons: dict[str, str]) -> list[Row]:
    """Two cameras, of which one does not answer: does the other one give results?"""
    rows: list[Row] = []
    with CameraServer() as server:
        camera = server.add("front", size=SIZE, fps=SLOW_FPS)
        urls = [refused_url(), camera.url]
        with watching(programs, urls, EASY_CALL_MS, pythons) as viewers:
            for viewer in viewers:
                began = viewer.wait_for(lambda result: result["age"] is not None, START_SECONDS)
                name = f"one dead at start: {viewer.program}"
                if began is None:
                    verdict = "ends" if viewer.has_ended else "no results at all"
                    rows.append({"name": name, "verdict": verdict})
                    continue
                viewer.wait_for(lambda r, end=began + seconds: r["at"] > end, seconds + 5)
                found = viewer.between(began, began + seconds)
                ages = percentiles([result["age"] * 1e3 for result in found])
                fps = round(len(found) / seconds, 2)
                rows.append({"name": name, **ages, "fps": fps, "verdict": "goes on"})
    return rows


def all_started(viewers: Sequence[Viewer]) -> list[Viewer]:
    """Wait until all have seen something, and a little longer; those that never did, too."""
    for viewer in viewers:
        viewer.wait_for(lambda result: result["age"] is not None, START_SECONDS)
    threading.Event().wait(WARM_UP_SECONDS)
    return list(viewers)


def is_fresh_since(moment: float) -> Callable[[dict[str, Any]], bool]:
    """Tell whether a result's picture was painted after that moment."""
    return lambda result: result["age"] is not None and result["at"] - result["age"] >= moment


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    python = {"metavar": "FILE", "help": "a Python that can import Roboflow's inference"}
    asked = arguments("live", __doc__, 3, argv, inference_python=python)
    missing = why_no_cameras()
    if missing:
        raise SystemExit(missing)
    pythons = dict.fromkeys(("boxstream", "opencv", "opencv-latest"), sys.executable)
    if asked.inference_python:
        pythons["inference"] = asked.inference_python
    programs = [name for name in pythons if wanted(name, asked.only)]
    rows: list[Row] = []
    for name in ["2.5x"] if asked.smoke else OVERLOADS:
        seconds = 2.0 if asked.smoke else OVERLOAD_SECONDS
        rows += [overload(program, name, seconds, pythons) for program in programs]
    rows += killed(programs, asked.rounds, False, pythons)
    if not asked.smoke:
        rows += killed(programs, 1, True, pythons)
        rows += silent(programs, SILENT_SECONDS, pythons)
        rows += dead_at_start(programs, OVERLOAD_SECONDS / 2, pythons)
    report(
        "live",
        asked,
        rows,
        COLUMNS,
        title=f"Live: {SIZE[0]}x{SIZE[1]} over RTSP, {FPS} frames/s (failures: {SLOW_FPS})",
        notes=[
            "age: from painting the picture to the end of the line; 1x, 2.5x, 5x: each call of "
            "the detector takes 40, 100, 200 ms",
            "back: from the camera's return to the first result of a picture painted after it",
            *([] if "inference" in programs else ["inference (Roboflow) is not installed here"]),
        ],
    )


if __name__ == "__main__":
    main()
