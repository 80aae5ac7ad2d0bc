"""Recording when something is seen: a little before, a little after, and a line about it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, SinkError
from pipeline.frame import Detections, Result
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks import open_sink
from pipeline.sinks.events import EventsSink, Rewind
from pipeline.sinks.footage import FootageEncoder
from pipeline.sinks.pattern import FilePattern
from tests.pipeline.written_video import MP4_AND_MKV, playable
from tests.recording.footage import FPS, LIVE, NAMES, NOON, dates, look, shot

KEYFRAME_FRAMES = FPS  # at one a second
VIDEO = VideoSettings(preset="ultrafast", keyframe_seconds=1.0)


def sink_for(out: str, video: VideoSettings = VIDEO, **settings: Any) -> EventsSink:
    wanted = {"event_classes": ("person", "car"), "pre_seconds": 2.0, "post_seconds": 2.0}
    recording = RecordingSettings(**(wanted | settings))
    return EventsSink(FilePattern(out, NAMES), LIVE, video, recording, dates)


def record(
    folder: Path, results: Iterable[Result], ending: str = "mp4", **settings: Any
) -> dict[str, Any]:
    """Record to ``<event>-<time>.mp4``; return the sink's report."""
    with sink_for(f"{folder}/{{event}}-%H%M%S.{ending}", **settings) as sink:
        for result in results:
            sink.write(result)
    return sink.report()


def shots(count: int, seen: Mapping[int, str] = {}) -> Iterable[Result]:
    """Pictures, in some of which something is seen."""
    return (shot(n, seen.get(n)) for n in range(count))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix != ".jsonl")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@MP4_AND_MKV
def test_a_file_begins_before_the_event_and_ends_after_it(tmp_path: Path, ending: str) -> None:
    report = record(tmp_path, shots(500, {200: "car", 230: "person"}), ending)
    (file,) = files(tmp_path)
    numbers, times = look(file)
    assert numbers == [n % 256 for n in range(150, 150 + len(numbers))]
    assert 230 + 2 * FPS < 150 + len(numbers) <= 230 + 2 * FPS + KEYFRAME_FRAMES + 1
    assert times[0] == 0 and times[-1] == pytest.approx((len(times) - 1) / FPS, abs=0.001)
    assert file.name.startswith("car-")
    assert report["events"] == report["files"] == 1
    assert report["frames"] == 500 and report["frames_recorded"] == len(numbers)


def test_each_event_has_a_line_that_says_what_was_seen(tmp_path: Path) -> None:
    record(tmp_path, shots(400, {100: "car", 101: "car", 120: "person"}))
    (line,) = lines(tmp_path)
    assert datetime.fromisoformat(line.pop("began")).timestamp() == NOON + 4.0
    assert line == {
        "source": "cam",
        "event": "car",
        "seconds": 0.8,
        "pts_seconds": [4.0, 4.8],
        "frames": {"car": 2, "person": 1},
        "best": {"label": "car", "score": 0.9, "box": [1.0, 2.0, 30.0, 40.0], "frame": 100},
        "files": [files(tmp_path)[0].name],
    }


def test_nothing_is_written_when_nothing_of_interest_is_seen(tmp_path: Path) -> None:
    report = record(tmp_path, shots(100, {50: "bicycle"}))
    assert report["events"] == 0 and not list(tmp_path.iterdir())


def test_a_low_score_is_not_seen(tmp_path: Path) -> None:
    doubtful = [shot(n, "car", score=0.59) for n in range(60)]
    assert record(tmp_path, doubtful, event_score=0.6)["events"] == 0
    assert record(tmp_path, doubtful, event_score=0.58)["events"] == 1


def test_without_classes_everything_begins_an_event(tmp_path: Path) -> None:
    assert record(tmp_path, shots(60, {30: "bicycle"}), event_classes=())["events"] == 1


def test_events_far_apart_have_files_of_their_own_and_no_picture_twice(tmp_path: Path) -> None:
    report = record(tmp_path, shots(250, {30: "car", 150: "person"}))
    looks = [look(file)[0] for file in files(tmp_path)]
    flat = [n for numbers in looks for n in numbers]
    assert report["events"] == 2 and len(flat) == len(set(flat))
    assert [line["event"] for line in lines(tmp_path)] == ["car", "person"]


