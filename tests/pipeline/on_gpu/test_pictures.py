"""Pictures on a GPU: brought to main memory where somebody looks at them, once, and as they are."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")

from pipeline.drawing.render import render
from pipeline.errors import EngineError, SourceError
from pipeline.frame import Detections, Frame, Result
from pipeline.gpu.pictures import in_memory, is_on_gpu, is_readable_there, luma_corner
from pipeline.model_file.reading import Fit
from pipeline.preprocess import preprocess
from pipeline.settings import RenderSettings
from pipeline.sources.painted import Unreadable, paint, read_picture
from pipeline.sources.upright import Upright
from pipeline.yuv import Colours, fitted, own_yuv420p, planes, to_bgr
from tests.pipeline.frames import frame_of
from tests.pipeline.on_gpu.test_kernel import colourful
from tests.pipeline.stand_in_chip import as_downloaded
from tests.pipeline.stand_in_gpu_picture import GpuPicture, on_gpu

NOTHING = Detections.none()


def labelled(layout: str = "nv12", size_wh: tuple[int, int] = (96, 64)) -> av.VideoFrame:
    picture = colourful(size_wh, layout, matrix=9, colour_range=2)
    picture.pts, picture.time_base, picture.duration = 77, Fraction(1, 30), 3
    picture.color_primaries, picture.color_trc = 9, 16
    return picture


@pytest.mark.parametrize("layout", ["nv12", "p010le", "p016le"])
def test_a_picture_comes_down_with_all_that_is_known_of_it(layout: str) -> None:
    there = on_gpu(labelled(layout))
    assert is_on_gpu(there) and is_readable_there(there)
    here = in_memory(there)
    assert not is_on_gpu(here) and isinstance(here, av.VideoFrame)
    assert (here.format.name, here.width, here.height) == (layout, 96, 64)
    assert (here.pts, here.time_base, here.duration) == (77, Fraction(1, 30), 3)
    assert (here.colorspace, here.color_range) == (9, 2)
    assert (here.color_primaries, here.color_trc) == (9, 16)
    assert Colours.of(there) == Colours.of(here) == Colours(9, full_range=True)


def test_what_lies_in_main_memory_stays_what_it_is() -> None:
    picture = labelled()
    assert in_memory(picture) is picture and frame_of(picture).in_memory is picture


@pytest.mark.parametrize("size", [(2, 1), (1, 2)])
def test_a_picture_without_chroma_is_not_read_there(size: tuple[int, int]) -> None:
    assert not is_readable_there(on_gpu(av.VideoFrame(*size, "nv12")))
    assert not is_readable_there(on_gpu(av.VideoFrame(64, 64, "yuv444p")))


def test_a_frame_comes_down_once_whoever_asks() -> None:
    frame = frame_of(on_gpu(labelled()))
    assert frame.size_hw == (64, 96)
    drawn = [next(iter(render([Result(frame, NOTHING)], (), RenderSettings()))) for _ in range(2)]
    assert all(result.annotated for result in drawn)
    to_bgr(frame.in_memory)
    assert downloads(frame) == 1


def test_a_frame_comes_down_once_though_many_ask_at_once() -> None:
    frame, found = frame_of(on_gpu(labelled())), list[av.VideoFrame]()
    begin = threading.Barrier(8)

    def ask() -> None:
        begin.wait()
        found.append(frame.in_memory)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert downloads(frame) == 1 and len(set(map(id, found))) == 1


def downloads(frame: Frame) -> int:
    count: int = frame.picture.downloads  # type: ignore[attr-defined]  # of the stand-in
    return count


@pytest.mark.parametrize(
    "use",
    [own_yuv420p, to_bgr, lambda p: fitted(p, (40, 40), Colours.of(p))],
    ids=["own copy", "bgr", "fitted"],
)
@pytest.mark.parametrize("layout", ["nv12", "p010le"])
def test_whoever_wants_pixels_gets_them(use: Any, layout: str) -> None:
    found, wanted = use(on_gpu(labelled(layout))), use(labelled(layout))
    if isinstance(wanted, av.VideoFrame):
        assert (found.colorspace, found.pts) == (wanted.colorspace, wanted.pts)
        found, wanted = (np.concatenate([p.ravel() for p in planes(x)]) for x in (found, wanted))
    assert np.array_equal(found, wanted)


def test_a_turned_picture_is_turned_in_main_memory(make_clip: Any) -> None:
    path = make_clip("a.mp4", frames=1, rotation=90, size=(96, 64))
    with av.open(str(path)) as container:
        picture = as_downloaded(next(container.decode(video=0)))
    turned, wanted = Upright()(on_gpu(picture)), Upright()(picture)
    assert (turned.width, turned.height) == (64, 96) and not is_on_gpu(turned)
    for ours, theirs in zip(planes(turned), planes(wanted), strict=True):
        assert np.array_equal(ours, theirs)
    upright = on_gpu(labelled())
    assert Upright()(upright) is upright and upright.downloads == 0


@pytest.mark.parametrize("layout", ["nv12", "p010le"])
def test_a_painted_clock_is_read_without_the_rest_of_the_picture(layout: str) -> None:
    planar = own_yuv420p(labelled(size_wh=(640, 360)))
    paint(planar, 12, 3456)
    there = on_gpu(planar.reformat(format=layout, threads=1))
    assert read_picture(there) == read_picture(planar)
    assert there.downloads == 0
    assert luma_corner(there, 5, 7).shape == (5, 7)
    for bare in (labelled(layout, (640, 360)), labelled(layout, (64, 8))):
        with pytest.raises(Unreadable):
            read_picture(on_gpu(bare))


# Batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_a_batch_of_pictures_on_the_gpu_stays_there(
    interpreter: None, fit: Fit, make_clip: Any
) -> None:
    pictures = list[av.VideoFrame]()
    for codec, layout in (("libx264", "yuv420p"), ("libx265", "yuv420p10le")):
        for n, size in enumerate(((96, 64), (64, 96), (70, 70))):
            path = make_clip(f"{codec}{n}.mkv", codec=codec, pix_fmt=layout, frames=2, size=size)
            with av.open(str(path)) as container:
                pictures += map(as_downloaded, container.decode(video=0))
    theirs, ours = (
        next(preprocess([[frame_of(put(p)) for p in pictures]], (48, 80), fit))
        for put in (lambda p: p, on_gpu)
    )
    assert ours.images.shape == theirs.images.shape == (12, 48, 80, 3)
    assert ours.images.dtype == np.uint8 and len(ours.images) == 12
    assert ours.placements == theirs.placements
    # One batch is on the GPU, the other is not, as the test has just made them.
    apart = np.abs(ours.images.tensor.numpy().astype(int) - theirs.images)  # type: ignore[union-attr]
    assert apart.mean() < 0.05 and apart.max() <= 2
    assert [downloads(frame) for frame in ours.frames] == [0] * 12


def test_a_mixed_batch_is_made_in_main_memory() -> None:
    pictures = [labelled(), labelled(size_wh=(64, 96))]
    frames = [frame_of(on_gpu(pictures[0])), frame_of(pictures[1])]
    (ours,) = preprocess([frames], (48, 80), "letterbox")
    (theirs,) = preprocess([[frame_of(p) for p in pictures]], (48, 80), "letterbox")
    assert isinstance(ours.images, np.ndarray) and np.array_equal(ours.images, theirs.images)
    assert downloads(frames[0]) == 1
    assert frames[0].in_memory is frames[0].in_memory and downloads(frames[0]) == 1


def test_a_gpu_that_fails_while_images_are_made_is_told_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("pipeline.gpu.preprocess.write", fails)
    batches = preprocess([[frame_of(on_gpu(labelled()))]], (48, 80), "letterbox")
    with pytest.raises(EngineError, match=r"images \(CUDA error: out of memory\); look at nvidia"):
        next(batches)


def test_a_gpu_that_fails_while_a_picture_is_copied_is_told_with_a_remedy() -> None:
    class Failing(GpuPicture):
        def reformat(self, **_: Any) -> av.VideoFrame:
            raise av.ExternalError(0, "Generic error in an external library")

    frame = frame_of(cast(av.VideoFrame, Failing(labelled())))
    with pytest.raises(SourceError, match=r"memory \(Generic error in an .*decoder: software"):
        to_bgr(frame.in_memory)
