"""Annotated video: times, colours, sizes and encoders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.drawing.render import render
from pipeline.errors import ConfigError
from pipeline.frame import Detections, Frame, Result
from pipeline.settings import RenderSettings, VideoSettings
from pipeline.sinks import video as video_module
from pipeline.sinks.encoder_choice import choose_encoder, choose_preset
from pipeline.sinks.encoding import Encoding
from pipeline.yuv import Colours
from tests.clips import numbered_picture
from tests.pipeline.written_video import (
    MILLISECOND,
    MP4_AND_MKV,
    NAMES,
    SIZE,
    numbers,
    pixel_aspect,
    result,
    times,
    write,
)

# Time


@MP4_AND_MKV
def test_every_picture_comes_out_once_at_its_own_time(tmp_path: Path, ending: str) -> None:
    report = write(tmp_path / f"a.{ending}", map(result, range(60)))
    assert numbers(tmp_path / f"a.{ending}") == list(range(60))
    assert times(tmp_path / f"a.{ending}") == [Fraction(n, 25) for n in range(60)]
    assert report["frames"] == 60
    assert report["bytes"] == (tmp_path / f"a.{ending}").stat().st_size > 0
    assert (report["encoder"], report["frames_resized"]) == ("libx264", 0)


@MP4_AND_MKV
@pytest.mark.parametrize(
    "time_base", [Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 10**9), Fraction(1, 24)]
)
def test_variable_frame_rates_and_late_starts_are_kept(
    tmp_path: Path, ending: str, time_base: Fraction
) -> None:
    seconds = np.cumsum(np.random.default_rng(3).uniform(0.045, 0.3, 40)) + 0.7213
    pts = sorted({round(Fraction(s) / time_base) for s in seconds})
    path = tmp_path / f"a.{ending}"
    write(path, (result(n, p, time_base) for n, p in enumerate(pts)))
    tick = 0 if ending == "mp4" else MILLISECOND / 2  # Matroska counts in milliseconds
    expected = [p * time_base for p in pts]
    assert all(abs(a - b) <= tick for a, b in zip(times(path), expected, strict=True))
    with av.open(str(path)) as container:
        length = Fraction(container.duration, av.time_base)
        begin = Fraction(container.start_time, av.time_base) if ending == "mp4" else 0
    assert abs(length + begin - expected[-1]) <= Fraction(3, 10)  # and the last one is shown


def test_the_last_picture_is_shown_as_long_as_it_was(tmp_path: Path) -> None:
    def results() -> Iterator[Result]:
        for n in range(10):
            each = result(n)
            each.frame.picture.duration = 1
            each.frame.picture.time_base = Fraction(1, 25)
            yield each

    write(tmp_path / "a.mp4", results())
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.duration == 400_000


def test_mp4_can_begin_before_zero(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", (result(n, n - 2) for n in range(20)))
    assert times(tmp_path / "a.mp4") == [Fraction(n - 2, 25) for n in range(20)]


@MP4_AND_MKV
def test_times_that_collide_on_the_files_clock_still_rise(tmp_path: Path, ending: str) -> None:
    fine = Fraction(1, 1_000_000)
    results = [result(0), result(1), *(result(n, 40_000 + n, fine) for n in range(2, 6)), result(6)]
    write(tmp_path / f"a.{ending}", results)
    found = times(tmp_path / f"a.{ending}")
    assert numbers(tmp_path / f"a.{ending}") == [0, 1, 2, 3, 4, 5, 6]
    assert all(a < b for a, b in pairwise(found))


LIVE_TICK = Fraction(1, 90_000)


def after_an_outage(seconds: int) -> tuple[list[Result], list[Fraction]]:
    """Pictures before and after it, and their times."""
    starts = [Fraction(n, 25) for n in range(50)]
    starts += [2 + seconds + start for start in starts]
    pts = [round(start / LIVE_TICK) for start in starts]
    return [result(n, p, LIVE_TICK) for n, p in enumerate(pts)], starts


@MP4_AND_MKV
def test_pictures_after_an_outage_of_ten_hours_keep_their_times(
    tmp_path: Path, ending: str
) -> None:
    results, expected = after_an_outage(36_000)
    write(tmp_path / f"a.{ending}", results, {"live": True})
    assert times(tmp_path / f"a.{ending}") == expected


def test_an_outage_that_is_longer_than_mp4_can_tell_is_cut_short_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results, expected = after_an_outage(30 * 86_400)
    write(tmp_path / "a.mp4", results, {"live": True})
    found = times(tmp_path / "a.mp4")
    cut = expected[50] - found[50]
    assert found == [*expected[:50], *(start - cut for start in expected[50:])]
    assert 5 * 86_400 < cut < 6 * 86_400  # 2^31 ms are 24.9 days
    assert "a.mp4: nothing came for 2592000 s, more than MP4 can tell" in caplog.text


@pytest.mark.parametrize("rate", [Fraction(30_000, 1001), Fraction(240)])
def test_mp4_of_a_live_source_is_right_to_the_millisecond_from_its_first_picture_on(
    tmp_path: Path, rate: Fraction
) -> None:
    pts = [round((n / rate + Fraction("0.7213")) / LIVE_TICK) for n in range(60)]
    write(tmp_path / "a.mp4", (result(n, p, LIVE_TICK) for n, p in enumerate(pts)), {"live": True})
    found = times(tmp_path / "a.mp4")
    assert all(a < b for a, b in pairwise(found))
    for time, tick in zip(found, pts, strict=True):
        assert abs(time - tick * LIVE_TICK) <= MILLISECOND / 2


def test_live_pictures_within_a_millisecond_still_rise(tmp_path: Path) -> None:
    pts = [*range(10), *range(900, 910), 90_000]
    write(tmp_path / "a.mp4", (result(n, p, LIVE_TICK) for n, p in enumerate(pts)), {"live": True})
    found = times(tmp_path / "a.mp4")
    assert numbers(tmp_path / "a.mp4") == [*range(21)]
    assert all(a < b for a, b in pairwise(found)) and found[-1] == 1


@MP4_AND_MKV
def test_a_declared_rate_that_is_nonsense_changes_nothing(tmp_path: Path, ending: str) -> None:
    for rate in (None, Fraction(90_000), Fraction(1, 1000), Fraction(0)):
        path = tmp_path / f"a.{ending}"
        write(path, map(result, range(120)), {"rate": rate}, preset="ultrafast")
        assert times(path) == [Fraction(n, 25) for n in range(120)]
        assert keyframes(path)[1] == 50  # every two seconds of 25 frames


def keyframes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [n for n, f in enumerate(container.decode(video=0)) if f.key_frame]


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_keyframes_come_as_often_as_asked_for(tmp_path: Path, preset: str) -> None:
    path = tmp_path / "a.mp4"
    still = (Result(result(5).frame, Detections.none()) for _ in range(1))
    picture = next(still).frame.picture
    results = (
        Result(Frame(picture, "a", n, n, Fraction(1, 25), 0.0), Detections.none())
        for n in range(60)
    )
    write(path, results, keyframe_seconds=0.8, preset=preset)
    assert keyframes(path) == [0, 20, 40]


def test_a_recordings_own_times_survive_the_whole_way(shared_data: Path, tmp_path: Path) -> None:
    clip = shared_data / "videos" / "cam_road_640x352_24fps.mp4"
    for ending in ("mp4", "mkv"):
        path, expected = tmp_path / f"a.{ending}", []

        def results(expected: list[Fraction] = expected) -> Iterator[Result]:
            with av.open(str(clip)) as container:
                for n, picture in enumerate(container.decode(video=0)):
                    if n == 100:
                        return
                    expected.append(picture.pts * picture.time_base)
                    frame = Frame(picture, "a", n, picture.pts, picture.time_base, 0.0)
                    yield Result(frame, Detections.none())

        write(path, render(results(), NAMES, RenderSettings()))
        tick = 0 if ending == "mp4" else MILLISECOND / 2
        assert all(abs(a - b) <= tick for a, b in zip(times(path), expected, strict=True))


# Pictures


@MP4_AND_MKV
@pytest.mark.parametrize(("matrix", "range_"), [(1, 1), (6, 1), (9, 1), (1, 2)])
def test_colours_are_tagged_as_they_are(
    tmp_path: Path, ending: str, matrix: int, range_: int
) -> None:
    each = result(0)
    each.frame.picture.colorspace, each.frame.picture.color_range = matrix, range_
    write(tmp_path / f"a.{ending}", [each])
    with av.open(str(tmp_path / f"a.{ending}")) as container:
        picture = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
    assert (context.colorspace, context.color_range) == (matrix, range_)
    assert Colours.of(picture) == Colours(matrix, range_ == 2)


def test_a_picture_without_tags_gets_them(tmp_path: Path) -> None:
    for size, matrix in (((128, 96), 6), ((1280, 720), 1)):
        each = result(0, size=size)
        each.frame.picture.colorspace = 2
        write(tmp_path / "a.mp4", [each])
        with av.open(str(tmp_path / "a.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.colorspace, context.color_range) == (matrix, 1)


def test_the_picture_types_of_the_source_do_not_bind_the_encoder(tmp_path: Path) -> None:
    def results() -> Iterator[Result]:
        for n in range(12):
            each = result(n)
            each.frame.picture.pict_type = 1  # as a source of keyframes only says
            yield each

    write(tmp_path / "a.mp4", results(), preset="ultrafast")
    assert keyframes(tmp_path / "a.mp4") == [0]


@MP4_AND_MKV
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (17, 33), (641, 361)])
def test_odd_and_tiny_pictures_become_video(
    tmp_path: Path, ending: str, size: tuple[int, int]
) -> None:
    width, height = size
    path = tmp_path / f"a.{ending}"
    write(path, (result(n, size=size) for n in range(5)))
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) == 5
    assert (pictures[0].width, pictures[0].height) == (width + width % 2, height + height % 2)


def test_a_picture_of_another_size_is_fitted_to_the_first_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    results = [result(0), result(1, size=(96, 96)), result(2, size=(320, 48)), result(3)]
    report = write(path, results, crf=5)
    assert report["frames_resized"] == 2
    assert times(path) == [Fraction(n, 25) for n in range(4)]
    with av.open(str(path)) as container:
        pictures = [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(video=0)]
    assert all(picture.shape == (96, 128, 3) for picture in pictures)
    square, wide = pictures[1], pictures[2]
    assert square[:, :14].max() < 20 and square[:, -14:].max() < 20  # bars at the sides
    expected = numbered_picture(1, (96, 96)).astype(int)
    assert np.abs(square[:, 16:112] - expected)[50:, 4:92].mean() < 12
    assert wide[:36].max() < 20 and wide[-36:].max() < 20  # bars above and below
    assert wide[40:56].max() > 100


@MP4_AND_MKV
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_a_video_plays_in_the_shape_of_its_source(
    tmp_path: Path, ending: str, encoder: str
) -> None:
    wide, plain = (tmp_path / f"{name}.{ending}" for name in ("wide", "plain"))
    write(wide, (result(n, pixel_hw=(11, 16)) for n in range(3)), encoder=encoder)
    write(plain, map(result, range(3)), encoder=encoder)
    assert pixel_aspect(wide) == Fraction(16, 11)
    assert pixel_aspect(plain) in (None, 1)


def test_pixels_of_another_shape_are_fitted_to_the_first_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    results = [result(0, pixel_hw=(1, 2)), result(1), result(2, size=(256, 96)), result(3)]
    report = write(path, results, crf=5)
    assert (report["frames_resized"], pixel_aspect(path)) == (3, 2)
    with av.open(str(path)) as container:
        pictures = [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(video=0)]
    assert {picture.shape for picture in pictures} == {(96, 128, 3)}
    narrow, same = pictures[1], pictures[2]
    assert narrow[:, :30].max() < 20 and narrow[:, -30:].max() < 20  # bars at the sides
    assert narrow[50:, 34:94].min(axis=(0, 1)).max() > 40
    assert same[50:, :4].max() > 40 and same[50:, -4:].max() > 40  # shown as large as the first


def test_a_change_of_colours_on_the_way_is_undone(tmp_path: Path) -> None:
    rgb = numbered_picture(5, SIZE)

    def coloured(number: int, form: str, matrix: int, range_: int) -> Result:
        picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(
            format=form, dst_colorspace=matrix, src_color_range=2, dst_color_range=range_
        )
        picture.colorspace, picture.color_range = (6 if matrix == 5 else matrix), range_
        return Result(Frame(picture, "a", number, number, Fraction(1, 25), 0.0), Detections.none())

    results = [coloured(0, "yuv420p", 1, 1), coloured(1, "yuvj420p", 5, 2)]
    report = write(tmp_path / "a.mp4", results, crf=1)
    with av.open(str(tmp_path / "a.mp4")) as container:
        first, second = (
            f.to_ndarray(format="rgb24").astype(int) for f in container.decode(video=0)
        )
    assert report["frames_resized"] == 0
    assert np.abs(first - second).mean() < 3


@MP4_AND_MKV
def test_what_was_drawn_is_what_is_written_and_is_left_as_it_was(
    tmp_path: Path, ending: str
) -> None:
    box = Detections(
        np.array([[32, 32, 96, 80]], np.float32), np.ones(1, np.float32), np.array([2])
    )
    plain = Result(result(0).frame, box)
    (drawn,) = render([plain], NAMES, RenderSettings(labels=False, scores=False))
    assert drawn.annotated is not None
    before = drawn.annotated.to_ndarray(format="rgb24").astype(int)
    write(tmp_path / f"a.{ending}", [drawn], crf=5)
    with av.open(str(tmp_path / f"a.{ending}")) as container:
        written = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(written - before).mean() < 4
    np.testing.assert_array_equal(drawn.annotated.to_ndarray(format="rgb24"), before)
    assert (drawn.annotated.pts, drawn.annotated.time_base) == (0, Fraction(1, 25))


# Encoders


def test_mpeg4_stands_in_where_x264_is_missing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_encoder("auto", {"libx264", "mpeg4"}) == "libx264"
    assert choose_encoder("auto", {"mpeg4"}) == "mpeg4"
    monkeypatch.setattr(video_module, "choose_encoder", lambda wanted: "mpeg4")
    monkeypatch.setattr("pipeline.sinks.encoding.choose_encoder", lambda wanted: "mpeg4")
    fine, pts = Fraction(1, 90_000), [n * 3003 for n in range(30)]
    with caplog.at_level(logging.WARNING):
        report = write(tmp_path / "a.mp4", (result(n, p, fine) for n, p in enumerate(pts)))
    assert report["encoder"] == "mpeg4" and "preset" not in report
    assert "no libx264" in caplog.text
    assert numbers(tmp_path / "a.mp4") == list(range(30))
    assert times(tmp_path / "a.mp4") == [p * fine for p in pts]  # finer than MPEG-4 can count


def test_an_encoder_that_is_missing_is_an_error_when_it_was_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"no libx264; install .* or set video\.encoder to auto"):
        choose_encoder("libx264", {"mpeg4"})


def test_the_preset_is_what_the_machine_can_carry() -> None:
    assert choose_preset((540, 960), 100, cores=2) == "ultrafast"
    assert choose_preset((540, 960), 100, cores=4) == "superfast"
    assert choose_preset((540, 960), 100, cores=8) == "veryfast"
    assert choose_preset((2160, 3840), 100, cores=8) == "ultrafast"
    assert choose_preset((540, 960), 25, cores=2) == "veryfast"  # a camera leaves more time


def test_the_report_names_the_preset_and_its_extras(tmp_path: Path) -> None:
    report = write(tmp_path / "a.mp4", map(result, range(3)), preset="superfast", crf=30)
    assert (report["preset"], report["crf"]) == ("superfast", 30) and "x264_params" not in report
    encoding = Encoding.choose(VideoSettings(), (1080, 1920), Fraction(25), live=False, cores=2)
    assert (encoding.preset, encoding.threads) == ("ultrafast", 1)
    assert "subme=1" in encoding.extras


def test_quality_follows_crf_for_both_encoders(tmp_path: Path) -> None:
    for encoder in ("libx264", "mpeg4"):
        sizes = [
            write(tmp_path / "a.mp4", map(result, range(20)), crf=crf, encoder=encoder)["bytes"]
            for crf in (10, 23, 40)
        ]
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
