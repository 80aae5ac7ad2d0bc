"""What is said at the end of a run."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from pipeline.report import build_report
from pipeline.summary import print_summary

ENGINE = {
    "name": "openvino",
    "precision": "f32",
    "reason": "as asked",
    "model": "street",
    "input_size_hw": [288, 512],
    "batch": 1,
}


def summary(**parts: Any) -> str:
    """What is printed for a report with these parts."""
    about: dict[str, Any] = {"engine": ENGINE, "sources": [], "sinks": {}, "stages": {}}
    report = build_report(wall_seconds=1.0, truth=None, interrupted=None, **about | parts)
    said = io.StringIO()
    print_summary(report, Console(file=said, width=160))
    return said.getvalue()


@pytest.mark.parametrize(
    ("kept", "seconds_given_up", "line"),
    [
        (1.0, {}, "kept 100% of the time; nothing given up"),
        (
            0.94,
            {"a quarter of the frame rate": 12.4, "half of the frame rate": 6.0},
            "kept 94% of the time; given up: a quarter of the frame rate for 12 s; "
            "half of the frame rate for 6 s",
        ),
        (None, {}, "too few frames to judge; nothing given up"),
    ],
)
def test_the_summary_says_how_often_the_latency_budget_was_kept_and_what_that_cost(
    kept, seconds_given_up, line
):
    budget = {"budget_ms": 200.0, "kept": kept, "given_up": "nothing"}
    said = summary(latency_budget=budget | {"seconds_given_up": seconds_given_up})
    assert f"latency budget of 200 ms: {line}\n" in said


def test_without_a_latency_budget_the_summary_says_nothing_of_one():
    assert "latency budget" not in summary(latency_budget=None)
