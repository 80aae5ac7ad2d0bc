"""Old recordings go; nothing else ever does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks import open_sink
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.retention import Retention
from pipeline.sinks.segments import SegmentsSink
from tests.pipeline.test_roster import Line, Source
from tests.recording.footage import LIVE, dates, look, shot
from tests.waiting import until

HOUR = 3600.0


def aged(path: Path, hours: float, size: int = 10) -> Path:
    """A file that was last written to so long ago; negative: that comes from the future."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    moment = time.time() - hours * HOUR
    os.utime(path, (moment, moment))
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_old_files_go_and_young_ones_stay(tmp_path: Path) -> None:
    pattern = FilePattern(f"{tmp_path}/%Y%m%d-%H.mp4")
    aged(tmp_path / "20260101-01.mp4", 30)
    aged(tmp_path / "20260101-02.mp4", 25)
    aged(tmp_path / "20260101-02~1.mp4", 25)
    aged(tmp_path / "20260101-03.mp4", 23)
    retention = Retention(pattern, 24 * HOUR, None)
    retention.tidy()
    assert names(tmp_path) == ["20260101-03.mp4"] and retention.deleted == 3


@pytest.mark.parametrize(
    "name",
    [
        *("20260101-01.mkv", "20260101-01.mp4.part", "x20260101-01.mp4", "20261301-01.mp4"),
        *("20260132-01.mp4", "20260101-24.mp4", "2026010-01.mp4", "20260101-01~0.mp4"),
        *(
            "20260101-01-x.mp4",
            "20260101-01-1.mp4",
            "20260101-01",
            "deep/20260101-01.mp4",
            "events.jsonl",
        ),
    ],
)
def test_what_does_not_fit_the_pattern_is_never_touched(tmp_path: Path, name: str) -> None:
    aged(tmp_path / name, 1000)
    Retention(FilePattern(f"{tmp_path}/%Y%m%d-%H.mp4"), 1.0, 1).tidy()
    assert names(tmp_path) == [name]


def test_links_and_folders_are_never_touched(tmp_path: Path) -> None:
    target = aged(tmp_path / "elsewhere" / "precious.mp4", 1000)
    rec = tmp_path / "rec"
    rec.mkdir()
    (rec / "20260101-01.mp4").symlink_to(target)
    aged(rec / "20260101-02.mp4" / "inside", 1000)
    (rec / "2026").symlink_to(tmp_path / "elsewhere")
    Retention(FilePattern(f"{rec}/%Y%m%d-%H.mp4"), 1.0, 1).tidy()
    Retention(FilePattern(f"{rec}/%Y/precious.mp4"), 1.0, 1).tidy()
    assert target.exists() and len(list(rec.iterdir())) == 3


def test_the_file_that_is_being_written_stays_whatever_its_age(tmp_path: Path) -> None:
    old = aged(tmp_path / "01.mp4", 1000, size=100)
    Retention(FilePattern(f"{tmp_path}/%H.mp4"), 1.0, 50).tidy(writing=old)
    assert old.exists()


def test_too_much_is_cut_from_the_oldest_end(tmp_path: Path) -> None:
    for hour in range(1, 6):
        aged(tmp_path / f"{hour:02d}.mp4", 6 - hour, size=100)
    Retention(FilePattern(f"{tmp_path}/%H.mp4"), None, 250).tidy()
    assert names(tmp_path) == ["04.mp4", "05.mp4"]


def test_emptied_folders_of_the_pattern_go_and_others_stay(tmp_path: Path) -> None:
    aged(tmp_path / "cam/2026/01/01.mp4", 100)
    aged(tmp_path / "cam/2026/02/01.mp4", 100)
    aged(tmp_path / "cam/2026/02/notes.txt", 100)
    Retention(FilePattern(f"{tmp_path}/cam/%Y/%m/%H.mp4"), HOUR, None).tidy()
    assert names(tmp_path) == ["cam/2026/02/notes.txt"]
    assert not (tmp_path / "cam/2026/01").exists()
    Retention(FilePattern(f"{tmp_path}/none/%H.mp4"), HOUR, None).tidy()


