"""Which sink an output gets, and what records and pictures look like."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.drawing.render import render
from pipeline.errors import ConfigError, SinkError
from pipeline.frame import Detections, Frame, Result
from pipeline.settings import RenderSettings, VideoSettings
from pipeline.sinks import Sink, SinkTarget, open_sink, open_sinks
from pipeline.sinks.images import ImagesSink
from pipeline.sinks.null import NullSink
from pipeline.sinks.records import JsonLinesSink
from pipeline.sinks.video import VideoSink
from tests.clips import as_frame, numbered_picture

NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
TARGET = SinkTarget("drive", NAMES, Fraction(25))
VIDEO = VideoSettings()


def result(index: int = 0, file: str | None = None, size: tuple[int, int] = (64, 48)) -> Result:
    """A numbered picture in which a car and a bus were found."""
    picture = as_frame(numbered_picture(index, size), "yuv420p")
    boxes = np.array([[1.2345, 2, 30, 40.006], [5, 5, 20, 20]], np.float32)
    found = Detections(boxes, np.array([0.912345, 0.5], np.float32), np.array([2, 4]))
    frame = Frame(picture, "drive", index, index * 3, Fraction(1, 90), 0.0, file=file)
    return Result(frame, found)


def opened(out: str, target: SinkTarget = TARGET) -> Sink:
    return open_sink(out, target, VIDEO)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_ending_picks_the_sink(tmp_path: Path) -> None:
    for out, kind in (
        ("a.mp4", VideoSink),
        ("a.MKV", VideoSink),
        ("a.jsonl", JsonLinesSink),
        ("pictures", ImagesSink),
        ("pictures.d/", ImagesSink),
    ):
        assert isinstance(opened(str(tmp_path / out) + "/" * out.endswith("/")), kind)
    assert isinstance(opened("null:"), NullSink)


def test_only_sinks_that_show_pictures_want_them_drawn(tmp_path: Path) -> None:
    wanting = [
        out
        for out in ("a.mp4", "a.mkv", "a.jsonl", "dir/")
        if opened(str(tmp_path) + "/" + out).wants_picture
    ]
    assert wanting == ["a.mp4", "a.mkv", "dir/"]
    assert not opened("null:").wants_picture


@pytest.mark.parametrize("out", ["a.avi", "a.txt", "ftp://host/a", "kafka:topic", "http://x/a.mp4"])
def test_an_unknown_kind_is_an_error_that_names_the_known_ones(out: str) -> None:
    with pytest.raises(ConfigError, match=r"no sink for .*\.mp4, \.mkv, \.jsonl, a folder/"):
        opened(out)


@pytest.mark.parametrize(
    "out",
    [
        "https://0.0.0.0:8443?token=hunter2",
        "amqp://h/x?password=hunter2&a=b",
        "amqp://me:hunter2@h",
        "ftp://h/?API_KEY=hunter2",
        "ftp://me:x\nhunter2@h",
        "RTMP://h/app/hunter2",
    ],
)
def test_an_unknown_kind_is_refused_without_its_secrets(out: str) -> None:
    with pytest.raises(ConfigError, match="no sink for") as caught:
        opened(out)
    assert "hunter2" not in str(caught.value) and "***" in str(caught.value)


def test_the_sources_name_is_filled_in_and_made_fit_for_a_file_name(tmp_path: Path) -> None:
    target = SinkTarget("../cam/north: 1.5", NAMES)
    sink = opened(str(tmp_path / "{source}" / "{source}.jsonl"), target)
    assert sink.name == str(tmp_path / "_cam_north_ 1.5" / "_cam_north_ 1.5.jsonl")


def test_a_name_with_a_dot_does_not_change_the_kind_of_a_folder(tmp_path: Path) -> None:
    sink = opened(str(tmp_path / "{source}"), SinkTarget("clip.v2", NAMES))
    assert isinstance(sink, ImagesSink)


def test_an_unknown_placeholder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown \{name\}.*known here: \{source\}"):
        opened(str(tmp_path / "{name}.mp4"))


def test_missing_folders_are_made(tmp_path: Path) -> None:
    with opened(str(tmp_path / "a" / "b" / "c.jsonl")) as sink:
        sink.write(result())
    assert len(lines(tmp_path / "a" / "b" / "c.jsonl")) == 1


def test_opening_a_sink_leaves_what_is_there_alone(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.jsonl"):
        (tmp_path / name).write_text("precious")
        opened(str(tmp_path / name))
        assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize("detour", ["drive.mp4", "x/../drive.mp4", "link.mp4"])
def test_an_input_is_never_written_over(tmp_path: Path, detour: str) -> None:
    video = tmp_path / "drive.mp4"
    video.write_text("precious")
    (tmp_path / "x").mkdir()
    (tmp_path / "link.mp4").symlink_to(video)
    with pytest.raises(ConfigError, match="over the input"):
        opened(str(tmp_path / detour), SinkTarget("drive", NAMES, media_path=video))
    with pytest.raises(ConfigError, match="over the input"):
        open_sink(str(tmp_path / detour), TARGET, VIDEO, inputs=[video])
    assert video.read_text() == "precious"


@dataclass
class Pictures:
    """A source of pictures, as far as sinks know it."""

    url: str
    name: str = "pictures"
    rate: Fraction | None = None
    input_path: Path | None = None
    media_path: Path | None = None
    live: bool = False
    is_images: bool = True


@pytest.mark.parametrize("url", ["in", "in/*.png", "in/a.png", "i*/a.png"])
def test_pictures_are_never_written_into_the_folder_they_come_from(
    tmp_path: Path, url: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("precious")
    source = Pictures(str(tmp_path / url))
    with pytest.raises(ConfigError, match="over the input"):
        open_sinks([str(tmp_path / "in") + "/"], source, NAMES, VIDEO)
    assert open_sinks([str(tmp_path / "out") + "/"], source, NAMES, VIDEO)


def test_one_output_asked_for_twice_is_an_error(tmp_path: Path) -> None:
    out = str(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="twice"):
        open_sinks([out, out], Pictures("in"), NAMES, VIDEO)


def test_null_counts_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("null:") as sink:
        for index in range(3):
            sink.write(result(index))
    assert sink.report() == {"frames": 3} and sink.frames == 3
    assert not list(tmp_path.iterdir())


# Records


def test_a_record_holds_the_frame_and_its_detections_in_short_numbers(tmp_path: Path) -> None:
    with opened(str(tmp_path / "a.jsonl")) as sink:
        sink.write(result(7))
    assert lines(tmp_path / "a.jsonl") == [
        {
            "source": "drive",
            "frame": 7,
            "pts_seconds": 0.233333,
            "width": 64,
            "height": 48,
            "detections": [
                {"label": "car", "class_id": 2, "score": 0.9123, "box": [1.23, 2.0, 30.0, 40.01]},
                {"label": "bus", "class_id": 4, "score": 0.5, "box": [5.0, 5.0, 20.0, 20.0]},
            ],
        }
    ]
    assert list(lines(tmp_path / "a.jsonl")[0])[:3] == ["source", "frame", "pts_seconds"]


def test_a_record_of_a_picture_names_its_file_and_a_frame_without_objects_is_a_record_too(
    tmp_path: Path,
) -> None:
    empty = Result(result(0, file="straße.png").frame, Detections.none())
    with opened(str(tmp_path / "a.jsonl")) as sink:
        sink.write(empty)
    (line,) = lines(tmp_path / "a.jsonl")
    assert line["file"] == "straße.png" and line["detections"] == []


def test_every_line_is_on_its_way_to_the_disk_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with opened(str(path)) as sink:
        for index in range(3):
            sink.write(result(index))
            assert len(lines(path)) == index + 1
    assert sink.report() == {"path": str(path), "frames": 3, "bytes": path.stat().st_size}


# Pictures


def test_pictures_of_a_video_are_numbered_and_show_what_was_drawn(tmp_path: Path) -> None:
    drawn = render([result(0), result(1)], NAMES, RenderSettings(labels=False, scores=False))
    with opened(str(tmp_path / "out") + "/") as sink:
        for each in drawn:
            sink.write(each)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.jpg", "000001.jpg"]
    image = cv2.imread(str(tmp_path / "out" / "000001.jpg"))
    assert image.shape == (48, 64, 3)
    assert sink.report()["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())


def test_pictures_keep_their_names_formats_and_colours(tmp_path: Path) -> None:
    rgb = numbered_picture(5, (64, 48))
    names = ["a.png", "b.JPG", "c.bmp", "d.webp", "e.tiff", "f.ppm"]
    with opened(str(tmp_path / "out")) as sink:
        for index, name in enumerate(names):
            frame = Frame(as_frame(rgb, "rgb24"), "x", index, index, Fraction(1), 0.0, file=name)
            sink.write(Result(frame, Detections.none()))
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == [*names[:-1], "f.jpg"]  # there is little use in a PPM with boxes
    for name in written:
        image = cv2.imread(str(tmp_path / "out" / name))[..., ::-1].astype(int)
        assert np.abs(image - rgb).mean() < (0.01 if name[0] in "ace" else 12), name


def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with opened(str(tmp_path / "out")) as sink:
        for index, name in enumerate(["a.png", "b/a.png", "../a.png"]):
            sink.write(result(index, file=name))
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["a-000001.png", "a-000002.png", "a.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_a_picture_of_odd_size_keeps_its_size(tmp_path: Path) -> None:
    odd = result(0, size=(33, 17))
    with opened(str(tmp_path / "out")) as sink:
        for each in render([odd], NAMES, RenderSettings()):
            sink.write(each)
    assert cv2.imread(str(tmp_path / "out" / "000000.jpg")).shape == (17, 33, 3)


# Trouble


@pytest.mark.parametrize("out", ["a.jsonl", "a.mp4", "a.mkv", "pictures"])
def test_a_file_in_place_of_a_folder_is_a_sink_error(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"cannot write .*another --out|exists") as caught:
        opened(str(tmp_path / "file" / out))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("out", ["a.jsonl", "a.mp4", "a.mkv"])
def test_a_folder_in_place_of_a_file_is_a_sink_error(tmp_path: Path, out: str) -> None:
    (tmp_path / out).mkdir()
    with pytest.raises(SinkError, match=r"^cannot write .*a folder"), opened(str(tmp_path / out)):
        pass


def test_a_file_where_pictures_should_go_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("precious")
    with pytest.raises(SinkError, match="cannot write"):
        opened(str(tmp_path / "pictures"))
    assert (tmp_path / "pictures").read_text() == "precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("out", ["a.jsonl", "a.mp4", "a.mkv"])
def test_a_full_disk_is_a_sink_error_that_says_so(tmp_path: Path, out: str) -> None:
    (tmp_path / out).symlink_to("/dev/full")
    with (
        pytest.raises(SinkError, match="the disk is full") as caught,
        opened(str(tmp_path / out)) as sink,
    ):
        for number in range(200):
            sink.write(result(number))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_picture_that_does_not_fit_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "000000.jpg").symlink_to("/dev/full")
    with pytest.raises(SinkError, match="the disk is full"), opened(str(tmp_path / "out")) as sink:
        sink.write(result())


def test_an_error_upstream_leaves_whole_records_and_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(str(tmp_path / "a.jsonl")) as sink:
        for number in range(3):
            sink.write(result(number))
        raise ZeroDivisionError
    assert [line["frame"] for line in lines(tmp_path / "a.jsonl")] == [0, 1, 2]


LIMITED = """
import resource, sys
sys.path[:0] = {path!r}
from tests.pipeline.test_sinks import opened, result
from pipeline.errors import SinkError
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    with opened({out!r}) as sink:
        for index in range(100):
            sink.write(result(index))
except SinkError as error:
    sys.exit(f"{{error.exit_code}} {{error}}")
"""


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    code = LIMITED.format(path=sys.path, out=str(tmp_path / "a.jsonl"))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.startswith("5 ") and "largest size allowed" in ended.stderr
    frames = [line["frame"] for line in lines(tmp_path / "a.jsonl")]
    assert frames == list(range(len(frames))) and len(frames) > 3


KILLED = """
import sys
sys.path[:0] = {path!r}
from itertools import count
from tests.pipeline.test_sinks import opened, result
with opened({out!r}) as sink:
    for index in count():
        sink.write(result(index % 256))
        print(index, flush=True)
"""


def test_a_killed_run_leaves_whole_records(tmp_path: Path) -> None:
    code = KILLED.format(path=sys.path, out=str(tmp_path / "a.jsonl"))
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = 0
        while written < 50:
            written = int(process.stdout.readline()) + 1
        os.kill(process.pid, signal.SIGKILL)
    assert len(lines(tmp_path / "a.jsonl")) >= written
