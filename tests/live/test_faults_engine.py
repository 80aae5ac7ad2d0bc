"""An engine that is too slow for a while: what the line gives up, says, and takes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live.kit.line import Line, adds_up
from tests.live.kit.page import PageOfLine
from tests.waiting import until

pytest.importorskip("fastapi")


@pytest.mark.slow
def test_a_line_that_is_too_slow_for_its_budget_gives_up_frame_rate_and_takes_it_back(
    cameras: Any, start_slow_line: Callable[..., Line]
) -> None:
    """Calls of 165 ms for a picture every 143 ms: each waits for a call, and then for its own.

    That is some 300 ms. With fewer pictures none has to wait, and the way takes some 190 ms.
    """
    camera = cameras.add(size=(160, 120), fps=7)
    page = PageOfLine()
    budget = ["--latency-budget", "250"]
    line = start_slow_line([camera.url], call_ms=165, out=[page.url], settings=budget)

    def given_up() -> str:
        return str((page.state()["latency_budget"] or {}).get("given_up", "nothing"))

    until(page.is_ready, 60, "the page")
    until(lambda: given_up() != "nothing", 30, "a concession")
    # It missed every window up to here, so this many were kept since.
    until(lambda: (page.state()["latency_budget"]["kept"] or 0) > 0.6, 40, "a budget that is kept")
    assert given_up() != "nothing"
    (source,) = page.state()["sources"]
    assert source["fps"] < 0.8 * source["offered_fps"]
    assert source["frames_dropped"]["latency_budget"] > 0

    line.slow_down(call_ms=5)
    until(lambda: given_up() == "nothing", 60, "everything taken back")
    line.wait_records(20)  # of 7 a second
    refused = page.state()["sources"][0]["frames_dropped"]["latency_budget"]
    line.wait_records(10)
    assert page.state()["sources"][0]["frames_dropped"]["latency_budget"] == refused
    line.stop()
    (source,) = line.report["sources"].values()
    assert adds_up(source)
    told = line.report["latency_budget"]
    assert told["given_up"] == "nothing"
    assert told["seconds_given_up"]["a quarter of the frame rate"] > 2
    assert "latency budget of 250 ms: kept " in line.words
    assert "given up: a quarter of the frame rate for " in line.words