def test_without_a_limit_nothing_goes(tmp_path: Path) -> None:
    aged(tmp_path / "01.mp4", 1e5)
    Retention(FilePattern(f"{tmp_path}/%H.mp4"), None, None).tidy()
    assert names(tmp_path) == ["01.mp4"]


def test_a_clock_that_jumps_makes_nothing_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(tmp_path / "01.mp4", 1)
    aged(tmp_path / "02.mp4", -1000)  # from the future: it is new
    retention = Retention(FilePattern(f"{tmp_path}/%H.mp4"), 24 * HOUR, None)
    retention.tidy()
    now, ticks = time.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: now + 365 * 24 * HOUR)
    retention.tidy()
    assert names(tmp_path) == ["01.mp4", "02.mp4"]
    monkeypatch.setattr(time, "monotonic", lambda: ticks + 23.5 * HOUR)
    retention.tidy()
    assert names(tmp_path) == ["02.mp4"]
    monkeypatch.setattr(time, "monotonic", lambda: ticks + 24.5 * HOUR)
    retention.tidy()
    assert names(tmp_path) == []


def test_what_cannot_be_deleted_is_said_once_and_does_not_stop_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    aged(tmp_path / "01.mp4", 100)

    def refused(self: FilePattern, path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FilePattern, "remove", refused)
    retention = Retention(FilePattern(f"{tmp_path}/%H.mp4"), HOUR, None)
    retention.tidy()
    retention.tidy()
    assert [r.message for r in caplog.records] == [
        f"cannot delete {tmp_path}/01.mp4: Permission denied"
    ]
    assert retention.deleted == 0


def test_a_recording_keeps_to_its_limit_while_it_runs(tmp_path: Path) -> None:
    aged(tmp_path / "19990101-000000.mp4", 1000)
    recording = RecordingSettings(segment_seconds=1.0, keep_seconds=3600, keep_bytes=20_000)
    pattern = FilePattern(f"{tmp_path}/%Y%m%d-%H%M%S.mp4")
    video = VideoSettings(preset="ultrafast")
    with SegmentsSink(pattern, LIVE, video, recording, dates) as sink:
        assert names(tmp_path) == []  # what is too old goes at once
        for n in range(250):
            sink.write(shot(n))
    report = sink.report()
    kept = sorted(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in kept[:-1]) <= 20_000
    assert report["files"] == 10 and len(kept) == 11 - report["files_deleted"] < 10
    assert [n for file in kept for n in look(file)[0]] == [*range(250 - 25 * len(kept), 250)]


def test_a_recording_keeps_to_its_limit_without_looking_through_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(tmp_path / "20250101-000000.mp4", 1, size=10_000)
    recording = RecordingSettings(segment_seconds=1.0, keep_bytes=20_000)
    video = VideoSettings(preset="ultrafast")
    pattern = FilePattern(f"{tmp_path}/%Y%m%d-%H%M%S.mp4")
    with SegmentsSink(pattern, LIVE, video, recording, dates) as sink:
        monkeypatch.delattr(FilePattern, "files")
        for n in range(250):
            sink.write(shot(n))
        kept = sorted(tmp_path.iterdir())[:-1]
        assert 10_000 < sum(file.stat().st_size for file in kept) <= 20_000
        assert sink.report()["files_deleted"] == 11 - len(kept) - 1


def test_a_long_look_at_the_disk_goes_on_the_next_time(tmp_path: Path) -> None:
    retention = Retention(FilePattern(f"{tmp_path}/%H.mp4"), None, 450)
    for hour in range(1, 6):
        aged(tmp_path / f"{hour:02d}.mp4", 6 - hour, size=100)
    for _ in range(5):
        retention.tidy(within=0.0)  # one file each time
        assert len(names(tmp_path)) == 5
    retention.tidy(within=0.0)
    assert names(tmp_path) == ["02.mp4", "03.mp4", "04.mp4", "05.mp4"]


