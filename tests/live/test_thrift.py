"""Pictures that nobody wants are not decoded, and nobody can tell."""

from __future__ import annotations

import io
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from pipeline.sources.delivery import Thinning
from pipeline.sources.live import watchdog
from pipeline.sources.live.decoder import Decoder, Effort
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.live.repair import Repair
from pipeline.sources.live.thrift import Need, Thrift
from tests.live.scripted import watched
from tests.waiting import until

RATE = 25


class Ledger:
    """Counts what a decoder tells."""

    def __init__(self) -> None:
        self.spared_pictures, self.counts = 0, Counter[str]()

    def decoded_by(self, decoder: DecodedBy) -> None:
        pass

    def spared(self) -> None:
        self.spared_pictures += 1

    def count(self, anomaly: str) -> None:
        self.counts[anomaly] += 1

    def drop(self, cause: str) -> None:
        self.counts[cause] += 1


def stream(*groups: int, codec: str = "libx264", b_frames: int = 0) -> bytes:
    """A transport stream of 25 pictures a second with groups of pictures of these lengths."""
    file = io.BytesIO()
    chance = np.random.default_rng(0)
    scene = chance.integers(0, 255, (64, 400, 3), np.uint8)
    with av.open(file, "w", format="mpegts" if codec == "libx264" else "nut") as container:
        video = container.add_stream(codec, rate=RATE)
        (video.width, video.height) = 96, 64
        video.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        video.thread_count, video.gop_size = 1, 10_000
        if codec == "libx264":
            video.options = {
                "preset": "superfast",  # with a loop filter, which must not be left out
                "crf": "38",
                "bf": str(b_frames),
                "sc_threshold": "0",
                "forced-idr": "1",
            }
        begins = set(np.cumsum([0, *groups[:-1]]).tolist())
        for number in range(sum(groups)):
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(scene[:, number % 300 : number % 300 + 96]), "rgb24"
            )
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            picture.pict_type = PictureType.I if number in begins else PictureType.NONE
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return file.getvalue()


class Outcome:
    """What a decoder made of a stream, with pictures as (number, planes)."""

    def __init__(self, data: bytes, max_fps: float | None, thinned_to: float | None = None) -> None:
        self.ledger = Ledger()
        thinning = Thinning(max_fps=thinned_to or max_fps)
        self.pictures: list[tuple[int, np.ndarray]] = []
        with av.open(io.BytesIO(data)) as container:
            video = container.streams.video[0]
            thrift = Thrift(max_fps)
            decoder = Decoder(video, 1, Effort(), Hearing(losses=False), thrift)
            repair, begin = Repair("skip", self.ledger), None
            for packet in thrift.watched(container.demux(video)):
                for picture in decoder.decode(packet, repair, self.ledger):
                    assert picture.pts is not None
                    seconds = float(picture.pts * video.time_base)
                    begin = seconds if begin is None else begin
                    if thinning.reason_to_drop(seconds - begin) is None:
                        number = round((seconds - begin) * RATE)
                        self.pictures.append((number, picture.to_ndarray()))

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.pictures]


@pytest.mark.parametrize(
    ("group", "max_fps"),
    [(25, 1.0), (12, RATE / 12), (5, 1.0), (10, 0.5)],
)
def test_keyframes_alone_give_the_very_pictures_that_all_would_have_given(group, max_fps):
    data = stream(*[group] * (500 // group))
    thrifty, lavish = Outcome(data, max_fps), Outcome(data, None, thinned_to=max_fps)
    late = [n for n in lavish.numbers if n > 6 * group]
    assert len(late) > 5
    assert [n for n in thrifty.numbers if n > 6 * group] == late
    all_of = dict(lavish.pictures)
    assert all(np.array_equal(pixels, all_of[n]) for n, pixels in thrifty.pictures)
    assert thrifty.ledger.spared_pictures > 0.6 * 500
    assert lavish.ledger.spared_pictures == 0
    assert not thrifty.ledger.counts


@pytest.mark.parametrize(
    ("group", "max_fps"),
    [
        (50, 1.0),  # keyframes are too rare
        (20, 1.0),  # they come every 0.8 s: at times 1.6 s would pass
        (25, 5.0),
        (25, None),
    ],
)
def test_all_is_decoded_where_keyframes_do_not_come_as_they_are_wanted(group, max_fps):
    outcome = Outcome(stream(*[group] * (500 // group)), max_fps)
    assert outcome.ledger.spared_pictures == 0
    if max_fps:
        assert len(outcome.numbers) == pytest.approx(500 / RATE * max_fps, abs=1)


def test_all_is_decoded_again_when_keyframes_become_rare():
    data = stream(*[25] * 8, *[100] * 4)
    outcome = Outcome(data, 1.0)
    assert outcome.numbers[:8] == [n * 25 for n in range(8)]
    # The camera's first long group is passed over; from its end on nothing is.
    assert outcome.numbers[8:] == [200, *range(300, 600, 25)]
    assert not outcome.ledger.counts


def test_all_is_decoded_where_keyframes_would_come_out_late():
    data = stream(*[25] * 20, b_frames=3)  # the decoder holds each back until the next
    outcome = Outcome(data, 1.0)
    assert outcome.ledger.spared_pictures == 0
    assert outcome.numbers == Outcome(data, None, thinned_to=1.0).numbers


def test_a_clock_that_goes_back_stops_nothing():
    """As a transport stream's does every 26 hours, or that of a camera that restarts."""
    with av.open(io.BytesIO(stream(*[25] * 12))) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    thrift, keyframes = Thrift(1.0), list[int]()
    for shift in (200 * 90_000, -200 * 90_000):
        for packet in packets:
            assert packet.pts is not None
            packet.pts += shift
        needs = [thrift.need(packet, reorders=False) for packet in thrift.watched(packets)]
        keyframes.append(needs.count(Need.KEYFRAME))
    assert keyframes == [9, 9], "all but the first three"


def test_pictures_that_all_stand_alone_are_decoded_only_when_one_is_due():
    data = stream(*[1] * 250, codec="mjpeg")
    thrifty, lavish = Outcome(data, 5.0), Outcome(data, None, thinned_to=5.0)
    assert thrifty.numbers == lavish.numbers
    assert thrifty.ledger.spared_pictures > 0.7 * 250


def test_a_camera_that_is_to_give_few_pictures_gives_them_evenly_for_little_work(
    cameras, monkeypatch
):
    monkeypatch.setattr(watchdog, "_SILENCE_SECONDS", 15.0)  # a busy machine is no silence
    camera = cameras.add(size=(160, 96), keyframe_every=10)
    (source,) = open_sources([camera.url], live=LiveSettings(stall_seconds=20, max_fps=2.5))
    with watched(source) as watch:
        stats = source.stats
        until(lambda: stats.anomalies["spared"] >= 60)
        dropped = stats.frames_dropped["max_fps"]
        begin = len(watch.frames)
        watch.wait_for_frames(begin + 8)
        assert stats.frames_dropped["max_fps"] <= dropped + 1, "it still decodes what it drops"
    steps = np.diff([frame.pts_seconds for frame in watch.frames[begin + 1 :]])
    assert steps == pytest.approx(0.4, abs=0.05)
    assert stats.offered_fps == pytest.approx(25, rel=0.3)
    assert "STALLED" not in watch.states
    assert not stats.frames_dropped["corrupt"]
