"""Recording in files: nothing is lost between them, nothing written over, all of it plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, SinkError
from pipeline.frame import Result
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks import SinkTarget, open_sink, open_sinks
from pipeline.sinks.events import EventsSink
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.segments import SegmentsSink
from tests.pipeline.test_sinks import Pictures
from tests.pipeline.written_video import MP4_AND_MKV, pixel_aspect, playable
from tests.recording.footage import FPS, LIVE, NAMES, NOON, dates, look, shot

VIDEO = VideoSettings(preset="ultrafast")


def record(
    out: str, results: Iterable[Result], video: VideoSettings = VIDEO, **settings: Any
) -> dict[str, Any]:
    """Record in segments of 2 s, if not told otherwise; return the sink's report."""
    recording = RecordingSettings(**({"segment_seconds": 2.0} | settings))
    with SegmentsSink(FilePattern(out), LIVE, video, recording, dates) as sink:
        for result in results:
            sink.write(result)
    return sink.report()


def name(seconds: float, ending: str = "mp4") -> str:
    """The file that begins so long after the first picture."""
    return datetime.fromtimestamp(NOON + seconds).strftime(f"%Y%m%d-%H%M%S.{ending}")


PATTERN = "%Y%m%d-%H%M%S"


@MP4_AND_MKV
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_no_picture_is_lost_or_doubled_between_files(
    tmp_path: Path, ending: str, encoder: str
) -> None:
    video = VideoSettings(preset="veryfast", encoder=encoder)
    report = record(f"{tmp_path}/{PATTERN}.{ending}", map(shot, range(130)), video)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [name(s, ending) for s in (0, 2, 4)]
    looks = [look(file) for file in files]
    assert [n for numbers, _ in looks for n in numbers] == list(range(130))
    for _, times in looks:
        assert times == pytest.approx([i / FPS for i in range(len(times))], abs=0.001)
    assert report["files"] == 3 and report["frames"] == report["frames_recorded"] == 130
    assert report["bytes"] == sum(file.stat().st_size for file in files)


def test_cuts_keep_their_rhythm_whatever_the_rate(tmp_path: Path) -> None:
    sparse = [shot(n) for n in range(0, 250, 7)]  # 3.6 a second
    record(f"{tmp_path}/{PATTERN}.mp4", sparse)
    starts = [look(file)[0][0] for file in sorted(tmp_path.iterdir())]
    expected = [next(n for n in range(0, 250, 7) if n >= 50 * i) for i in range(5)]
    assert starts == expected


def test_a_gap_ends_the_file_with_the_next_picture(tmp_path: Path) -> None:
    numbers = [*range(30), *range(200, 230)]
    record(f"{tmp_path}/{PATTERN}.mp4", map(shot, numbers))
    files = sorted(tmp_path.iterdir())
    assert [look(file)[0] for file in files] == [[*range(30)], [*range(200, 230)]]
    assert [file.name for file in files] == [name(0), name(8)]


def test_a_gap_that_mp4_cannot_tell_begins_another_file(tmp_path: Path) -> None:
    tick = Fraction(1, 90_000)

    def ticking(number: int, outage: int) -> Result:
        """A picture on a live source's clock, after an outage of so many seconds."""
        made = shot(number)
        pts = round((Fraction(number, FPS) + outage) / tick)
        arrival = made.frame.arrival + outage
        frame = replace(made.frame, pts=pts, time_base=tick, arrival=arrival)
        return replace(made, frame=frame)

    results = [*(ticking(n, 0) for n in range(30)), *(ticking(n, 36_000) for n in range(30, 60))]
    record(f"{tmp_path}/{PATTERN}.mp4", results, segment_seconds=86_400.0)
    files = sorted(tmp_path.iterdir())
    each = pytest.approx([n / FPS for n in range(30)])
    assert [look(file) for file in files] == [([*range(30)], each), ([*range(30, 60)], each)]
    assert [file.name for file in files] == [name(0), name(36_000 + 30 / FPS)]


def test_another_size_begins_another_file(tmp_path: Path) -> None:
    sizes = [(128, 96)] * 20 + [(64, 48)] * 20
    report = record(f"{tmp_path}/{PATTERN}-%f.mp4", [shot(n, size=s) for n, s in enumerate(sizes)])
    looks = [look(file)[0] for file in sorted(tmp_path.iterdir())]
    assert looks == [[*range(20)], [*range(20, 40)]] and report["files"] == 2


