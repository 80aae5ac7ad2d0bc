"""Sources deliver what is in the files: every picture, upright, on the file's own clock."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.container import OutputContainer
from av.filter import Graph as FilterGraph
from av.stream import Disposition

from pipeline.errors import ConfigError, NoVideo
from pipeline.frame import Frame
from pipeline.graph import Graph
from pipeline.preprocess import preprocess
from pipeline.settings import RecordedSettings
from pipeline.sources import Source, open_sources
from pipeline.sources.folder import natural_order
from pipeline.sources.recorded import RecordedSource
from pipeline.sources.street import STREET_CLASSES, Street, read_frame_counter
from pipeline.sources.upright import Upright
from pipeline.yuv import own_yuv420p
from tests.clips import as_frame, numbered_picture, read_number
from tests.pipeline.frames import frame_of

MakeClip = Callable[..., Path]


def open_one(
    url: str | Path,
    *,
    max_frames: int | None = None,
    duration: float | None = None,
    decoder_threads: int = 0,
    **recorded: Any,
) -> Source:
    (source,) = open_sources(
        [str(url)],
        max_frames=max_frames,
        duration=duration,
        decoder_threads=decoder_threads,
        recorded=RecordedSettings(**recorded),
    )
    return source


def numbers(frames: Sequence[Frame]) -> list[int]:
    return [read_number(frame.picture) for frame in frames]


def luma(picture: av.VideoFrame) -> np.ndarray:
    """(H, W) first plane of an 8-bit picture."""
    plane = picture.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: picture.height, : picture.width]


# Recorded files ----------------------------------------------------------------------------------


def test_a_decoder_has_no_more_threads_than_a_container_allows_however_many_cores_there_are(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr("pipeline.sources.recorded.usable_cores", lambda: 2)
    source = open_one(make_clip("drive.mp4", frames=2))
    assert isinstance(source, RecordedSource)
    assert source._decoder_threads == 1


def test_a_clip_is_delivered_frame_by_frame_with_its_own_times(make_clip: MakeClip) -> None:
    source = open_one(make_clip("drive.mp4", frames=30, fps=30))
    assert (source.name, source.size_hw, source.rate) == ("drive", (48, 64), 30)
    assert (source.live, source.is_images, source.frame_count) == (False, False, 30)
    assert source.stats.state == "READY"
    frames = list(source.frames())
    assert numbers(frames) == list(range(30)) == [frame.index for frame in frames]
    assert [frame.pts_seconds for frame in frames] == pytest.approx([n / 30 for n in range(30)])
    assert all(a.arrival <= b.arrival for a, b in pairwise(frames))
    assert {frame.source for frame in frames} == {"drive"}
    stats = source.stats
    assert (stats.state, stats.frames_decoded, stats.in_flight) == ("ENDED", 30, 30)
    assert (stats.offered_fps, stats.source_seconds) == (30.0, pytest.approx(1.0))
    assert stats.first_arrival == frames[0].arrival
    assert not stats.anomalies and not stats.frames_dropped


def test_pictures_are_the_decoder_s_own(make_clip: MakeClip) -> None:
    clip = make_clip("a.mp4")
    with av.open(str(clip)) as container:
        plain = [frame.to_ndarray() for frame in container.decode(video=0)]
    delivered = list(open_one(clip).frames())
    assert {frame.picture.format.name for frame in delivered} == {"yuv420p"}
    for ours, theirs in zip(delivered, plain, strict=True):
        np.testing.assert_array_equal(ours.picture.to_ndarray(), theirs)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_decoder_threads_changes_nothing(make_clip: MakeClip, threads: int) -> None:
    frames = list(open_one(make_clip("a.mp4", frames=40), decoder_threads=threads).frames())
    assert numbers(frames) == list(range(40))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv422p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mp4", "libx264", "yuvj420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.avi", "libx264", "yuv420p"),
        ("a.h264", "libx264", "yuv420p"),
        ("a.flv", "libx264", "yuv420p"),
        ("a.mkv", "libx265", "yuv420p"),
        ("a.mp4", "libx265", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mp4", "mpeg4", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "ffv1", "yuva420p"),
        ("a.mkv", "ffv1", "gray16le"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mov", "png", "rgba"),
        ("a.mov", "png", "rgb24"),
        ("a.avi", "rawvideo", "bgr24"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_codecs_containers_and_pixel_formats_pass_through(
    make_clip: MakeClip, name: str, codec: str, pix_fmt: str
) -> None:
    source = open_one(make_clip(name, codec=codec, pix_fmt=pix_fmt))
    frames = list(source.frames())
    assert numbers(frames) == list(range(12))
    if codec != "gif":
        same = {pix_fmt, pix_fmt.replace("yuvj", "yuv")}
        assert {frame.picture.format.name for frame in frames} <= same
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert source.stats.source_seconds == pytest.approx(12 / 25, abs=0.02)
    assert source.stats.frames_decoded == 12


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (641, 361), (17, 5)])
def test_odd_sizes_pass_through(make_clip: MakeClip, size: tuple[int, int]) -> None:
    source = open_one(make_clip("a.nut", codec="rawvideo", pix_fmt="yuv420p", size=size, frames=3))
    assert source.size_hw == size[::-1]
    assert [frame.size_hw for frame in source.frames()] == [size[::-1]] * 3


def test_interlaced_pictures_pass_through_woven(make_clip: MakeClip) -> None:
    clip = make_clip("a.mpg", codec="mpeg2video", options={"flags": "+ildct+ilme", "top": "1"})
    frames = list(open_one(clip).frames())
    assert numbers(frames) == list(range(12))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_variable_frame_rate_is_kept_to_the_tick(make_clip: MakeClip, name: str) -> None:
    times = [0, 40, 73, 80, 500, 540, 541, 2000, 2040, 9999]
    clip = make_clip(
        name, frames=10, timestamps=times, time_base=Fraction(1, 1000), options={"bf": "2"}
    )
    source = open_one(clip)
    frames = list(source.frames())
    assert [round(frame.pts_seconds * 1000) for frame in frames] == times
    assert numbers(frames) == list(range(10))
    assert not source.stats.anomalies


def test_a_stream_that_begins_anywhere_begins_at_zero(make_clip: MakeClip) -> None:
    source = open_one(make_clip("a.ts", timestamps=[2500 + n for n in range(12)]))
    assert isinstance(source, RecordedSource)
    assert [frame.pts for frame in source.frames()] == [3600 * n for n in range(12)]
    assert source.origin > 99
    assert not source.stats.anomalies


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_pictures_that_begin_after_the_sound_keep_their_distance(
    make_clip: MakeClip, name: str
) -> None:
    clip = make_clip(name, timestamps=[n + 5 for n in range(12)], audio_delay=0.0)
    with av.open(str(clip)) as container:
        sound = min(p.pts * p.time_base for p in container.demux(audio=0) if p.pts is not None)
    source = open_one(clip)
    assert isinstance(source, RecordedSource)
    first = next(iter(source.frames()))
    apart = first.pts_seconds - float(max(sound, 0) - source.origin)
    assert apart == pytest.approx(0.2, abs=0.07)  # a block of sound before 0 is lead-in


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (-90, 3)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj422p"])
def test_rotated_video_is_delivered_upright(
    make_clip: MakeClip, degrees: int, quarters: int, pix_fmt: str
) -> None:
    clip = make_clip("turned.mp4", pix_fmt=pix_fmt, size=(64, 40), rotation=degrees)
    with av.open(str(clip)) as container:
        stored = list(container.decode(video=0))
    source = open_one(clip)
    turned = list(source.frames())
    assert source.size_hw == ((40, 64) if quarters == 2 else (64, 40)) == turned[0].size_hw
    for before, after in zip(stored, turned, strict=True):
        np.testing.assert_array_equal(np.rot90(luma(before), quarters), luma(after.picture))
        assert after.picture.color_range == before.color_range
    witness = cv2.VideoCapture(str(clip))
    _, seen = witness.read()
    witness.release()
    ours = turned[0].picture.to_ndarray(format="bgr24")
    assert seen.shape == ours.shape
    assert np.abs(seen.astype(int) - ours).mean() < 12  # other chroma filters, other ranges


@pytest.mark.parametrize(("hflip", "vflip"), [(True, False), (False, True)])
def test_mirrored_video_is_delivered_unmirrored(
    tmp_path: Path, make_clip: MakeClip, hflip: bool, vflip: bool
) -> None:
    flat = next(iter(open_one(make_clip("flat.mp4")).frames()))
    with (
        av.open(str(make_clip("source.mp4"))) as given,
        av.open(str(tmp_path / "mirrored.mp4"), "w") as output,
    ):
        stream = output.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(0, hflip=hflip, vflip=vflip)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    mirrored = next(iter(open_one(tmp_path / "mirrored.mp4").frames()))
    step = np.s_[:, ::-1] if hflip else np.s_[::-1]
    np.testing.assert_array_equal(luma(flat.picture)[step], luma(mirrored.picture))


def test_rows_stored_bottom_up_are_put_in_order(make_clip: MakeClip) -> None:
    with av.open(str(make_clip("a.mp4"))) as container:
        picture = next(container.decode(video=0))
    graph = FilterGraph()
    source = graph.add_buffer(
        width=64, height=48, format=picture.format, time_base=picture.time_base
    )
    graph.link_nodes(source, graph.add("vflip"), graph.add("buffersink")).configure()
    graph.vpush(picture)
    bottom_up = graph.vpull()
    assert bottom_up.planes[0].line_size < 0
    ordered = Upright()(bottom_up)
    assert ordered.planes[0].line_size > 0
    np.testing.assert_array_equal(luma(picture)[::-1], luma(ordered))


def test_an_upright_picture_is_not_copied(make_clip: MakeClip) -> None:
    with av.open(str(make_clip("a.mp4"))) as container:
        picture = next(container.decode(video=0))
    assert Upright()(picture) is picture


WIDE = Fraction(16, 11)  # the pixels of 720x576 that are shown as 16:9


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.h264", "a.flv", "a.avi"])
def test_pixels_that_are_not_square_are_told_of(make_clip: MakeClip, name: str) -> None:
    plain = list(open_one(make_clip(name)).frames())
    wide = list(open_one(make_clip(name, pixel_aspect=WIDE)).frames())
    assert {frame.pixel_hw for frame in plain} == {(1, 1)}
    assert {frame.pixel_hw for frame in wide} == {(11, 16)}
    assert {frame.size_hw for frame in wide} == {(48, 64)}


@pytest.mark.parametrize(("degrees", "pixel_hw"), [(90, (16, 11)), (180, (11, 16))])
def test_pixels_are_turned_with_their_picture(
    make_clip: MakeClip, degrees: int, pixel_hw: tuple[int, int]
) -> None:
    clip = make_clip("a.mp4", frames=2, rotation=degrees, pixel_aspect=WIDE)
    assert {frame.pixel_hw for frame in open_one(clip).frames()} == {pixel_hw}


@pytest.mark.parametrize(
    ("box", "pixel_hw"), [((12, 11), (11, 12)), ((1, 5), (1, 1)), ((5, 1), (1, 1))]
)
def test_of_container_and_codec_the_container_is_right_about_pixels_unless_it_is_mad(
    make_clip: MakeClip, box: tuple[int, int], pixel_hw: tuple[int, int]
) -> None:
    clip = make_clip("a.mp4", frames=3, pixel_aspect=WIDE)
    data = clip.read_bytes()
    written = b"pasp" + struct.pack(">II", WIDE.numerator, WIDE.denominator)
    assert data.count(written) == 1
    clip.write_bytes(data.replace(written, b"pasp" + struct.pack(">II", *box)))
    assert {frame.pixel_hw for frame in open_one(clip).frames()} == {pixel_hw}


@pytest.mark.parametrize("threads", [1, 2])
def test_pixels_may_change_their_shape_on_the_way(
    make_clip: MakeClip, tmp_path: Path, threads: int
) -> None:
    aspects = (None, WIDE, Fraction(12, 11))
    parts = [make_clip(f"{n}.h264", pixel_aspect=a) for n, a in enumerate(aspects)]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    shapes = [frame.pixel_hw for frame in open_one(joined, decoder_threads=threads).frames()]
    assert shapes == [(1, 1)] * 12 + [(11, 16)] * 12 + [(11, 12)] * 12


def test_a_picture_that_is_marked_as_two_fields_is_scaled_as_one(tmp_path: Path) -> None:
    lines = np.random.default_rng(0).integers(0, 256, (48, 1, 1), np.uint8)
    with av.open(str(tmp_path / "a.mpg"), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.mux(stream.encode(as_frame(np.tile(lines, (1, 64, 3)), "yuv420p")))
        output.mux(stream.encode(None))
    with av.open(str(tmp_path / "a.mpg")) as container:
        marked = next(container.decode(video=0))
    assert marked.interlaced_frame
    passed = Upright()(marked)
    assert passed.planes[0].buffer_ptr == marked.planes[0].buffer_ptr, "it was copied"
    told = [(p.pts, p.time_base, p.duration, p.color_range) for p in (marked, passed)]
    assert told[0] == told[1]
    plain = own_yuv420p(marked)  # a copy of the planes, without marks
    ours, theirs, fields = (
        next(preprocess([[frame_of(picture)]], (24, 32), "letterbox")).images.astype(int)
        for picture in (passed, plain, marked)
    )
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(fields - theirs).mean() > 20, "swscale takes both alike: the mark does no harm"


def test_marks_that_come_and_go_change_only_their_own_pictures(make_clip: MakeClip) -> None:
    field = make_clip("a.mpg", codec="mpeg2video", options={"flags": "+ildct+ilme"})
    with av.open(str(field)) as first, av.open(str(make_clip("b.mpg", codec="mpeg2video"))) as then:
        marked, plain = (list(each.decode(video=0))[:2] for each in (first, then))
    upright = Upright()
    for one, other in zip(marked, plain, strict=True):
        assert not upright(one).interlaced_frame
        assert upright(other) is other


@pytest.mark.parametrize(
    ("name", "default", "shown"), [("a.mkv", None, 1), ("a.mkv", 0, 0), ("a.mp4", 1, 1)]
)
def test_the_default_video_is_shown_or_else_the_largest_but_never_the_cover(
    tmp_path: Path, name: str, default: int | None, shown: int
) -> None:
    path = tmp_path / name
    sizes = [(64, 48), (128, 96)]
    with av.open(str(path), "w") as output:
        videos = [_add_video(output, "libx264", size) for size in sizes]
        for index, video in enumerate(videos):
            video.disposition = Disposition.default if index == default else Disposition(0)
        if path.suffix == ".mp4":
            cover = _add_video(output, "mjpeg", (320, 240))
            cover.disposition = Disposition.attached_pic
            _encode(output, cover, [99])
        _encode(output, videos[0], range(5))
        _encode(output, videos[1], range(20, 25))
    source = open_one(path)
    assert source.size_hw == sizes[shown][::-1]
    first = 20 * shown
    assert numbers(list(source.frames())) == list(range(first, first + 5))


def _add_video(output: OutputContainer, codec: str, size: tuple[int, int]) -> av.VideoStream:
    stream = output.add_stream(codec, rate=25)
    stream.width, stream.height = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return stream


def _encode(output: OutputContainer, stream: av.VideoStream, shown: Iterable[int]) -> None:
    for number in shown:
        picture = numbered_picture(number, (stream.width, stream.height))
        output.mux(stream.encode(as_frame(picture, stream.pix_fmt)))
    output.mux(stream.encode(None))


def test_max_frames_ends_a_source_normally(make_clip: MakeClip) -> None:
    source = open_one(make_clip("a.mp4"), max_frames=5)
    assert (source.frame_count, len(list(source.frames()))) == (5, 5)
    assert (source.stats.state, source.stats.frames_decoded) == ("ENDED", 5)
    assert not source.stats.anomalies


def test_every_nth_picture_of_a_recording_keeps_its_number(make_clip: MakeClip) -> None:
    source = open_one(make_clip("a.mp4", frames=14), stride=4)
    frames = list(source.frames())
    assert source.frame_count == 4
    assert numbers(frames) == [frame.index for frame in frames] == [0, 4, 8, 12]
    stats = source.stats
    assert (stats.frames_decoded, stats.frames_dropped, stats.in_flight) == (14, {"stride": 10}, 4)


def test_a_recording_is_thinned_evenly_by_its_own_time(make_clip: MakeClip) -> None:
    source = open_one(make_clip("a.mp4", frames=25, fps=25), max_fps=10)
    assert source.frame_count == 10
    assert numbers(list(source.frames())) == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]
    assert source.stats.frames_dropped == {"max_fps": 15}
    assert source.stats.source_seconds == pytest.approx(1.0)


def test_of_a_thinned_recording_as_many_pictures_as_asked_for_are_delivered(
    make_clip: MakeClip,
) -> None:
    source = open_one(make_clip("a.mp4", frames=14), stride=3, max_frames=3)
    assert (source.frame_count, numbers(list(source.frames()))) == (3, [0, 3, 6])


def test_a_folder_of_pictures_has_no_rate_to_be_thinned_by(tmp_path: Path) -> None:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered_picture(number, (64, 48)))
    assert len(list(open_one(tmp_path, max_fps=1).frames())) == 5
    thinned = open_one(tmp_path, stride=2)
    assert (thinned.frame_count, [f.file for f in thinned.frames()]) == (
        3,
        ["0.png", "2.png", "4.png"],
    )


def test_duration_is_seconds_of_the_source_s_own_time(make_clip: MakeClip) -> None:
    clip = make_clip("a.ts", frames=30, timestamps=[1000 + n for n in range(30)])
    source = open_one(clip, duration=0.4)
    assert (source.frame_count, len(list(source.frames()))) == (10, 10)
    assert (source.stats.frames_decoded, source.stats.in_flight) == (10, 10)
    assert source.stats.source_seconds == pytest.approx(0.4)
    assert source.stats.state == "ENDED"


@pytest.mark.parametrize("begin", [0, 1, 16, 21, 79])
def test_a_duration_has_as_many_pictures_wherever_a_video_begins(
    make_clip: MakeClip, begin: int
) -> None:
    times = [begin + n for n in range(12)]
    clip = make_clip("a.mkv", timestamps=times, audio_delay=0.0, time_base=Fraction(1, 10), fps=10)
    assert len(list(open_one(clip, duration=0.7).frames())) == 7


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_reader_that_leaves_early_leaves_the_file_closed(make_clip: MakeClip) -> None:
    clip = make_clip("a.mp4")
    source = open_one(clip)
    assert not _is_open(clip), "a source that waits for its turn holds its file open"
    frames = source.frames()
    next(frames)
    assert _is_open(clip)
    frames.close()
    assert not _is_open(clip)
    assert source.stats.state == "ENDED"
    source.close()
    source.close()


def _is_open(path: Path) -> bool:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return any(os.path.realpath(link) == str(path.resolve()) for link in links)


def test_a_file_that_vanishes_before_its_turn_fails_alone(make_clip: MakeClip) -> None:
    kept, gone = make_clip("kept.mp4"), make_clip("gone.mp4")
    sources = open_sources([str(kept), str(gone)])
    gone.unlink()
    errors: dict[str, BaseException] = {}
    with Graph() as graph:
        inlet = graph.inlet(on_error=errors.__setitem__)
        for source in sources:
            inlet.join(source.name, source.frames())
        inlet.close()
        assert [frame.source for frame in inlet.channel] == ["kept"] * 12
    assert isinstance(errors["gone"], FileNotFoundError)
    assert [source.stats.state for source in sources] == ["ENDED", "FAILED"]
    assert "no such file" in str(sources[1].stats.error)


# Real recordings ---------------------------------------------------------------------------------

REAL = [
    ("highway_day_1280x720_25fps_editlist.mp4", 88, 3.52),  # the container says 91
    ("highway_day_1280x720_25fps_mpeg4.mp4", 76, 3.04),
    ("city_day_480x360_15fps.mp4", 101, 6.733),
    ("rural_night_1920x1080_30fps_mpeg4.mp4", 157, 5.237),
    ("highway_day_960x540_25fps.mp4", 221, 8.84),
    pytest.param("rural_night_1920x1080_30fps_hevc.mp4", 157, 5.239, marks=pytest.mark.slow),
    pytest.param("crowd_1280x720_25fps.mp4", 341, 13.64, marks=pytest.mark.slow),
    pytest.param("cam_overhead_768x432_12.5fps.mp4", 377, 30.16, marks=pytest.mark.slow),
    pytest.param("drive_concat_1280x720_25fps_hevc.mp4", 516, 20.64, marks=pytest.mark.slow),
    pytest.param("cam_road_640x352_24fps.mp4", 905, 37.688, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "count", "seconds"), REAL)
def test_real_recordings_show_all_their_pictures_at_their_times(
    shared_data: Path, name: str, count: int, seconds: float
) -> None:
    path = shared_data / "videos" / name
    source = open_one(path)
    assert source.frame_count == count
    times = [frame.pts_seconds for frame in source.frames()]
    assert len(times) == count
    assert times[0] == 0
    assert source.stats.source_seconds == pytest.approx(seconds, abs=0.01)
    assert not source.stats.anomalies and not source.stats.frames_dropped
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = (packet for packet in container.demux(stream) if packet.size)
        given = sorted(p.pts * p.time_base for p in shown if p.pts is not None and not p.is_discard)
    assert times == pytest.approx([float(seconds) for seconds in given])


# Folders and globs -------------------------------------------------------------------------------


def write_picture(path: Path, number: int, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), numbered_picture(number, size)[..., ::-1])
    return path


def test_a_folder_of_pictures_is_one_source_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "shots"
    names = ["a1.png", "a2.jpg", "a10.bmp", "a11.webp", "B3.tif", "b20.ppm"]
    for number, name in enumerate(names):
        write_picture(folder / name, number, size=(64 + 2 * number, 48))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.jpg").write_bytes(b"not a picture either")
    source = open_one(folder)
    assert (source.name, source.is_images, source.live) == ("shots", True, False)
    assert (source.size_hw, source.frame_count, source.media_path) == ((48, 64), 6, None)
    frames = list(source.frames())
    assert [frame.file for frame in frames] == names
    assert numbers(frames) == list(range(6))
    assert [frame.size_hw for frame in frames] == [(48, 64 + 2 * n) for n in range(6)]
    assert [frame.pts_seconds for frame in frames] == pytest.approx([n / 25 for n in range(6)])
    assert (source.stats.source_seconds, source.stats.offered_fps) == (0.0, None)


def test_a_picture_whose_name_is_not_text_has_one_that_json_can_hold(tmp_path: Path) -> None:
    odd = write_picture(tmp_path / "a.png", 3).rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert odd.exists()
    (frame,) = open_one(tmp_path).frames()
    assert frame.file == "caf\N{REPLACEMENT CHARACTER}.png"
    json.dumps(frame.file, ensure_ascii=False).encode()


def test_natural_order_counts_numbers_by_value() -> None:
    names = ["f10.png", "f9.png", "F1.png", "f09.png", "g.png", "f9a.png"]
    assert [p.name for p in natural_order(map(Path, names))] == [
        "F1.png",
        "f09.png",
        "f9.png",
        "f9a.png",
        "f10.png",
        "g.png",
    ]


def test_a_glob_of_pictures_and_a_single_picture_are_sources_too(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / "day" / f"{number}.png", number)
        write_picture(tmp_path / "day" / f"{number}.jpg", 100 + number)
    source = open_one(tmp_path / "day" / "*.png")
    assert source.name == "day"
    assert numbers(list(source.frames())) == [0, 1, 2]
    single = open_one(tmp_path / "day" / "1.jpg")
    assert (single.name, single.is_images) == ("1", True)
    assert numbers(list(single.frames())) == [101]


def test_a_folder_or_glob_of_videos_is_a_source_for_each(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    folder = tmp_path / "drives" / "monday"
    folder.mkdir(parents=True)
    for name in ("clip10.mp4", "clip9.mp4", "other.mkv"):
        make_clip(f"drives/monday/{name}", frames=2)
    assert [s.name for s in open_sources([str(folder)])] == ["clip9", "clip10", "other"]
    assert [s.name for s in open_sources([str(folder / "*.mkv")])] == ["other"]
    below = str(tmp_path / "**" / "clip*.mp4")
    assert [s.name for s in open_sources([below])] == ["clip9", "clip10"]


def test_names_are_made_unique(make_clip: MakeClip) -> None:
    a, b = str(make_clip("a.mp4", frames=1)), str(make_clip("a-2.mp4", frames=1))
    names = [source.name for source in open_sources([a, a, b, a])]
    assert names == ["a", "a-3", "a-2", "a-4"]
    assert len(set(names)) == 4


def test_names_that_json_could_not_hold_are_made_printable(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9 100%d [1]: x.mp4")
    make_clip("a.mp4", frames=2).rename(odd)
    source = open_one(odd)
    json.dumps(source.name).encode("utf-8")
    assert len(list(source.frames())) == 2


def test_a_folder_of_both_videos_and_pictures_is_refused_with_a_remedy(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    make_clip("a.mp4", frames=1)
    write_picture(tmp_path / "a.jpg", 0)
    with pytest.raises(ConfigError, match=r"1 videos and 1 pictures; name one kind.*\*\.mp4"):
        open_sources([str(tmp_path)])
    assert open_one(tmp_path / "*.jpg").is_images


def test_a_broken_picture_is_dropped_and_counted(tmp_path: Path) -> None:
    for number in range(4):
        write_picture(tmp_path / "p" / f"{number}.jpg", number)
    whole = (tmp_path / "p" / "1.jpg").read_bytes()
    (tmp_path / "p" / "1.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "p" / "2.jpg").write_bytes(b"")
    source = open_one(tmp_path / "p")
    frames = list(source.frames())
    assert numbers(frames) == [0, 3]
    assert [(frame.index, frame.pts, frame.file) for frame in frames] == [
        (0, 0, "0.jpg"),
        (1, 1, "3.jpg"),
    ]
    stats = source.stats
    assert (stats.frames_decoded, dict(stats.frames_dropped)) == (4, {"corrupt": 2})
    assert (stats.in_flight, stats.state) == (2, "ENDED")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm", ".jp2"])
def test_a_picture_cut_in_half_is_broken_in_every_format(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = write_picture(tmp_path / f"whole{suffix}", 5).read_bytes()
    (tmp_path / f"half{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NoVideo, match="half"):
        open_sources([str(tmp_path / f"half{suffix}")])
    assert numbers(list(open_one(tmp_path / f"whole{suffix}").frames())) == [5]
    assert capfd.readouterr().err == ""


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF block that holds only the orientation."""
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + tag + struct.pack(">I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    stored = numbered_picture(11, (64, 40))
    upright = {  # by the EXIF standard: where the stored first row and first column belong
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    jpeg = write_picture(tmp_path / "a.jpg", 11, (64, 40)).read_bytes()
    (tmp_path / "a.jpg").write_bytes(with_orientation(jpeg, orientation))
    (frame,) = open_one(tmp_path / "a.jpg").frames()
    seen = frame.picture.to_ndarray(format="rgb24")
    assert seen.shape == upright.shape
    assert np.abs(seen.astype(int) - upright).mean() < 12


def test_real_pictures_can_all_be_read(shared_data: Path) -> None:
    folder = shared_data / "seg_camvid" / "val" / "images"
    source = open_one(folder, max_frames=20)
    frames = list(source.frames())
    assert [frame.file for frame in frames] == sorted(os.listdir(folder))[:20]
    assert {frame.size_hw for frame in frames} == {(360, 480)}


# The drawn street --------------------------------------------------------------------------------


def test_the_street_comes_with_its_truth_and_like_from_a_camera() -> None:
    source = open_one("synthetic://street?seed=3&size=160x120&fps=30000/1001&seconds=0.3")
    assert (source.name, source.size_hw, source.frame_count) == ("street", (120, 160), 9)
    drawn = Street(seed=3, size_hw=(120, 160), fps=30000 / 1001, seconds=0.3)
    frames = list(source.frames())
    assert len(frames) == len(drawn) == 9
    for frame, wanted in zip(frames, drawn, strict=True):
        assert frame.truth is not None
        np.testing.assert_array_equal(frame.truth.boxes, wanted.boxes)
        np.testing.assert_array_equal(frame.truth.class_ids, wanted.class_ids)
        np.testing.assert_array_equal(frame.truth.ignored, wanted.ignored)
        assert frame.truth.class_names == STREET_CLASSES
        assert frame.picture.format.name == "yuv420p"
        rgb = frame.picture.to_ndarray(format="rgb24")
        assert np.abs(rgb.astype(int) - wanted.image).mean() < 8  # chroma at half the size
        assert read_frame_counter(rgb) == frame.index
        assert frame.pts_seconds == pytest.approx(frame.index * 1001 / 30000)
    assert source.stats.source_seconds == pytest.approx(0.3, abs=0.01)


def test_street_urls_have_defaults_and_limits_apply() -> None:
    source = open_one("synthetic://street", max_frames=2)
    assert (source.size_hw, source.rate, source.frame_count) == ((360, 640), 25, 2)
    assert len(list(source.frames())) == 2
    timed = open_one("synthetic://street?size=64x64&fps=10", duration=0.5)
    assert timed.frame_count == len(list(timed.frames())) == 5


@pytest.mark.parametrize(
    ("word", "rate"),
    [
        ("29.97002997002997", Fraction(30_000, 1001)),
        ("30000/1001", Fraction(30_000, 1001)),
        ("23.976", Fraction(2997, 125)),
        ("12.5", Fraction(25, 2)),
    ],
)
def test_a_rate_is_one_that_encoders_can_count_with(word: str, rate: Fraction) -> None:
    source = open_one(f"synthetic://street?fps={word}&size=64x64&seconds=0.1")
    assert source.rate == rate
    assert next(source.frames()).time_base == 1 / rate


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("synthetic://street?fps=1e-9", r"fps must be"),
        ("synthetic://street?sed=3", r"unknown key 'sed'.*did you mean 'seed'"),
        ("synthetic://street?size=640", r"size must be WIDTHxHEIGHT.*'640'"),
        ("synthetic://street?size=8x8", r"at least 64x64"),
        ("synthetic://street?size=99999x99999", r"size must be"),
        ("synthetic://street?fps=0", r"fps must be"),
        ("synthetic://street?fps=1/0", r"fps must be"),
        ("synthetic://street?fps=nan", r"fps must be"),
        ("synthetic://street?seconds=-1", r"seconds must be"),
        ("synthetic://street?seconds=inf", r"seconds must be"),
        ("synthetic://street?seed=x", r"seed must be"),
        ("synthetic://street?seed=1&seed=2", r"'seed' is given twice"),
        ("synthetic://street?seed", r"an example"),
        ("synthetic://alley", r"no synthetic scene 'alley'"),
        ("synthetic:street", r"no synthetic scene"),
        ("synthetic://street/2", r"no synthetic scene"),
    ],
)
def test_a_street_that_cannot_be_drawn_is_a_bad_argument(url: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        open_sources([url])
