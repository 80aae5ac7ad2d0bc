"""Drawing and encoding on a real GPU: skipped without one, as everywhere so far."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")
pytest.importorskip("triton", reason="torch brings it on Linux")

import torch

from pipeline.drawing.plane_canvas import PlaneCanvas
from pipeline.drawing.render import render
from pipeline.gpu.canvas import GpuCanvas
from pipeline.gpu.memory import Own, ffmpegs_stream
from pipeline.gpu.pictures import in_memory, is_on_gpu, planes_on_gpu
from pipeline.gpu.trial import trouble_of_drawing
from pipeline.settings import RenderSettings, VideoSettings
from pipeline.sinks.footage import FootageEncoder
from pipeline.sinks.nvenc import NVENC, trouble_of_nvenc
from pipeline.yuv import Colours, own_yuv420p
from tests.pipeline.on_gpu.test_canvas import PAINTINGS, assert_alike, classed, everything, nv12
from tests.pipeline.on_gpu.test_encoding import TARGET, drawn, pictures, psnr, shot, written
from tests.pipeline.written_video import NAMES, numbers, times

SIZE = (320, 240)

pytestmark = pytest.mark.needs_cuda
on_nvenc = pytest.mark.skipif(trouble_of_nvenc() is not None, reason="NVENC does not open here")


def on_gpu(picture: av.VideoFrame) -> av.VideoFrame:
    """The NV12 picture, copied to the GPU."""
    device = torch.device("cuda", 0)
    with ffmpegs_stream(device):
        own = Own.copy_of(*(plane.to(device) for plane in planes_on_gpu(picture)))
        return own.picture(picture, Colours.of(picture))


def gpu_shot(number: int, size: tuple[int, int] = SIZE) -> Any:
    """`shot`, whose picture really lies on the GPU."""
    made = shot(number, size)
    object.__setattr__(made.frame, "picture", on_gpu(made.frame.picture._picture))
    return made


def test_the_gpu_has_passed_its_trial() -> None:
    assert trouble_of_drawing() is None


@pytest.mark.parametrize("size", [(96, 64), (640, 360), (1920, 1080)])
def test_a_picture_comes_back_as_it_went_with_its_times_and_colours(size: tuple[int, int]) -> None:
    here = nv12(size, full_range=True)
    there = on_gpu(here)
    assert is_on_gpu(there)
    back = in_memory(there)
    assert_alike(back, own_yuv420p(here))
    assert (back.pts, back.time_base, back.duration) == (3, Fraction(1, 25), 1)
    assert Colours.of(back) == Colours.of(here)


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    "painting", [*PAINTINGS, classed, everything], ids=lambda each: each.__name__
)
def test_what_is_drawn_has_the_numbers_that_the_cpu_writes(painting: Any, full_range: bool) -> None:
    here = nv12(full_range=full_range)
    ours, theirs = GpuCanvas(on_gpu(here)), PlaneCanvas(here)
    for canvas in (ours, theirs):
        painting(canvas)
    drawn_there = ours.picture()
    assert is_on_gpu(drawn_there)
    assert_alike(in_memory(drawn_there), theirs.picture())


def test_drawing_waits_for_what_another_stream_of_torch_has_begun() -> None:
    here = nv12((640, 360))
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        # The GPU is held up, not the test: what does not wait for it comes too early.
        torch.cuda._sleep(50_000_000)
        canvas = GpuCanvas(on_gpu(here))
        everything(canvas)
        made = canvas.picture()
    theirs = PlaneCanvas(here)
    everything(theirs)
    assert_alike(in_memory(made), theirs.picture())


@on_nvenc
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_nvenc_shows_what_was_drawn_where_it_lies(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    results = drawn([gpu_shot(n) for n in range(60)])
    assert all(is_on_gpu(each.annotated) for each in results)
    report = written(path, results)
    assert report["encoder"] == NVENC and "it takes pictures from" in report["encoder_why"]
    assert numbers(path) == [*range(60)]
    if ending == "mp4":
        assert times(path) == [Fraction(n, 25) for n in range(60)]
    wanted = drawn([gpu_shot(n) for n in range(60)], stays=False)
    assert np.mean([psnr(a, b.annotated) for a, b in zip(pictures(path), wanted, strict=True)]) > 36


@on_nvenc
def test_nvenc_makes_keyframes_of_pictures_on_the_gpu_when_asked() -> None:
    encoder = FootageEncoder(TARGET, VideoSettings(encoder=NVENC), 10.0, at_once=True)
    for n, each in enumerate(drawn([gpu_shot(n) for n in range(30)])):
        (footage,) = encoder.encode(each, begin=n == 17)
        assert footage.moment.index == n
        assert footage.packet.is_keyframe or n not in (0, 17)
    assert encoder.takes_gpu_pictures


@on_nvenc
def test_what_comes_from_software_in_between_is_encoded_too(tmp_path: Path) -> None:
    settings = RenderSettings(labels=False, scores=False)
    software = list(render([shot(n, SIZE) for n in (4, 5)], NAMES, settings))
    results = drawn([gpu_shot(n) for n in range(4)]) + software + drawn([gpu_shot(6)])
    written(tmp_path / "a.mp4", [*results, *drawn([gpu_shot(7, (192, 144))])])
    assert numbers(tmp_path / "a.mp4") == [*range(8)]