def test_another_shape_of_pixels_begins_another_file(tmp_path: Path) -> None:
    shapes = [(1, 1)] * 20 + [(11, 16)] * 20
    shots = [shot(n, pixel_hw=pixel_hw) for n, pixel_hw in enumerate(shapes)]
    record(f"{tmp_path}/{PATTERN}-%f.mp4", shots)
    files = sorted(tmp_path.iterdir())
    assert [look(file)[0] for file in files] == [[*range(20)], [*range(20, 40)]]
    assert [pixel_aspect(file) for file in files] == [None, Fraction(16, 11)]


def test_files_that_are_there_are_never_written_over(tmp_path: Path) -> None:
    for taken in (name(0), name(2)):
        (tmp_path / taken).write_text("precious")
    (tmp_path / name(2).replace(".mp4", "~1.mp4")).write_text("precious, too")
    record(f"{tmp_path}/{PATTERN}.mp4", map(shot, range(75)))
    assert (tmp_path / name(0)).read_text() == (tmp_path / name(2)).read_text() == "precious"
    assert look(tmp_path / name(0).replace(".mp4", "~1.mp4"))[0] == [*range(50)]
    assert look(tmp_path / name(2).replace(".mp4", "~2.mp4"))[0] == [*range(50, 75)]


def test_a_clock_that_is_set_back_only_changes_names(tmp_path: Path) -> None:
    jumping = iter([NOON] * 50 + [NOON - 3600] * 50 + [NOON] * 50)
    recording = RecordingSettings(segment_seconds=2.0)
    pattern = FilePattern(f"{tmp_path}/%Y%m%d-%H%M.mp4")
    with SegmentsSink(pattern, LIVE, VIDEO, recording, lambda _: next(jumping)) as sink:
        for n in range(150):
            sink.write(shot(n))
    contents = sorted(look(file)[0] for file in tmp_path.iterdir())
    assert contents == [[*range(50)], [*range(50, 100)], [*range(100, 150)]]


def test_folders_may_be_named_by_time_too(tmp_path: Path) -> None:
    record(f"{tmp_path}/%Y/%m-%d/%H%M%S.mp4", map(shot, range(60)))
    moment = datetime.fromtimestamp(NOON)
    folder = tmp_path / moment.strftime("%Y/%m-%d")
    assert [n for file in sorted(folder.iterdir()) for n in look(file)[0]] == [*range(60)]


CHILD = """
import resource, sys
sys.path[:0] = {path!r}
from itertools import count
from pipeline.errors import SinkError
from tests.recording.footage import shot, dates, LIVE
from tests.recording.test_segments import *
limit = {limit}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
video = VideoSettings(preset="ultrafast", crf=12)
sink = SegmentsSink(
    FilePattern({out!r}), LIVE, video, RecordingSettings(segment_seconds={seconds}), dates
)
try:
    with sink:
        for number in count():
            sink.write(shot(number))
            print(number, flush=True)
except SinkError as error:
    sys.exit(f"{{error.exit_code}} {{error}}")
"""


def child(out: str, limit: int = 0, seconds: float = 2.0) -> list[str]:
    """Command of a process that records until something stops it."""
    code = CHILD.format(path=sys.path, out=out, limit=limit, seconds=seconds)
    return [sys.executable, "-c", code]


@MP4_AND_MKV
@pytest.mark.parametrize("at", [53, 130])  # a file has just begun, or goes on for a while
def test_every_file_of_a_killed_run_plays(tmp_path: Path, ending: str, at: int) -> None:
    command = child(f"{tmp_path}/{PATTERN}.{ending}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = 0
        while written < at:
            written = int(process.stdout.readline()) + 1
        os.kill(process.pid, signal.SIGKILL)
    *done, newest = sorted(tmp_path.iterdir())
    shown = [n for file in done for n in playable(file)]
    if newest.suffix == ".mp4" or newest.stat().st_size > 1000:  # no Matroska without a cluster
        shown += playable(newest)
    assert shown == [n % 256 for n in range(len(shown))]
    assert len(shown) >= written - 2 * FPS


def test_a_disk_that_fills_up_is_a_sink_error_and_leaves_what_plays(tmp_path: Path) -> None:
    command = child(f"{tmp_path}/{PATTERN}.mp4", limit=60_000, seconds=600)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.stderr.startswith("5 ") and "largest size allowed" in ended.stderr
    (file,) = tmp_path.iterdir()
    shown = playable(file)
    assert shown == [n % 256 for n in range(len(shown))] and len(shown) > 10


def test_a_folder_that_cannot_be_made_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="another --out"):
        record(f"{tmp_path}/file/{PATTERN}.mp4", [])


