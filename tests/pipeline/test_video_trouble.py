"""What is left of annotated video when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.errors import SinkError
from pipeline.frame import Detections, Frame, Result
from tests.pipeline.written_video import (
    MP4_AND_MKV,
    numbers,
    playable,
    result,
    sound_times,
    times,
    with_sound,
    write,
)


def test_a_run_without_frames_leaves_no_file(tmp_path: Path) -> None:
    report = write(tmp_path / "a.mp4", [])
    assert not (tmp_path / "a.mp4").exists()
    assert report["frames"] == 0 and report["bytes"] is None


@MP4_AND_MKV
def test_an_error_upstream_finishes_the_file_and_is_not_hidden(tmp_path: Path, ending: str) -> None:
    def failing() -> Iterator[Result]:
        yield from map(result, range(30))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(tmp_path / f"a.{ending}", failing())
    assert numbers(tmp_path / f"a.{ending}") == list(range(30))


def test_an_encoder_that_fails_is_a_sink_error(tmp_path: Path) -> None:
    too_large = av.VideoFrame(20_000, 2, "yuv420p")  # H.264 ends at 16384 columns
    frame = Frame(too_large, "a", 0, 0, Fraction(1, 25), 0.0)
    with pytest.raises(SinkError, match="cannot write") as caught:
        write(tmp_path / "a.mp4", [Result(frame, Detections.none())])
    assert caught.value.exit_code == 5


CHILD = """
import resource, sys
sys.path[:0] = {path!r}
from contextlib import ExitStack
from fractions import Fraction
from itertools import count
from pathlib import Path
from pipeline.errors import SinkError
from pipeline.settings import VideoSettings
from pipeline.sinks import SinkTarget, open_sink
from tests.pipeline.written_video import result
limit = {limit}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
source = {source!r}
target = SinkTarget("a", ("car",), Fraction(25), media_path=source and Path(source))
settings = VideoSettings(keyframe_seconds=2.0, crf=12, preset="ultrafast")
try:
    with ExitStack() as stack:
        sinks = [stack.enter_context(open_sink(out, target, settings)) for out in {outs!r}]
        for number in count():
            for sink in sinks:
                sink.write(result(number))
            print(number, flush=True)
except SinkError as error:
    sys.exit(f"{{error.exit_code}} {{error}}")
"""
MOST_LOST = 2 * 25  # frames: keyframe_seconds at 25 frames/s


def child(*outs: Path, limit: int = 0, source: Path | None = None) -> list[str]:
    """Command of a process that writes numbered pictures to `outs` until something stops it."""
    code = CHILD.format(
        path=sys.path, outs=[*map(str, outs)], limit=limit, source=str(source) if source else None
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("sound", [False, True])
def test_a_killed_run_leaves_videos_that_play(tmp_path: Path, sound: bool) -> None:
    source = with_sound(tmp_path / "in.mkv", seconds=10, video=0.2) if sound else None
    outs = tmp_path / "a.mp4", tmp_path / "a.mkv"
    command = child(*outs, source=source)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = 0
        while written < 130:
            written = int(process.stdout.readline()) + 1
        os.kill(process.pid, signal.SIGKILL)
    for path in outs:
        left = playable(path)
        assert left == [n % 256 for n in range(len(left))]
        assert len(left) >= written - MOST_LOST
        assert bool(sound_times(path)) == sound


@MP4_AND_MKV
def test_a_disk_that_fills_up_leaves_a_video_that_plays_so_far(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    ended = subprocess.run(
        child(path, limit=60_000), capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.stderr.startswith("5 ") and "largest size allowed" in ended.stderr
    written = int(ended.stdout.split()[-1]) + 1
    left = playable(path)
    assert left == [n % 256 for n in range(len(left))]
    assert len(left) >= written - MOST_LOST and len(left) > 10


@MP4_AND_MKV
def test_a_restart_keeps_what_a_camera_gave_before(tmp_path: Path, ending: str) -> None:
    for run in range(3):
        write(tmp_path / f"50%.{ending}", map(result, range(run, 20)), {"live": True})
    first, second, newest = (tmp_path / f"50%{n}.{ending}" for n in ("~1", "~2", ""))
    assert set(tmp_path.iterdir()) == {first, second, newest}
    assert [numbers(path)[0] for path in (first, second, newest)] == [0, 1, 2]


def test_what_a_link_leads_to_is_kept_beside_it(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "disk" / "b.mp4")
    for run in range(2):
        write(tmp_path / "a.mp4", map(result, range(run, 20)), {"live": True})
    kept, newest = (tmp_path / "disk" / name for name in ("b~1.mp4", "b.mp4"))
    assert [numbers(path)[0] for path in (kept, newest)] == [0, 1]
    assert (tmp_path / "a.mp4").is_symlink()


def test_a_video_of_a_recording_is_replaced_and_an_empty_one_too(tmp_path: Path) -> None:
    for run in range(2):
        write(tmp_path / "a.mp4", map(result, range(run, 20)))
    (tmp_path / "b.mp4").touch()
    write(tmp_path / "b.mp4", map(result, range(2, 20)), {"live": True})
    assert {path.name: numbers(path)[0] for path in tmp_path.iterdir()} == {"a.mp4": 1, "b.mp4": 2}


SLOW_DISK = """
import faulthandler, os, sys
from pathlib import Path
sys.path[:0] = {path!r}
from fractions import Fraction
from threading import Thread
import av
import numpy as np
from pipeline.frame import Detections, Frame, Result
from tests.pipeline.written_video import write
faulthandler.dump_traceback_later(60, exit=True)  # of a process that stands still
def drain(pipe):
    while os.read(pipe, 1 << 16):
        pass
noise = np.random.default_rng(0).integers(0, 255, (360, 320), np.uint8)
picture = av.VideoFrame.from_ndarray(noise, "yuv420p")
os.mkfifo({out!r})
pipe = os.open({out!r}, os.O_RDWR)
Thread(target=drain, args=(pipe,), daemon=True).start()
frames = (Frame(picture, "a", n, n, Fraction(1, 25), 0.0) for n in range(20))
write(Path({out!r}), (Result(frame, Detections.none()) for frame in frames), {{"live": True}})
"""


def test_a_disk_that_takes_its_time_holds_up_no_other_thread(tmp_path: Path) -> None:
    # What is written at the end does not fit into a pipe, and a thread reads it.
    code = SLOW_DISK.format(path=sys.path, out=f"{tmp_path}/a.mp4")
    command = [sys.executable, "-c", code]
    subprocess.run(command, timeout=100, check=True)


def test_a_file_that_grows_for_days_keeps_its_fragments(tmp_path: Path) -> None:
    write(tmp_path / "live.mp4", map(result, range(100)), {"live": True})
    write(tmp_path / "file.mp4", map(result, range(100)))
    assert (tmp_path / "live.mp4").read_bytes().count(b"moof") >= 4
    assert times(tmp_path / "live.mp4") == times(tmp_path / "file.mp4")
    # A recording ends up with an ordinary index, which every player can seek by.
    data = (tmp_path / "file.mp4").read_bytes()
    assert data.rfind(b"moov") > data.rfind(b"mdat")
