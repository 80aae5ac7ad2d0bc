"""A playlist and its pieces: whole at any moment, bounded, and going on after a break."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.errors import SinkError
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks import open_sink
from pipeline.sinks.hls import HlsSink
from tests.clips import read_number
from tests.pipeline.written_video import pixel_aspect
from tests.recording.footage import LIVE, look, shot

VIDEO = VideoSettings(preset="ultrafast")


def sink_for(path: Path, **settings: Any) -> HlsSink:
    recording = RecordingSettings(**({"hls_seconds": 1.0, "hls_pieces": 4} | settings))
    sink = open_sink(str(path), LIVE, VIDEO, (), recording)
    assert isinstance(sink, HlsSink)
    return sink


def write(path: Path, numbers: range, **settings: Any) -> dict[str, Any]:
    with sink_for(path, **settings) as sink:
        for number in numbers:
            sink.write(shot(number))
    return sink.report()


def listed(path: Path) -> list[str]:
    """The pieces in the list, each of which must be there, whole, and playable on its own."""
    names = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for name in names:
        with av.open(str(path.with_name(name))) as piece:
            first = next(piece.decode(video=0))
            assert first.key_frame
    return names


def played(path: Path) -> list[int]:
    """What a player shows that begins with the list as it is."""
    with av.open(str(path), options={"live_start_index": "0"}) as container:
        return [read_number(frame) for frame in container.decode(video=0)]


def test_the_list_names_the_newest_pieces_and_others_are_deleted(tmp_path: Path) -> None:
    report = write(tmp_path / "index.m3u8", range(250))
    assert listed(tmp_path / "index.m3u8") == [f"index-{n}.ts" for n in range(6, 10)]
    left = sorted(tmp_path.glob("*.ts"))
    assert len(left) <= 4 + 3 and report["files"] == len(left) and report["frames"] == 250
    assert not list(tmp_path.glob("*.tmp"))


def test_a_player_sees_every_picture_of_the_listed_pieces(tmp_path: Path) -> None:
    write(tmp_path / "index.m3u8", range(100))
    assert played(tmp_path / "index.m3u8") == [*range(100)]
    text = (tmp_path / "index.m3u8").read_text()
    assert text.endswith("#EXT-X-ENDLIST\n") and text.count("#EXTINF:1.0") == 4
    assert "#EXT-X-PROGRAM-DATE-TIME:" in text


def test_the_list_can_be_played_whenever_it_is_looked_at(tmp_path: Path) -> None:
    path, seen = tmp_path / "index.m3u8", set[str]()
    with sink_for(path) as sink:
        for number in range(250):
            sink.write(shot(number))
            if path.exists() and number % 5 == 0:
                names = listed(path)
                seen |= set(names)
                assert 0 < len(names) <= 4 and "ENDLIST" not in path.read_text()
    assert len(seen) >= 8


def test_pieces_are_as_long_as_asked_for_at_any_frame_rate(tmp_path: Path) -> None:
    path = tmp_path / "index.m3u8"
    with sink_for(path, hls_seconds=2.0) as sink:
        for number in range(0, 250, 10):  # 2.5 a second
            sink.write(shot(number))
    lengths = [float(s) for s in re.findall(r"#EXTINF:([\d.]+)", path.read_text())]
    assert all(length == pytest.approx(2.0, abs=0.41) for length in lengths[:-1])


def test_another_run_goes_on_with_the_list(tmp_path: Path) -> None:
    path = tmp_path / "index.m3u8"
    write(path, range(100))
    write(path, range(100, 150))
    assert listed(path) == [f"index-{n}.ts" for n in range(2, 6)]
    assert path.read_text().count("#EXT-X-ENDLIST") == 1
    assert "#EXT-X-MEDIA-SEQUENCE:2\n" in path.read_text()
    assert played(path) == [*range(50, 150)]


def test_a_camera_that_was_away_goes_on_after_a_mark_in_the_list(tmp_path: Path) -> None:
    path = tmp_path / "index.m3u8"
    numbers = [*range(60), *range(256 * 1000, 256 * 1000 + 60)]  # almost three hours later
    with sink_for(path, hls_pieces=10) as sink:
        for number in numbers:
            sink.write(shot(number))
    assert played(path) == [n % 256 for n in numbers]
    assert "#EXT-X-TARGETDURATION:1\n" in path.read_text()
    assert path.read_text().count("#EXT-X-DISCONTINUITY") == 2  # also where the list begins


@pytest.mark.parametrize("live", [True, False])
def test_pictures_that_come_seldom_are_shown_until_the_next(tmp_path: Path, live: bool) -> None:
    path, target = tmp_path / "index.m3u8", replace(LIVE, live=live)
    recording = RecordingSettings(hls_seconds=1.0)
    with open_sink(str(path), target, VIDEO, (), recording) as sink:
        for number in range(0, 500, 100):  # every four seconds
            sink.write(shot(number))
    *_, before, last = re.findall(r"#EXTINF:([\d.]+)", path.read_text())
    assert (float(before), float(last)) == (4.0, pytest.approx(0.04))
    # One where the list begins; and a camera's second picture may be a late one.
    assert path.read_text().count("#EXT-X-DISCONTINUITY") == (2 if live else 1)


def test_another_size_goes_on_in_the_same_list(tmp_path: Path) -> None:
    path = tmp_path / "index.m3u8"
    with sink_for(path, hls_pieces=10) as sink:
        for number in range(100):
            sink.write(shot(number, size=(128, 96) if number < 50 else (64, 48)))
    assert played(path) == [*range(100)]
    assert path.read_text().count("#EXT-X-DISCONTINUITY") == 2  # also where the list begins


def test_pieces_play_in_the_shape_of_their_source(tmp_path: Path) -> None:
    with sink_for(tmp_path / "index.m3u8") as sink:
        for number in range(10):
            sink.write(shot(number, pixel_hw=(11, 16)))
    assert pixel_aspect(tmp_path / "index-0.ts") == Fraction(16, 11)


CHILD = """
import sys
sys.path[:0] = {path!r}
from itertools import count
from pathlib import Path
from tests.recording.test_hls import shot, sink_for
with sink_for(Path({out!r})) as sink:
    for number in count():
        sink.write(shot(number))
        print(number, flush=True)
