"""An engine that is too slow for a while, or hangs: what the line does about it, and says."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.kit.line import Line, adds_up
from tests.live.kit.page import PageOfLine
from tests.models.sized import write_sized
from tests.waiting import until

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_line_that_is_too_slow_for_its_budget_gives_up_frame_rate_and_takes_it_back(
    cameras: Any, start_slow_line: Callable[..., Line]
) -> None:
    """Calls of 185 ms for a picture every 167 ms: each waits for a call, and then for its own.

    That is some 340 ms. With fewer pictures none has to wait, and the way takes some 210 ms. A
    busy machine may cost more than the first concession, and each takes a while to be taken back.
    """
    camera = cameras.add(size=(160, 120), fps=6)
    page = PageOfLine()
    budget = ["--latency-budget", "280"]
    line = start_slow_line([camera.url], call_ms=185, out=[page.url], settings=budget)

    def given_up() -> str:
        return str((page.state()["latency_budget"] or {}).get("given_up", "nothing"))

    until(page.is_ready, 60, "the page")
    until(lambda: given_up() != "nothing", 30, "a concession")
    # It missed every window up to here, so this many were kept since.
    until(lambda: (page.state()["latency_budget"]["kept"] or 0) > 0.6, 90, "a budget that is kept")
    assert given_up() != "nothing"
    (source,) = page.state()["sources"]
    assert source["fps"] < 0.8 * source["offered_fps"]
    assert source["frames_dropped"]["latency_budget"] > 0

    line.slow_down(call_ms=5)
    until(lambda: given_up() == "nothing", 120, "everything taken back")
    line.wait_records(20)  # of 6 a second
    refused = page.state()["sources"][0]["frames_dropped"]["latency_budget"]
    line.wait_records(10)
    assert page.state()["sources"][0]["frames_dropped"]["latency_budget"] == refused
    line.stop()
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    told = line.report["latency_budget"]
    assert told["given_up"] == "nothing"
    assert told["seconds_given_up"]["a quarter of the frame rate"] > 2
    assert "latency budget of 280 ms: kept " in line.words
    assert "given up: a quarter of the frame rate for " in line.words


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_line_whose_calls_alone_take_longer_than_its_budget_makes_do_with_a_smaller_input(
    cameras: Any, start_slow_line: Callable[..., Line], tmp_path: Path
) -> None:
    """Calls of 260 ms at the usual size and of 65 at the smaller one: only these keep 240 ms."""
    model = write_sized(tmp_path / "sized.onnx", [(64, 96), (32, 48)])
    camera = cameras.add(size=(160, 120), fps=12)
    page = PageOfLine()
    line = start_slow_line(
        [camera.url],
        call_ms=260,
        model=model,
        out=[page.url],
        settings=["--latency-budget", "240"],
        environment={"FEWEST_FRAMES": "2"},
    )

    def budget() -> dict[str, Any]:
        return page.state()["latency_budget"] or {"given_up": "nothing", "kept": None}

    until(page.is_ready, 60, "the page")
    until(lambda: "input larger than 32x48" in budget()["given_up"], 60, "a smaller input")
    before = budget()["kept"]
    until(lambda: budget()["kept"] > before, 60, "a window that is kept")
    line.slow_down(call_ms=5)
    until(lambda: budget()["given_up"] == "nothing", 150, "everything taken back")
    line.wait_records(5)
    line.stop()
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    costs = line.report["latency_budget"]["seconds_given_up"]
    assert list(costs)[-1].endswith("and an input larger than 32x48")
    assert costs[list(costs)[-1]] > 2
    assert "and an input larger than 32x48 for " in line.words


@pytest.mark.slow
def test_an_engine_that_hangs_makes_the_line_not_ready_until_it_answers(
    cameras: Any, start_slow_line: Callable[..., Line]
) -> None:
    camera = cameras.add(size=(160, 120), fps=10)
    page = PageOfLine()
    line = start_slow_line([camera.url], call_ms=20, out=[page.url])
    until(page.is_ready, 60, "the page")
    line.wait_records(5)
    begin = time.monotonic()
    line.slow_down(call_ms=14_000)
    until(lambda: page.state()["engine"]["silent_seconds"] > 1, 30, "a call that takes long")
    line.slow_down(call_ms=20)  # there is one camera, so no second call has begun
    assert "the engine" not in page.ask("/ready")[1], "a second or two are no reason"
    answers = list[tuple[int, str]]()

    def is_said() -> bool:
        answers.append(page.ask("/ready"))
        return "the engine" in answers[-1][1]

    until(is_said, 30, "a line that says why it is not ready")
    assert time.monotonic() - begin > 10
    status, text = answers[-1]
    assert status == 503
    assert re.search(r'"the engine has not answered for 1\d s"', text)
    until(page.is_ready, 40, "a line that is ready again")
    line.wait_records(10)
    line.stop()
    assert line.words.count("the engine has not answered") == 1
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    assert source["frames_dropped"]["queue_full"] > 50, "the camera was not read on"