def test_an_event_right_after_another_begins_where_that_ended(tmp_path: Path) -> None:
    # The first is over with the keyframe 125, two and a bit seconds after picture 55.
    record(tmp_path, shots(250, {55: "car", 127: "person"}))
    car, person = (look(file)[0] for file in files(tmp_path))
    assert car[-1] + 1 == person[0]


def test_a_long_event_goes_on_in_another_file(tmp_path: Path) -> None:
    report = record(tmp_path, shots(250, dict.fromkeys(range(250), "car")), segment_seconds=3.0)
    looks = [look(file)[0] for file in files(tmp_path)]
    assert [n for numbers in looks for n in numbers] == [*range(250)]
    assert report["events"] == 1 and report["files"] == 4
    assert lines(tmp_path)[0]["files"] == [file.name for file in files(tmp_path)]


def test_another_size_in_the_middle_begins_another_file(tmp_path: Path) -> None:
    results = [shot(n, "car", size=(128, 96) if n < 60 else (64, 48)) for n in range(120)]
    report = record(tmp_path, results)
    looks = [look(file)[0] for file in files(tmp_path)]
    assert looks == [[*range(60)], [*range(60, 120)]] and report["events"] == 1


def test_a_gap_without_pictures_ends_an_event_with_the_next_one(tmp_path: Path) -> None:
    results = [*shots(60, {55: "car"}), *(shot(n) for n in range(2000, 2060))]
    record(tmp_path, results)
    numbers, _ = look(files(tmp_path)[0])
    assert numbers == [n % 256 for n in [*range(60), *range(2000, 2000 + len(numbers) - 60)]]
    assert len(numbers) - 60 <= KEYFRAME_FRAMES


def test_what_is_seen_first_after_a_gap_begins_an_event_of_its_own(tmp_path: Path) -> None:
    seen = [shot(n, "car") for n in [*range(50), *range(2000, 2030)]]
    report = record(tmp_path, [*seen, shot(2030)])
    assert report["events"] == report["files"] == 2
    assert [line["pts_seconds"] for line in lines(tmp_path)] == [[0, 1.96], [80, 81.16]]
    looks = [look(file)[0] for file in files(tmp_path)]
    assert looks == [[*range(50)], [n % 256 for n in range(2000, 2031)]]


def test_no_event_begins_with_what_was_there_before_a_gap(tmp_path: Path) -> None:
    for first_seen in (2000, 2010):
        back = (shot(n, "car" if n >= first_seen else None) for n in range(2000, 2030))
        record(tmp_path / str(first_seen), [*shots(90), *back])
        (file,) = files(tmp_path / str(first_seen))
        assert look(file)[0] == [n % 256 for n in range(2000, 2030)]


def test_an_event_without_time_before_it_begins_with_what_it_takes_to_decode(
    tmp_path: Path,
) -> None:
    record(tmp_path, shots(100, {30: "car"}), pre_seconds=0.0)
    assert look(files(tmp_path)[0])[0][0] == 25


def test_an_event_ends_while_its_camera_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sink_for(f"{tmp_path}/{{event}}-%H%M%S.mp4") as sink:
        for result in shots(60, {55: "car"}):
            sink.write(result)
        sink.tidy()
        assert not (tmp_path / "events.jsonl").exists()  # the next picture may come in time
        gone = time.monotonic()
        with monkeypatch.context() as later:
            later.setattr(time, "monotonic", lambda: gone + 2.0 + 1.0)  # and a keyframe's distance
            sink.tidy()
        assert lines(tmp_path)[0]["seconds"] == 0 and sink.report()["frames_recorded"] == 60
        assert look(files(tmp_path)[0])[0] == [*range(60)]
        for number in range(2000, 2060):
            sink.write(shot(number, "person" if number == 2030 else None))
    assert [line["event"] for line in lines(tmp_path)] == ["car", "person"]
    assert look(files(tmp_path)[1])[0] == [n % 256 for n in range(2000, 2060)]


