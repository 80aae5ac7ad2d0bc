"""A line on cameras that is stopped, politely or not: what was written can be used."""

from __future__ import annotations

import signal
import time

import av
import pytest

from tests.live.kit.line import adds_up
from tests.live.kit.odd_servers import SilentServer, StatusServer
from tests.waiting import until

STOP_SECONDS = 5.0 + 10.0  # promised, and what a busy machine may add


def frames_in(path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_line_in_time_with_its_files_finished(
    cameras, start_line, tmp_path, number
):
    camera = cameras.add(size=(160, 120))
    line = start_line([camera.url], out=[str(tmp_path / "a.mp4")])
    line.wait_records(20)
    assert line.stop(number) < STOP_SECONDS
    assert line.process.returncode == 128 + number
    (source,) = line.report["sources"].values()
    assert adds_up(source) and source["state"] == "ENDED"
    assert line.report["interrupted"] == number.name
    for name, count in ((".mp4", frames_in(tmp_path / "a.mp4")), (".jsonl", len(line.records()))):
        (sink,) = (sink for path, sink in line.report["sinks"].items() if path.endswith(name))
        assert sink["frames"] == count
        assert count + sink.get("frames_dropped", 0) == source["frames_inferred"], sink


@pytest.mark.parametrize("state", ["connecting", "waiting"])
def test_a_signal_is_obeyed_by_who_has_no_camera_yet(start_line, state):
    with SilentServer() if state == "connecting" else StatusServer("404 Not Found") as server:
        line = start_line([server.url("rtsp")])
        until(lambda: server.connections, 60, "a connection")
        assert line.stop() < STOP_SECONDS
        assert line.process.returncode == 130
        (source,) = line.report["sources"].values()
        assert source["state"] == "ENDED" and source["frames_decoded"] == 0


def test_a_signal_is_obeyed_while_the_camera_is_silent(cameras, start_line):
    camera = cameras.add(size=(160, 120))
    line = start_line([camera.url])
    line.wait_records(5)
    cameras.freeze()
    assert line.stop() < STOP_SECONDS
    assert line.process.returncode == 130


def test_a_second_signal_ends_it_at_once_and_the_video_plays(cameras, start_line, tmp_path):
    camera = cameras.add(size=(160, 120))
    line = start_line([camera.url], out=[str(tmp_path / "a.mp4")])
    line.wait_records(20)
    line.process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    line.stop()
    assert time.monotonic() - begin < STOP_SECONDS
    assert line.process.returncode == 130
    assert frames_in(tmp_path / "a.mp4") > 0


def test_a_killed_line_leaves_a_video_that_plays_and_whole_records(cameras, start_line, tmp_path):
    camera = cameras.add(size=(160, 120))
    settings = ["video.keyframe_seconds=0.5"]
    line = start_line([camera.url], out=[str(tmp_path / "a.mp4")], settings=settings)
    line.wait_records(75)
    line.stop(signal.SIGKILL)
    assert frames_in(tmp_path / "a.mp4") >= 25
    assert len(line.records()) >= 75


def test_a_duration_ends_a_camera_too(cameras, start_line):
    camera = cameras.add(size=(160, 120))
    line = start_line([camera.url], settings=["duration=2"])
    assert line.process.wait(timeout=60) == 0
    (source,) = line.report["sources"].values()
    assert adds_up(source) and source["state"] == "ENDED"
    assert line.report["wall_seconds"] >= 2.0
    first, *_, last = (record["pts_seconds"] for record in line.records())
    assert last - first < 2.0 + 1.0, "more than what waited on the way to the first picture"