"""


def test_a_killed_run_leaves_a_list_that_plays_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    path = tmp_path / "index.m3u8"
    command = [sys.executable, "-c", CHILD.format(path=sys.path, out=str(path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 190:
            pass  # until it has written so many
        os.kill(process.pid, signal.SIGKILL)
    before = [n for name in listed(path) for n in look(tmp_path / name)[0]]
    assert len(before) >= 75 and all((b - a) % 256 == 1 for a, b in pairwise(before))
    (tmp_path / "index-999.ts").write_text("left behind")
    (tmp_path / "index-5.txt").write_text("precious")
    write(path, range(200, 225))
    assert played(path)[-25:] == [*range(200, 225)] and len(listed(path)) == 4
    assert not (tmp_path / "index-999.ts").exists() and (tmp_path / "index-5.txt").exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_lists_in_one_folder_leave_each_others_pieces_alone(tmp_path: Path) -> None:
    for name in ("cam11", "cam1-1", "cam"):
        write(tmp_path / f"{name}.m3u8", range(60))
    write(tmp_path / "cam1.m3u8", range(60, 200), hls_seconds=0.5, hls_pieces=20)
    for name in ("cam11", "cam1-1", "cam"):
        assert played(tmp_path / f"{name}.m3u8") == [*range(60)]
    assert played(tmp_path / "cam1.m3u8") == [*range(60, 200)]


def test_a_file_that_is_no_playlist_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "index.m3u8").write_text("precious")
    with pytest.raises(SinkError, match="no playlist"):
        write(tmp_path / "index.m3u8", range(50))
    assert (tmp_path / "index.m3u8").read_text() == "precious"


def test_a_run_without_pictures_leaves_nothing(tmp_path: Path) -> None:
    assert write(tmp_path / "live" / "index.m3u8", range(0))["files"] == 0
    assert not list((tmp_path / "live").iterdir())


@pytest.mark.parametrize("name", ["a b", "100%", "ünï", "it's"])
def test_names_of_any_kind_work(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / f"{name}.m3u8"
    write(path, range(60))
    assert played(path) == [*range(60)]


LIMITED = """
import resource, sys
sys.path[:0] = {path!r}
from pathlib import Path
from pipeline.errors import SinkError
from tests.recording.test_hls import write
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    write(Path({out!r}), range(250))
except SinkError as error:
    sys.exit(f"{{error.exit_code}} {{error}}")
"""


def test_a_disk_that_fills_up_is_a_sink_error(tmp_path: Path) -> None:
    code = LIMITED.format(path=sys.path, out=str(tmp_path / "index.m3u8"))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.startswith("5 ") and "largest size allowed" in ended.stderr


def test_a_folder_that_vanishes_is_one_sink_error_and_nothing_else_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "live"
    with pytest.raises(SinkError, match="No such file"), sink_for(folder / "a.m3u8") as sink:
        for number in range(100):
            if number == 30:
                shutil.rmtree(folder)
            sink.write(shot(number))
    del sink
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_times_that_begin_late_are_kept_in_step(tmp_path: Path) -> None:
    day = 86_400 * 2  # seconds: more than the clock of a transport stream can count to
    path = tmp_path / "index.m3u8"
    with sink_for(path) as sink:
        for number in range(100):
            made = shot(number)
            late = made.frame.pts + day * 25
            sink.write(
                type(made)(
                    type(made.frame)(made.frame.picture, "cam", number, late, Fraction(1, 25), 0.0),
                    made.detections,
                )
            )
    assert played(path) == [*range(100)]