def test_files_that_come_and_go_during_a_look_are_counted_once(tmp_path: Path) -> None:
    retention = Retention(FilePattern(f"{tmp_path}/%H.mp4"), None, 350)
    for hour in range(1, 4):
        aged(tmp_path / f"{hour:02d}.mp4", 6 - hour, size=100)
    retention.tidy()
    retention.tidy(within=0.0)
    for hour in range(4, 7):  # finished by the recording, which deletes the oldest one each time
        retention.add(aged(tmp_path / f"{hour:02d}.mp4", 0, size=100))
        retention.delete()
    (tmp_path / "04.mp4").unlink()  # by others
    for _ in range(5):
        retention.tidy(within=0.0)
    retention.tidy()
    assert names(tmp_path) == ["05.mp4", "06.mp4"]
    retention.add(aged(tmp_path / "07.mp4", 0, size=100))
    retention.delete()
    assert names(tmp_path) == ["05.mp4", "06.mp4", "07.mp4"] and retention.deleted == 3


def test_a_file_that_was_just_finished_is_young_whatever_its_date(tmp_path: Path) -> None:
    retention = Retention(FilePattern(f"{tmp_path}/%H.mp4"), HOUR, None)
    retention.add(aged(tmp_path / "01.mp4", 1000))  # the calendar jumped while it was written
    retention.tidy()
    assert names(tmp_path) == ["01.mp4"]


def test_what_belongs_to_a_disk_that_is_away_is_not_counted(tmp_path: Path) -> None:
    retention = Retention(FilePattern(f"{tmp_path}/rec/%H.mp4"), HOUR, None)
    retention.add(tmp_path / "rec/01.mp4")
    retention.delete()
    retention.tidy()
    assert retention.deleted == 0


def test_the_pattern_knows_its_own_names() -> None:
    pattern = FilePattern("/rec/a+b/%Y/%j %H.%M.%S,%f%z%%-{event}.mp4", ["car", "traffic/light"])
    assert pattern.folder == Path("/rec/a+b")
    named = pattern.named(1_750_000_000.25, "traffic/light")
    assert pattern.matches(named) and "traffic_light" in named.name
    assert not pattern.matches(Path(str(named).replace("traffic_light", "bus")))
    assert pattern.is_on_event and not FilePattern("%H.mp4").is_on_event


def test_a_pattern_removes_only_what_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is none of"):
        FilePattern(f"{tmp_path}/%H.mp4").remove(tmp_path / "notes.txt")
    with pytest.raises(ConfigError):
        FilePattern("%E.mp4")


# While nothing is written

OUTS = pytest.mark.parametrize("out", ["%H%M%S.mp4", "%H%M%S-{event}.mp4"])


@OUTS
def test_a_camera_that_shows_nothing_keeps_no_old_footage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.setattr("pipeline.roster.TIDY_SECONDS", 0.05)
    recording = RecordingSettings(keep_seconds=HOUR)
    sink = open_sink(f"{tmp_path}/{out}", LIVE, VideoSettings(), recording=recording)
    young = aged(tmp_path / out.replace("%H%M%S", "120000").replace("{event}", "car"), 0.9)
    old = young.with_name(young.name.replace("12", "11"))
    with Line(door=[sink]).running(Source("door", gap=HOUR), stays=True):
        for _ in range(2):  # the first one may go when the sink begins
            aged(old, 1.1)
            until(lambda: not old.exists())
    assert young.exists()


@OUTS
def test_tidying_leaves_the_file_that_is_being_written(tmp_path: Path, out: str) -> None:
    video, recording = VideoSettings(preset="ultrafast"), RecordingSettings(keep_seconds=HOUR)
    with open_sink(f"{tmp_path}/{out}", LIVE, video, recording=recording) as sink:
        for number in range(60):
            sink.write(shot(number, "car"))
        (written,) = (path for path in tmp_path.iterdir() if path.suffix == ".mp4")
        old = aged(written.with_stem(f"{written.stem}~1"), 2)
        os.utime(written, (time.time() - 2 * HOUR,) * 2)
        sink.tidy()
        assert written.exists() and not old.exists()
