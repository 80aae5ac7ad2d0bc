"""Video on a real GPU: skipped without one, as everywhere so far."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.settings import VideoSettings
from pipeline.sinks import SinkTarget
from pipeline.sinks.footage import FootageEncoder
from pipeline.sinks.nvenc import NVENC, trouble_of_nvenc
from pipeline.sinks.video import VideoSink
from pipeline.sources import open_sources
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding, trouble_of_gpu
from pipeline.sources.recorded import RecordedSource
from pipeline.yuv import own_yuv420p, planes
from tests.pipeline.written_video import numbers, result

MakeClip = Callable[..., Path]
SIZE = (320, 240)

pytestmark = pytest.mark.needs_cuda
on_nvenc = pytest.mark.skipif(trouble_of_nvenc() is not None, reason="NVENC does not open here")


def played(path: Path, gpu: GpuDecoding | None) -> tuple[list[Any], RecordedSource]:
    source = RecordedSource(path, name="a", url="a", limits=Limits(), gpu=gpu)
    return list(source.frames()), source


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "layout"),
    [
        ("libx264", "yuv420p", "nv12"),
        ("libx265", "yuv420p", "nv12"),
        ("libx265", "yuv420p10le", "p010le"),
        ("libvpx-vp9", "yuv420p", "nv12"),
    ],
)
def test_the_gpu_gives_the_pictures_of_software(
    make_clip: MakeClip, codec: str, pix_fmt: str, layout: str
) -> None:
    assert trouble_of_gpu() is None
    name = "a.webm" if "vp9" in codec else "a.mp4"
    path = make_clip(name, codec=codec, pix_fmt=pix_fmt, size=SIZE, frames=60)
    (ours, source), (theirs, _) = played(path, GpuDecoding("cuda")), played(path, None)
    assert source.stats.decoded_by and source.stats.decoded_by.where == "gpu"
    assert not source.stats.anomalies
    assert {frame.picture.format.name for frame in ours} == {layout}
    assert [frame.pts for frame in ours] == [frame.pts for frame in theirs]
    for frame, other in zip(ours, theirs, strict=True):
        assert frame.picture.key_frame == other.picture.key_frame
        for a, b in zip(
            planes(own_yuv420p(frame.picture)), planes(own_yuv420p(other.picture)), strict=True
        ):
            np.testing.assert_allclose(
                a.astype(int), b.astype(int), rtol=0, atol=int(layout == "p010le")
            )


def test_what_the_gpu_does_not_take_is_decoded_in_software(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", pix_fmt="yuv422p10le", size=SIZE, frames=40)
    frames, source = played(path, GpuDecoding("cuda"))
    assert len(frames) == 40 and source.stats.decoded_by
    if source.stats.decoded_by.where == "cpu":  # Blackwell takes it
        assert "does not take" in source.stats.decoded_by.why


def test_many_sources_share_the_gpu(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", size=SIZE, frames=60)
    sources = open_sources([str(path)] * 8, decoder="cuda")
    together = zip(*(source.frames() for source in sources), strict=True)
    assert [len(frames) for frames in together] == [8] * 60
    assert {source.stats.decoded_by.where for source in sources if source.stats.decoded_by} == {
        "gpu"
    }


@on_nvenc
@pytest.mark.parametrize("crf", [0, 23])
def test_nvenc_writes_every_picture_once(tmp_path: Path, crf: int) -> None:
    target = SinkTarget("a", (), Fraction(25))
    with VideoSink(tmp_path / "a.mp4", target, VideoSettings(encoder=NVENC, crf=crf)) as sink:
        for n in range(60):
            sink.write(result(n, size=SIZE))
    assert sink.report()["encoder"] == NVENC and "encoder_refused" not in sink.report()
    assert numbers(tmp_path / "a.mp4") == [*range(60)]
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert all(packet.pts == packet.dts for packet in packets), "there are B-frames"


@on_nvenc
def test_nvenc_gives_each_picture_at_once_and_keyframes_when_asked() -> None:
    target = SinkTarget("a", (), Fraction(25), live=True)
    encoder = FootageEncoder(target, VideoSettings(encoder=NVENC), 10.0, at_once=True)
    for n in range(30):
        (footage,) = encoder.encode(result(n, size=SIZE), begin=n == 17)
        assert footage.moment.index == n
        assert footage.packet.is_keyframe or n not in (0, 17)
