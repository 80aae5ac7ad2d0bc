"""Recordings as asked for on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from run_stream import main
from tests.recording.footage import look

STREET = "synthetic://street?seed=0&size=640x360&fps=25&seconds=5"


def test_one_run_writes_segments_events_and_a_playlist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outs = [
        "rec/{source}/%Y%m%d-%H%M%S-%f.mp4",
        "rec/{source}/seen/{event}-%H%M%S.mp4",
        "live/{source}/index.m3u8",
    ]
    settings = ["recording.event_classes=[car]", "recording.event_score=0.3"]
    code = main([STREET, "--out", *outs, "--segment", "2s", "--keep", "24h", "--set", *settings])
    assert code == 0
    sinks = json.loads((tmp_path / "out/report.json").read_text())["sinks"]
    segments, events, playlist = sinks.values()
    assert segments["files"] == 3 and segments["frames"] == segments["frames_recorded"] == 125
    assert events["events"] >= 1 and events["files"] >= 1
    assert playlist["frames"] == 125 and playlist["files"] == 3
    (source,) = (tmp_path / "rec").iterdir()
    assert sum(len(look(file)[0]) for file in source.glob("*.mp4")) == 125
    lines = (source / "seen" / "events.jsonl").read_text().splitlines()
    assert len(lines) == events["events"] and json.loads(lines[0])["event"] == "car"


@pytest.mark.parametrize("flag", ["--segment", "--keep"])
def test_a_length_that_is_none_is_an_error(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert main([STREET, "--out", "%H.mp4", flag, "soon"]) == 2
    assert f"{flag}: 'soon' is no length of time; write" in capsys.readouterr().err
