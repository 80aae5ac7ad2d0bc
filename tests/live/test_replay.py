"""Recordings that play in real time and are treated as cameras."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from pipeline.errors import ConfigError, SourceNotFound
from pipeline.graph import background
from pipeline.settings import LiveSettings, VideoSettings
from pipeline.sinks import open_sinks
from pipeline.sources import open_sources
from pipeline.sources.live import CameraSource
from tests.clips import read_number
from tests.live.scripted import luma, watched


def replay(url: object, live: LiveSettings | None = None, **limits: object) -> CameraSource:
    (source,) = open_sources([f"replay:{url}"], live=live, **limits)
    assert isinstance(source, CameraSource)
    return source


def test_a_recording_plays_at_its_own_pace_and_ends(make_clip):
    source = replay(make_clip("drive.mp4", frames=25, fps=25))
    assert (source.name, source.live, source.size_hw) == ("drive", True, (48, 64))
    begin = time.monotonic()
    frames = list(source.frames())
    took = time.monotonic() - begin
    assert took > 24 / 25 - 0.05, "faster than real time"
    assert source.stats.state == "ENDED"
    assert len(frames) + source.stats.frames_dropped.total() == 25
    for frame in frames:  # never early; on time where the machine can
        assert frame.arrival - begin >= read_number(frame.picture) / 25 - 0.02
    source.close()


def test_pictures_keep_their_distances_in_time(make_clip):
    timestamps = [0, 1, 2, 6, 7, 12, 13, 14]
    clip = make_clip("jerky.mkv", frames=8, timestamps=timestamps, fps=25)
    frames = list(replay(clip).frames())
    seconds = {read_number(frame.picture): frame.pts_seconds for frame in frames}
    for (a, at_a), (b, at_b) in pairwise(seconds.items()):
        assert at_b - at_a == pytest.approx((timestamps[b] - timestamps[a]) / 25, abs=0.002)


def test_pixels_keep_their_shape(make_clip):
    clip = make_clip("wide.mp4", frames=3, rotation=90, pixel_aspect=Fraction(16, 11))
    assert {frame.pixel_hw for frame in replay(clip).frames()} == {(16, 11)}


def test_a_loop_begins_again_and_its_time_goes_on(make_clip):
    source = replay(f"{make_clip('short.mp4', frames=5, fps=50)}#loop", max_frames=12)
    frames = list(source.frames())
    source.close()
    assert len(frames) == 12
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert frames[-1].pts_seconds - frames[0].pts_seconds < 5, "no pause between the rounds"
    numbers = [read_number(frame.picture) for frame in frames]
    assert any(a > b for a, b in pairwise(numbers))
    assert source.stats.connections == 1
    assert not source.stats.anomalies


def test_a_drawn_street_is_a_camera_too_and_brings_its_truth():
    url = "synthetic://street?seed=3&size=96x64&fps=10&seconds=2"
    source = replay(f"{url}#name=corner&loop", max_frames=5)
    frames = list(source.frames())
    source.close()
    assert source.name == "corner"
    assert [frame.size_hw for frame in frames] == [(64, 96)] * 5
    assert all(frame.truth is not None and frame.source == "corner" for frame in frames)


@pytest.mark.parametrize(
    ("options", "cause", "kept"),
    [("stride=5", "stride", 10), ("max_fps=10", "max_fps", 20)],
)
def test_thinning_leaves_out_pictures_evenly_and_counts_them(make_clip, options, cause, kept):
    source = replay(f"{make_clip('a.mp4', frames=50, fps=25)}#{options}&late_seconds=60")
    frames = list(source.frames())
    source.close()
    dropped = source.stats.frames_dropped
    assert dropped[cause] == 50 - kept
    assert len(frames) + dropped["queue_full"] == kept
    assert source.stats.in_flight == len(frames)


def test_a_pause_leaves_the_recording_and_a_resume_begins_it_again(make_clip):
    source = replay(f"{make_clip('a.mp4', frames=50, fps=25)}#loop")
    with watched(source) as watch:
        watch.wait_for_frames(3)
        source.pause()
        watch.wait_for("PAUSED")
        count = len(watch.frames)
        source.resume()
        watch.wait_for_frames(count + 3)
        assert watch.frames[-1].generation == 2
    assert "PAUSED" in watch.states


def test_a_replay_is_ended_at_once_though_its_next_picture_is_far(make_clip):
    clip = make_clip("slow.mkv", frames=2, timestamps=[0, 50], time_base=None, fps=1)
    with watched(replay(clip)) as watch:
        watch.wait_for_frames(1)
        assert watch.end() < 5.0


def test_a_mistyped_recording_is_known_before_the_run(tmp_path):
    with pytest.raises(SourceNotFound, match=r"no such file: .*nothing\.mp4"):
        replay(tmp_path / "nothing.mp4")
    with pytest.raises(ConfigError, match="not a camera"):
        replay("rtsp://u:secret@cam/x")
    with pytest.raises(ConfigError, match="unknown key 'sede'"):
        replay("synthetic://street?sede=1")


@pytest.mark.parametrize("out", ["2026.mp4", "x/../2026.mp4", "%Y.mp4"])
def test_a_recording_that_is_replayed_is_never_written_over(make_clip, tmp_path, out):
    clip = make_clip("2026.mp4", frames=3)
    before, source = clip.read_bytes(), replay(clip)
    with pytest.raises(ConfigError, match="the input"):
        (sink,) = open_sinks([str(tmp_path / out)], source, ("car",), VideoSettings())
        with sink:
            pass
    assert clip.read_bytes() == before
    assert source.media_path is None, "its sound would be copied"


def test_a_name_with_a_hash_is_a_name_when_there_is_such_a_file(make_clip):
    source = replay(make_clip("a#b.mp4", frames=2))
    assert source.name == "a#b"
    assert len(list(source.frames())) + source.stats.frames_dropped.total() == 2


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_recording_is_turned_once(make_clip, degrees):
    clip = make_clip("turned.mp4", frames=1, size=(64, 40), rotation=degrees)
    (as_file,) = open_sources([str(clip)])[0].frames()
    (as_camera,) = replay(clip).frames()
    assert as_camera.size_hw == as_file.size_hw == ((40, 64) if degrees == 180 else (64, 40))
    np.testing.assert_array_equal(luma(as_camera), luma(as_file))


def test_several_replays_keep_their_rates_side_by_side(make_clip):
    clip = make_clip("a.mp4", frames=20, fps=10)
    sources = open_sources([f"replay:{clip}"] * 3)
    assert [source.name for source in sources] == ["a", "a-2", "a-3"]
    counts: dict[str, int] = {}
    threads = [
        background(lambda s=s: counts.update({s.name: len(list(s.frames()))}), s.name)
        for s in sources
    ]
    assert all(thread.join(60) for thread in threads)
    for source in sources:
        assert counts[source.name] + source.stats.frames_dropped.total() == 20
        source.close()