def test_a_run_without_pictures_leaves_no_file(tmp_path: Path) -> None:
    assert record(f"{tmp_path}/{PATTERN}.mp4", [])["files"] == 0
    assert not list(tmp_path.iterdir())


def test_an_error_upstream_finishes_the_file_and_is_not_hidden(tmp_path: Path) -> None:
    def failing() -> Iterable[Result]:
        yield from map(shot, range(30))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record(f"{tmp_path}/{PATTERN}.mp4", failing())
    (file,) = tmp_path.iterdir()
    assert look(file)[0] == [*range(30)]


def test_a_picture_that_cannot_be_encoded_is_a_sink_error(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot encode a picture of 20000x2"):
        record(f"{tmp_path}/{PATTERN}.mp4", [shot(0, size=(20_000, 2))])


# Which output it is


def test_the_name_decides_whether_it_is_one_file_or_many(tmp_path: Path) -> None:
    for out, kind in (("%H.mp4", SegmentsSink), ("{event}-%H.mkv", EventsSink)):
        assert isinstance(open_sink(f"{tmp_path}/{out}", LIVE, VIDEO), kind)
    assert open_sink(f"{tmp_path}/50%.mp4", LIVE, VIDEO).name == f"{tmp_path}/50%.mp4"


def test_the_sources_name_is_no_part_of_the_pattern(tmp_path: Path) -> None:
    target = SinkTarget("100%Y/x", NAMES, Fraction(FPS), live=True)
    with open_sink(f"{tmp_path}/{{source}}/%Y.mp4", target, VIDEO) as sink:
        sink.write(shot(0))
    (folder,) = tmp_path.iterdir()
    (file,) = folder.iterdir()
    assert folder.name == "100%Y_x" and file.stem.isdecimal()


@pytest.mark.parametrize("out", ["%Q.mp4", "%H-%.mp4", "%H%-M.mp4"])
def test_an_unknown_conversion_is_an_error_that_names_the_known_ones(out: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown %.*known are %Y"):
        open_sink(out, LIVE, VIDEO)


def test_a_pattern_that_means_the_input_is_refused(tmp_path: Path) -> None:
    given = tmp_path / "20260101-120000.mp4"
    target = SinkTarget("a", NAMES, media_path=given)
    with pytest.raises(ConfigError, match="also means the input"):
        open_sink(f"{tmp_path}/{PATTERN}.mp4", target, VIDEO)


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("rec", "{tmp_path}/rec/20250101.mp4"),
        ("{tmp_path}/rec", "rec/20250101.mp4"),
        ("rec", "rec/../rec/20250101.mp4"),
        ("link", "rec/20250101.mp4"),
        ("rec", "link/20250101.mp4"),
        ("rec", "link.mp4"),
    ],
)
def test_old_recordings_never_go_with_the_input_among_them_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    video = tmp_path / "rec" / "20250101.mp4"
    video.parent.mkdir()
    video.write_text("precious")
    os.utime(video, (0, 0))
    Path("link").symlink_to("rec")
    Path("link.mp4").symlink_to(video)
    target = SinkTarget("a", NAMES, media_path=Path(given.format(tmp_path=tmp_path)))
    out = f"{out.format(tmp_path=tmp_path)}/%Y%m%d.mp4"
    with (
        pytest.raises(ConfigError, match="also means the input"),
        open_sink(out, target, VIDEO, (), RecordingSettings(keep_seconds=60.0)),
    ):
        pass
    assert video.read_text() == "precious"


def test_an_input_beside_the_recordings_is_no_recording(tmp_path: Path) -> None:
    video = tmp_path / "drive.mp4"
    video.write_text("precious")
    os.utime(video, (0, 0))
    target, recording = SinkTarget("a", NAMES, media_path=video), RecordingSettings(keep_seconds=60)
    with open_sink(f"{tmp_path}/{PATTERN}.mp4", target, VIDEO, (), recording):
        pass
    assert video.read_text() == "precious"


def test_event_classes_without_an_output_for_events_are_an_error(tmp_path: Path) -> None:
    recording = RecordingSettings(event_classes=("car",))
    with pytest.raises(ConfigError, match=r"add one with \{event\}"):
        open_sinks([f"{tmp_path}/%H.mp4"], Pictures("in"), NAMES, VIDEO, (), recording)


def test_times_within_a_file_rise_evenly_at_any_time_base(tmp_path: Path) -> None:
    record(f"{tmp_path}/{PATTERN}.mp4", [shot(n) for n in range(0, 100, 2)])
    for file in tmp_path.iterdir():
        steps = {round(b - a, 4) for a, b in pairwise(look(file)[1])}
        assert steps == {0.08}
