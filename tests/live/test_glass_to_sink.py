"""The clock that a synthetic street can carry, and what it says about the way of a picture."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.painted_clock import block_pixels, has_room
from pipeline.sources import open_sources
from pipeline.sources.live import CameraSource
from pipeline.sources.painted import Painted, Unreadable, paint, read_painted, read_picture
from tests.clips import as_frame
from tests.live.kit.cameras import CameraServer
from tests.live.kit.line import Line
from tests.live.kit.reading import read_painted as read_by_kit
from tests.live.kit.relay import Relay
from tests.live.kit.watching import Watcher
from tests.waiting import until

STREET = "synthetic://street?seed=3&size=320x180&fps=25&seconds={seconds}"


def grey(size: tuple[int, int], pixel_format: str = "yuv420p") -> av.VideoFrame:
    """A picture of (width, height) with nothing in it."""
    blank = np.full((size[1], size[0], 3), 128, np.uint8)
    return as_frame(blank, pixel_format)


def read_block_by_block(luma: np.ndarray) -> tuple[int, int]:
    """The slow twin of the reader: number and clock, from the middle of each block."""
    side = block_pixels(luma.shape[0])
    word = ""
    for row in range(4):
        for column in range(1, 19):
            middle = luma[row * side + side // 2, column * side + side // 2]
            word += "1" if middle > 125 else "0"
    return int(word[:24], 2), int(word[24:56], 2)


def coded(picture: av.VideoFrame, crf: int) -> av.VideoFrame:
    """The same after H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height = picture.width, picture.height
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return next(container.decode(video=0))


@pytest.mark.parametrize("size", [(120, 24), (160, 96), (640, 360), (1280, 720)])
@pytest.mark.parametrize("clock_ms", [0, 1, 2**32 - 1, 1_763_764_553_123])
def test_a_painted_clock_survives_h264(size: tuple[int, int], clock_ms: int) -> None:
    picture = grey(size)
    paint(picture, 2**24 + 77, clock_ms)
    seen = coded(picture, crf=36)
    expected = Painted(77, clock_ms % 2**32)
    assert read_picture(seen) == expected
    assert read_block_by_block(seen.to_ndarray(format="gray")) == (77, clock_ms % 2**32)


@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuvj420p", "nv12", "yuv444p", "yuyv422", "rgb24", "yuv420p10le"]
)
def test_a_clock_is_read_from_any_format(pixel_format: str) -> None:
    picture = grey((322, 180))
    paint(picture, 5, 6)
    assert read_picture(picture.reformat(format=pixel_format)) == Painted(5, 6)


def test_what_is_no_clock_is_not_read() -> None:
    with pytest.raises(Unreadable, match="no strip"):
        read_picture(grey((320, 180)))
    with pytest.raises(Unreadable, match="no room"):
        read_picture(grey((100, 180)))
    picture = grey((320, 180))
    paint(picture, 5, 6)
    luma = picture.to_ndarray(format="gray")
    luma[8:12, 20:24] = 255 - luma[8:12, 20:24]
    with pytest.raises(Unreadable, match="check"):
        read_painted(luma)


def test_a_clock_needs_room_and_a_word_that_means_something() -> None:
    assert has_room(24, 120) and not has_room(22, 120) and not has_room(24, 118)
    (source,) = open_sources(["synthetic://street?size=160x90&clock=1&seconds=1"])
    source.close()
    with pytest.raises(ConfigError, match=r"needs a picture of 120x24 at least; choose a larger"):
        open_sources(["synthetic://street?size=96x64&clock=1"])
    with pytest.raises(ConfigError, match="clock must be 1 for a clock"):
        open_sources(["synthetic://street?clock=yes"])


def test_a_street_tells_when_each_picture_was_drawn_and_covers_nothing_else() -> None:
    plain, clocked = (
        open_sources([STREET.format(seconds=0.4) + more])[0] for more in ("", "&clock=1")
    )
    for without, frame in zip(plain.frames(), clocked.frames(), strict=True):
        age = read_picture(frame.picture).age_at(time.time())
        assert 0 <= age < 5 and read_picture(frame.picture).number == frame.index
        both = [each.picture.to_ndarray(format="gray") for each in (without, frame)]
        side = block_pixels(180)
        for luma in both:
            luma[: 4 * side, : 20 * side] = 0
        assert np.array_equal(*both)
    assert plain.stats.frames_decoded == 10


