"""A picture that is missing in H.264 is noticed, and none is taken for missing that is not."""

from __future__ import annotations

import io
from collections import Counter
from functools import cache

import av
import numpy as np
import pytest

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.sources.live.decoder import Decoder, Effort
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.live.repair import Repair
from pipeline.sources.live.thrift import Thrift

COUNT, SIZE = 200, (320, 180)


class Losses:
    """Counts what is left out, and what was put right."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def drop(self, cause: str) -> None:
        self.counts[cause] += 1

    count = drop

    def spared(self) -> None:
        pass

    def decoded_by(self, decoder: DecodedBy) -> None:
        pass

    def sign_of_life(self) -> None:
        pass  # not looked at here


@cache
def stream_in(container_format: str) -> bytes:
    """A stream of one keyframe and many pictures of 256 to 511 bytes."""
    file, chance = io.BytesIO(), np.random.default_rng(0)
    with av.open(file, "w", format=container_format) as container:
        video = container.add_stream("libx264", rate=25)
        (video.width, video.height), video.pix_fmt, video.gop_size = SIZE, "yuv420p", 2 * COUNT
        video.thread_count = 1
        video.options = {"crf": "24", "preset": "ultrafast", "tune": "zerolatency"}
        for number in range(COUNT):
            picture = np.full((*reversed(SIZE), 3), 128, np.uint8)
            patch = chance.integers(0, 255, (4, 2 + number % 10, 3), np.uint8)
            patch = patch.repeat(8, 0).repeat(8, 1)
            picture[40 : 40 + len(patch), 40 : 40 + patch.shape[1]] = patch
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode(None))
    return file.getvalue()


def decoded(stream: bytes, without: int | None = None) -> tuple[int, Counter[str], int]:
    """Good pictures of a stream, what else became of them, and pictures of 256 to 511 bytes."""
    losses, good, in_danger = Losses(), 0, 0
    with av.open(io.BytesIO(stream)) as container:
        video = container.streams.video[0]
        decoder = Decoder(video, 1, Effort(), Hearing(losses=False), Thrift(None))
        repair = Repair("skip", losses)
        for number, packet in enumerate(container.demux(video)):
            in_danger += 0x100 <= packet.size - 4 < 0x200
            if number != without:
                good += len(decoder.decode(packet, repair, losses))
    return good, losses.counts, in_danger


@pytest.mark.parametrize("container_format", ["flv", "mp4", "mpegts"])
def test_a_whole_stream_gives_all_its_pictures(container_format: str) -> None:
    good, lost, in_danger = decoded(stream_in(container_format))
    assert in_danger > COUNT / 4, "in FLV and MP4 their length looks like a start code"
    assert (good, lost) == (COUNT, Counter())


def test_a_picture_that_is_missing_in_a_transport_stream_is_noticed() -> None:
    good, lost, _ = decoded(stream_in("mpegts"), without=100)
    assert good + lost["corrupt"] == COUNT - 1
    assert lost["corrupt"] > 1, "what follows is built on it"
