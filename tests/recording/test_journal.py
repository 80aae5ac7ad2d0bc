"""What cameras saw, which nobody can repeat: it outlives restarts, and goes when it is old."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks import open_sink
from pipeline.sinks.journal import JournalSink
from pipeline.sinks.pattern import FilePattern
from tests.recording.footage import FPS, LIVE, NAMES, NOON, dates, shot
from tests.recording.test_retention import aged, names

DAY = 24 * 3600


def write(out: Path, numbers: range, live: bool = True) -> None:
    with open_sink(str(out), replace(LIVE, live=live), VideoSettings()) as sink:
        for number in numbers:
            sink.write(shot(number))


def frames(path: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def test_a_restart_goes_on_behind_what_was_detected_before(tmp_path: Path) -> None:
    path = tmp_path / "cam.jsonl"
    write(path, range(3))
    write(path, range(2))
    assert frames(path) == [0, 1, 2, 0, 1]
    write(path, range(4), live=False)  # a recording says the same each time
    assert frames(path) == [0, 1, 2, 3]


@pytest.mark.parametrize("torn", ['{"source": "cam", "fra', "x" * 200_000])
@pytest.mark.parametrize("whole", [0, 2])
def test_a_line_that_a_crash_left_unfinished_is_cut_off(
    tmp_path: Path, torn: str, whole: int
) -> None:
    path = tmp_path / "cam.jsonl"
    write(path, range(whole))
    with path.open("a") as file:
        file.write(torn)
    write(path, range(5, 7))
    assert frames(path) == [*range(whole), 5, 6]


LIMITED = """
import resource, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.recording.test_journal import write
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
write(Path({out!r}), range(100))
"""


def test_a_line_that_does_not_fit_behind_others_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "cam.jsonl"
    write(path, range(3))
    code = LIMITED.format(path=sys.path, out=str(path))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "largest size allowed" in ended.stderr
    assert frames(path)[:6] == [0, 1, 2, 0, 1, 2] and path.read_bytes().endswith(b"\n")


def test_each_day_has_a_file_and_the_old_ones_go(tmp_path: Path) -> None:
    pattern = FilePattern(f"{tmp_path}/cam/%Y/%m%d.jsonl")
    aged(tmp_path / "cam/2020/0101.jsonl", 25)
    aged(tmp_path / "cam/2020/0102.jsonl", 23)
    aged(tmp_path / "cam/2020/notes.jsonl", 25)
    recording = RecordingSettings(keep_seconds=DAY)

    def run(*numbers: int) -> dict[str, object]:
        with JournalSink(pattern, LIVE, recording, dates) as sink:
            for number in numbers:
                sink.write(shot(number))
        return sink.report()

    tomorrow = DAY * FPS
    report = run(0, 1, tomorrow)
    again = run(2, tomorrow + 1)
    today, next_day = pattern.named(NOON), pattern.named(NOON + DAY)
    assert frames(today) == [0, 1, 2] and frames(next_day) == [tomorrow, tomorrow + 1]
    assert names(tmp_path / "cam/2020") == ["0102.jsonl", "notes.jsonl"]
    size = today.stat().st_size + next_day.stat().st_size
    assert (report["frames"], report["files"], report["files_deleted"]) == (3, 2, 1)
    assert again["files_deleted"] == 0
    assert isinstance(report["bytes"], int) and isinstance(again["bytes"], int)
    assert report["bytes"] + again["bytes"] == size


def test_the_name_decides_whether_it_is_one_file_or_many(tmp_path: Path) -> None:
    made = open_sink(f"{tmp_path}/{{source}}/%Y%m%d.jsonl", LIVE, VideoSettings())
    assert isinstance(made, JournalSink) and made.name == f"{tmp_path}/cam/%Y%m%d.jsonl"
    with pytest.raises(ConfigError, match=r"unknown \{event\}"):
        open_sink(f"{tmp_path}/%H-{{event}}.jsonl", LIVE, VideoSettings())
    with pytest.raises(ConfigError, match="unknown %Q"):
        open_sink(f"{tmp_path}/%Q.jsonl", replace(LIVE, class_names=NAMES), VideoSettings())