def watched(url: str, count: int) -> CameraSource:
    """A live source of which so many frames were read, each with a painted time."""
    (source,) = open_sources([url], max_frames=count)
    assert isinstance(source, CameraSource)
    for frame in source.frames():
        assert frame.painted is not None
        source.stats.glass_to_sink.add(frame.arrival - frame.painted)
    source.close()
    return source


def test_a_replayed_street_is_painted_when_it_is_due_and_not_when_it_is_drawn() -> None:
    url = "replay:synthetic://street?size=160x96&fps=4&seconds=9&clock=1#painted_clock"
    way = watched(url, 8).stats.glass_to_sink
    assert way.count == 8 and way.percentile_ms(50) < 100, "a quarter of a second lies between two"


def test_a_camera_without_a_clock_has_no_such_figure_and_one_that_is_wrong_none_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for clock, anomaly in (("0", "painted_clock_unreadable"), ("1", "painted_clock_wrong")):
        url = f"replay:synthetic://street?size=160x96&seconds=9&clock={clock}#painted_clock"
        (source,) = open_sources([url], max_frames=3)
        real = time.time
        ahead = iter(range(10**6))  # the reader's clock is always far behind or ahead
        monkeypatch.setattr(time, "time", lambda real=real, ahead=ahead: real() + 60 * next(ahead))
        assert [frame.painted for frame in source.frames()] == [None] * 3
        monkeypatch.undo()
        assert source.stats.anomalies[anomaly] >= 3
        source.close()


def test_the_painted_clock_and_the_cameras_own_reports_agree(cameras: CameraServer) -> None:
    """Two witnesses of the same way: RTCP tells when a picture was painted, and so does it."""
    camera = cameras.add(size=(320, 180), wall_clock=True)
    with Watcher(camera.url + "#painted_clock") as watcher:
        until(lambda: watcher.stats.transit.count >= 50, 60, "a sender's report and 50 frames")
        reported = watcher.stats.transit.percentile_ms(50)
    clock_less = time.time() - time.monotonic()
    assert reported is not None
    painted = [frame.age_at_arrival for frame in watcher.seen[-50:]]
    read = [((age + clock_less + 2**31 / 1e3) % (2**32 / 1e3) - 2**31 / 1e3) for age in painted]
    assert reported == pytest.approx(statistics.median(read) * 1e3, abs=25)
    assert not watcher.stats.anomalies["painted_clock_wrong"]
    assert not watcher.stats.anomalies["painted_clock_unreadable"]


def test_a_run_says_how_long_a_picture_takes_from_glass_to_sink(
    cameras: CameraServer, start_line: Callable[..., Line]
) -> None:
    camera = cameras.add(size=(320, 180), wall_clock=True)
    line = start_line([camera.url + "#painted_clock&name=cam"])
    line.wait_records(150)
    line.stop()
    entry = line.report["sources"]["cam"]
    whole, way, here = (entry[k]["p50"] for k in ("glass_to_sink_ms", "transit_ms", "latency_ms"))
    assert whole == pytest.approx(way + here, abs=40)
    measured = entry["glass_to_sink_ms"]
    assert measured["p50"] <= measured["p95"] <= measured["p99"]
    assert f"glass to sink of cam: p50 {whole:.0f} ms" in line.words


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_programs_and_a_server_between_them_are_measured_from_end_to_end(
    tmp_path: Path, small_model: Path
) -> None:
    """One program pushes a street with a clock, another plays it; the test watches, too."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    street = "replay:synthetic://street?size=160x96&fps=8&seconds=600&clock=1"
    ages = []
    plain = ["render.enabled=false"]  # a box could be drawn over the clock
    with (
        Relay() as relay,
        Line([street], folders[0], small_model, out=[relay.push_url], settings=plain) as first,
    ):
        first.wait_records(40)
        watch = relay.play_url + "#painted_clock&name=cam"
        with Line([watch], folders[1], small_model) as second:
            second.wait_records(10)
            (viewer,) = open_sources([relay.play_url], max_frames=80)
            for frame in viewer.frames():
                shown = read_by_kit(frame.picture.to_ndarray(format="gray"))
                ages.append(shown.age_at(time.time() - (time.monotonic() - frame.arrival)))
            viewer.close()
            second.stop()
    entry = second.report["sources"]["cam"]
    whole, here = (entry[key]["p50"] for key in ("glass_to_sink_ms", "latency_ms"))
    assert entry["glass_to_sink_ms"]["p99"] < 10_000
    assert whole == pytest.approx(statistics.median(ages) * 1e3 + here, abs=60)
