"""The sound beside annotated video."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from tests.pipeline.written_video import (
    MP4_AND_MKV,
    copied,
    result,
    sound_times,
    times,
    with_sound,
    write,
)


@MP4_AND_MKV
@pytest.mark.parametrize("codec", ["aac", "ac3", "flac", "libopus"])
def test_sound_is_copied_packet_by_packet(tmp_path: Path, ending: str, codec: str) -> None:
    source = with_sound(tmp_path / "in.mkv", codec)
    report = copied(source, tmp_path / f"a.{ending}")
    assert report["audio"] == f"copied ({codec.removeprefix('lib')})"
    written, original = sound_times(tmp_path / f"a.{ending}"), sound_times(source)
    with av.open(str(source)) as container:  # which may begin with a little silence before 0
        begin = (container.start_time or 0) / av.time_base
    expected = [t - begin for t in original if t >= begin][: len(written)]
    assert written == pytest.approx(expected, abs=0.002)
    assert 1.8 < written[-1] < 2.05
    with av.open(str(tmp_path / f"a.{ending}")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 80_000
    assert len(times(tmp_path / f"a.{ending}")) == 50


@MP4_AND_MKV
def test_sound_of_a_broadcast_is_unwrapped_and_stays_in_step(tmp_path: Path, ending: str) -> None:
    source = with_sound(tmp_path / "in.ts", begin=0.4)
    report = copied(source, tmp_path / f"a.{ending}")
    assert report["audio"] == "copied (aac)"
    gap_before = sound_times(source)[0] - float(times(source)[0])
    gap_after = sound_times(tmp_path / f"a.{ending}")[0] - float(times(tmp_path / f"a.{ending}")[0])
    assert gap_after == pytest.approx(gap_before, abs=0.002)
    with av.open(str(tmp_path / f"a.{ending}")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 70_000


@MP4_AND_MKV
def test_sound_ends_with_the_picture_and_may_end_before_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    copied(with_sound(tmp_path / "long.mkv", seconds=4), path, frames=25)
    assert len(times(path)) == 25 and 0.9 < sound_times(path)[-1] < 1.0
    copied(with_sound(tmp_path / "short.mkv", seconds=0.5, video=4), path)
    assert len(times(path)) == 100 and 0.4 < sound_times(path)[-1] < 0.5


def test_sound_that_the_container_cannot_hold_is_dropped_with_a_reason(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.avi", "adpcm_ms")
    report = copied(source, tmp_path / "a.mp4", frames=20)
    assert report["audio"] == "dropped, because mp4 cannot hold adpcm_ms"
    assert len(times(tmp_path / "a.mp4")) == 20 and sound_times(tmp_path / "a.mp4") == []


def test_sound_that_begins_late_does_not_hold_up_the_video(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv", begin=11.0, video=12)
    report = copied(source, tmp_path / "a.mp4", frames=30)
    assert report["audio"] == "dropped, because it begins 11 s late"
    assert len(times(tmp_path / "a.mp4")) == 30


def test_sound_can_be_left_out(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv")
    assert copied(source, tmp_path / "a.mp4", audio=False)["audio"] == "off"
    assert sound_times(tmp_path / "a.mp4") == []
    (tmp_path / "notes.txt").write_text("not a video at all")
    for path in (None, tmp_path, tmp_path / "gone.mp4"):
        report = write(tmp_path / "b.mp4", map(result, range(3)), {"media_path": path})
        assert report["audio"] == "none in the source"
    report = write(tmp_path / "b.mp4", [result(0)], {"media_path": tmp_path / "notes.txt"})
    assert report["audio"].startswith("dropped, because the source does not open again")


def test_sound_that_breaks_off_does_not_break_the_video(tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mkv")
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    facts = {"media_path": source}
    write(tmp_path / "a.mp4", map(result, range(50)), facts)
    assert len(times(tmp_path / "a.mp4")) == 50


def test_sound_of_a_real_recording_is_kept(shared_data: Path, tmp_path: Path) -> None:
    clip = shared_data / "videos" / "highway_day_960x540_25fps.mp4"
    report = copied(clip, tmp_path / "a.mp4", frames=50)
    assert report["audio"] == "copied (aac)"
    original = [t for t in sound_times(clip) if 0 <= t < 2]
    assert sound_times(tmp_path / "a.mp4") == pytest.approx(original, abs=1e-4)
