"""What is said at the end of a run, and where the report goes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.report import build_report, try_report, write_report
from pipeline.bookkeeping.summary import print_summary
from pipeline.errors import ConfigError, SinkError

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


def test_the_summary_says_what_was_damaged_one_line_for_each_source():
    cut, torn, whole = (SourceStats(name) for name in ("cut", "torn", "whole"))
    cut.anomalies.update(truncated=1, corrupt_packet=1)
    torn.anomalies.update(corrupt_packet=3)
    whole.anomalies.update(pts_jump=2)
    full = SourceStats("full")
    full.anomalies.update(inexact=2)
    lines = summary(sources=[cut, torn, whole, full]).splitlines()
    assert "cut: the file is cut short; 1 packet could not be decoded" in lines
    assert "torn: 3 packets could not be decoded" in lines
    assert "full: 2 frames too full for the model file's bounds" in lines
    assert not any(line.startswith("whole:") for line in lines)


def test_the_summary_says_what_an_output_could_not_take():
    dropped = {"connecting": 7, "unreachable": 34}
    pushed = {"path": "rtsp://server/x", "frames": 0, "dropped": dropped, "error": None}
    taken = {"path": "rtsp://server/y", "frames": 41, "dropped": {}, "error": None}
    lines = summary(sinks={sink["path"]: sink for sink in (pushed, taken)}).splitlines()
    assert "wrote rtsp://server/x (0 frames, dropped 41 (7 connecting, 34 unreachable))" in lines
    assert "wrote rtsp://server/y (41 frames)" in lines


def test_a_place_for_the_report_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    place = tmp_path / "new" / "report.json"
    try_report(str(place))
    assert place.parent.is_dir() and not place.exists()
    link = tmp_path / "link.json"
    link.symlink_to(place)
    try_report(str(link))
    assert link.is_symlink() and not place.exists()


def test_an_older_report_stays_until_there_is_a_new_one(tmp_path: Path) -> None:
    about: dict[str, Any] = {"engine": ENGINE, "sources": [], "sinks": {}, "stages": {}}
    report = build_report(wall_seconds=1.0, truth=None, interrupted=None, **about)
    place = tmp_path / "report.json"
    place.touch()  # as mktemp leaves it
    try_report(str(place))
    write_report(report, str(place))
    before = place.read_bytes()
    try_report(str(place))
    assert place.read_bytes() == before


@pytest.mark.parametrize("content", [b"ftypisom", b"model: street\n", b'{"source": "drive"}\n'])
def test_what_is_no_report_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "precious"
    place.write_bytes(content)
    link = tmp_path / "link"
    link.symlink_to(place)
    for path in (place, link):
        with pytest.raises(ConfigError, match="is no report; choose another --report"):
            try_report(str(path))
    assert place.read_bytes() == content


def test_a_place_where_nothing_can_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "report.json", tmp_path / ("x" * 300)):
        with pytest.raises(SinkError, match="choose another --report"):
            try_report(str(place))


def test_a_pipe_is_not_tried_as_its_reader_would_take_that_for_the_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    try_report(str(pipe))  # opening it would wait for a reader
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb"):
        try_report(f"/dev/fd/{writer}")