def test_a_file_that_is_read_slowly_keeps_its_events_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recording = FilePattern(f"{tmp_path}/{{event}}-%S.mp4", NAMES), RecordingSettings()
    with EventsSink(out, replace(LIVE, live=False), VIDEO, recording, dates) as sink:
        for number in range(60):
            sink.write(shot(number, "car"))
            with monkeypatch.context() as later:
                later.setattr(time, "monotonic", lambda: 1e9)
                sink.tidy()
    assert len(lines(tmp_path)) == sink.report()["files"] == 1


def test_an_event_at_the_end_is_finished(tmp_path: Path) -> None:
    record(tmp_path, shots(60, {59: "car"}))
    assert look(files(tmp_path)[0])[0][-1] == 59 and len(lines(tmp_path)) == 1


def test_a_class_that_the_model_does_not_know_is_an_error(tmp_path: Path) -> None:
    recording = RecordingSettings(event_classes=("cat",))
    with pytest.raises(ConfigError, match="knows no 'cat'; it knows person, bicycle, car"):
        open_sink(f"{tmp_path}/{{event}}-%H.mp4", LIVE, VIDEO, (), recording)


def test_what_is_held_before_an_event_is_bounded_in_time_and_bytes() -> None:
    encoder, rewind = FootageEncoder(LIVE, VIDEO, 1.0, dates=dates), Rewind(2.0)
    small = Rewind(2.0, most_bytes=20_000)
    held = []
    for n in range(500):
        for footage in encoder.encode(shot(n)):
            rewind.add(footage)
            small.add(footage)
            held.append(sum(map(len, rewind._groups)))
            assert small.bytes <= 20_000
            assert small.bytes == sum(f.packet.size for group in small._groups for f in group)
    assert max(held) <= 3 * KEYFRAME_FRAMES + 1 and held[-1] >= 2 * KEYFRAME_FRAMES
    first = next(rewind.take())
    assert first.packet.is_keyframe and rewind.bytes == 0
    assert all(group[0].packet.is_keyframe for group in small._groups)


def test_an_event_that_begins_before_a_keyframe_is_held_starts_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rewind, "add", lambda self, footage: None)  # no room for anything
    record(tmp_path, shots(100, {30: "car"}))
    assert look(files(tmp_path)[0])[0][0] == 50


def test_many_objects_count_by_frame_and_the_best_is_kept(tmp_path: Path) -> None:
    made = shot(0)
    boxes = np.array([[0, 0, 9, 9], [5, 5, 20, 20], [1, 1, 2, 2]], np.float32)
    found = Detections(boxes, np.array([0.6, 0.8, 0.99], np.float32), np.array([2, 2, 1]))
    record(tmp_path, [Result(made.frame, found)])
    (line,) = lines(tmp_path)
    assert line["frames"] == {"car": 1} and line["best"]["box"] == [5, 5, 20, 20]


def test_a_line_that_was_torn_stays_alone(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"source": "c')
    record(tmp_path, shots(3, {0: "car"}))
    torn, line, end = (tmp_path / "events.jsonl").read_text().split("\n")
    assert (torn, json.loads(line)["event"], end) == ('{"source": "c', "car", "")


def test_a_line_of_which_only_a_part_fits_is_an_error(tmp_path: Path) -> None:
    log, before = tmp_path / "events.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write_text("{}\n" * 100_000)  # more than the video is going to have
    size = log.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, before[1]))
    try:
        with pytest.raises(SinkError, match="largest size allowed"):
            record(tmp_path, shots(3, {0: "car"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.stat().st_size == size + 30


CHILD = """
import sys
sys.path[:0] = {path!r}
from itertools import count
from tests.recording.test_events import shot, sink_for
with sink_for({out!r}) as sink:
    for number in count():
        sink.write(shot(number, "car" if number > 60 else None))
        print(number, flush=True)
"""


@MP4_AND_MKV
def test_a_killed_run_leaves_an_event_that_plays(tmp_path: Path, ending: str) -> None:
    code = CHILD.format(path=sys.path, out=f"{tmp_path}/{{event}}-%H%M%S.{ending}")
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = 0
        while written < 140:
            written = int(process.stdout.readline()) + 1
        os.kill(process.pid, signal.SIGKILL)
    (file,) = files(tmp_path)
    shown = playable(file)
    assert shown == [n % 256 for n in range(shown[0], shown[0] + len(shown))]
    assert shown[0] <= 10 and shown[0] + len(shown) >= written - 2 * FPS
