"""Pictures that stay on a real GPU: skipped without one, as everywhere so far."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")
pytest.importorskip("triton", reason="torch brings it on Linux")

import torch

import run_stream
from pipeline.engines.nvidia import driver
from pipeline.errors import EngineUnavailable
from pipeline.frame import Frame
from pipeline.gpu.images import DeviceImages
from pipeline.gpu.pictures import is_on_gpu
from pipeline.gpu.preprocess import images_on_gpu, trouble_of_kernels
from pipeline.placement import Placement
from pipeline.preprocess import preprocess
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.recorded import RecordedSource
from pipeline.yuv import Colours
from tests.pipeline.model_files import write_model
from tests.pipeline.on_gpu.test_kernel import MATRICES, SIZES, assert_twins, colourful
from tests.pipeline.on_gpu.test_line import assert_alike, run
from tests.pipeline.programs import write_program_file

MakeClip = Callable[..., Path]
CLIPS = ["highway_day_960x540_25fps.mp4", "rural_night_1920x1080_30fps_hevc.mp4"]

pytestmark = pytest.mark.needs_cuda


def staying() -> GpuDecoding:
    gpu = GpuDecoding("cuda")
    gpu.keep_pictures(trouble_of_kernels)
    return gpu


def source_of(path: Path, gpu: GpuDecoding, most: int | None = None) -> RecordedSource:
    return RecordedSource(path, name="a", url="a", limits=Limits(most), gpu=gpu)


def test_the_gpu_shows_that_it_can() -> None:
    assert trouble_of_kernels() is None


# The kernel --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size_wh", "input_hw", "fit"), SIZES)
@pytest.mark.parametrize("layout", ["nv12", "p010le", "p016le"])
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_an_image_is_what_the_definition_says(
    size_wh: tuple[int, int], input_hw: tuple[int, int], fit: str, layout: str, tile: Any
) -> None:
    placement = getattr(Placement, fit)(size_wh[::-1], input_hw)
    assert_twins(colourful(size_wh, layout), placement, device="cuda", tile=tile)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("colour_range", [1, 2])
def test_every_matrix_and_range_is_converted_by_its_definition(
    matrix: int, colour_range: int
) -> None:
    picture = colourful((640, 360), matrix=matrix, colour_range=colour_range)
    assert_twins(picture, Placement.letterbox((360, 640), (320, 576)), device="cuda", tile=None)


# Pictures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout", "clip"),
    [
        ("a.mp4", "nv12", {"codec": "libx264"}),
        ("a.mp4", "nv12", {"codec": "libx264", "rotation": 90}),
        ("a.mkv", "p010le", {"codec": "libx265", "pix_fmt": "yuv420p10le"}),
        ("a.mkv", "nv12", {"codec": "libvpx-vp9"}),
    ],
)
def test_pictures_that_stay_are_those_that_are_copied(
    make_clip: MakeClip, name: str, layout: str, clip: dict[str, Any]
) -> None:
    path = make_clip(name, size=(320, 240), frames=60, **clip)
    source = source_of(path, staying())
    ours = list(source.frames())  # kept, all of them
    theirs = list(source_of(path, GpuDecoding("cuda")).frames())
    assert source.stats.decoded_by and "stay there" in source.stats.decoded_by.why
    assert {is_on_gpu(frame.picture) for frame in ours} == {"rotation" not in clip}
    for one, other in zip(ours, theirs, strict=True):
        here, copied = one.in_memory, other.picture
        assert here.format.name == copied.format.name == layout
        assert (one.pts, here.pts, here.duration) == (other.pts, copied.pts, copied.duration)
        assert here.key_frame == copied.key_frame and one.size_hw == other.size_hw
        assert Colours.of(one.picture) == Colours.of(copied)
        assert [bytes(plane) for plane in here.planes] == [bytes(p) for p in copied.planes]


def images_of(frame: Frame) -> torch.Tensor:
    made = images_on_gpu([frame], [Placement.letterbox(frame.size_hw, (320, 576))], (320, 576))
    tensor: torch.Tensor = made.tensor
    return tensor


@pytest.mark.parametrize("clip", CLIPS)
def test_images_are_whole_though_nobody_waits_for_the_pictures(
    shared_data: Path, clip: str
) -> None:
    """Their memory is given back, and decoded into again, before the kernel may have begun."""
    path = shared_data / "videos" / clip
    hurried = [images_of(frame) for frame in source_of(path, staying(), 150).frames()]
    torch.cuda.synchronize()
    for image, frame in zip(hurried, source_of(path, staying(), 150).frames(), strict=True):
        torch.cuda.synchronize()
        assert torch.equal(image, images_of(frame))


@pytest.mark.parametrize("clip", CLIPS)
def test_a_batch_made_on_the_gpu_is_that_of_swscale(shared_data: Path, clip: str) -> None:
    frames = list(source_of(shared_data / "videos" / clip, staying(), 4).frames())
    (ours,) = preprocess([frames], (320, 576), "letterbox")
    copied = [Frame(f.in_memory, "a", f.index, f.pts, f.time_base, 0.0) for f in frames]
    (theirs,) = preprocess([copied], (320, 576), "letterbox")
    assert isinstance(ours.images, DeviceImages) and ours.images.tensor.is_cuda
    apart = np.abs(ours.images.tensor.cpu().numpy().astype(int) - theirs.images)
    assert apart.mean() < 0.05 and apart.max() <= 2


# The line ----------------------------------------------------------------------------------------


def engine_words(name: str, folder: Path) -> list[str]:
    """A small model for one of the GPU's engines."""
    if name == "tensorrt":
        try:
            driver()
        except EngineUnavailable as absent:
            pytest.skip(str(absent))
        pytest.importorskip("tensorrt", reason="the extra 'tensorrt' is not installed")
        return ["--engine", name, "--model", str(write_model(folder / "m.onnx"))]
    model = write_program_file(folder / "m.pt2")
    return ["--engine", name, "--model", str(model), "--no-build"]


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], list[str]]:
    """Asks for a decoder."""

    def written(decoder: str) -> list[str]:
        path = tmp_path / f"{decoder}.yaml"
        path.write_text(f"decoder: {decoder}\n")
        return ["--config", str(path)]

    return written


@pytest.mark.parametrize("engine", ["program", "tensorrt"])
def test_the_line_finds_the_same_wherever_pictures_lie(
    tmp_path: Path, shared_data: Path, engine: str, config: Callable[[str], list[str]]
) -> None:
    words = [str(shared_data / "videos" / CLIPS[0]), *engine_words(engine, tmp_path)]
    words += ["--threshold", "0.3"]
    drawn = ["--out", str(tmp_path / "a.mp4")]
    ours, report = run(tmp_path / "ours", *words, *config("cuda"))
    theirs, _ = run(tmp_path / "theirs", *words, *config("software"))
    again, _ = run(tmp_path / "again", *words, *drawn, *config("cuda"))
    (decoder,) = (source["decoder"] for source in report["sources"].values())
    assert "stay there" in decoder["why"]
    assert_alike(ours, theirs)
    assert_alike(again, ours)


def copied_bytes(path: Path, words: list[str]) -> int:
    """Between host and device, in both directions, by whoever is in this process."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        assert run_stream.main([*words, "--quiet"]) == 0
    profile.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    return sum(
        event["args"]["bytes"]
        for event in events
        if event.get("cat") == "gpu_memcpy" and ("HtoD" in event["name"] or "DtoH" in event["name"])
    )


def test_nothing_of_a_picture_goes_through_main_memory_where_records_are_written(
    tmp_path: Path,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: Callable[[str], list[str]],
) -> None:
    words = [str(shared_data / "videos" / CLIPS[0]), *engine_words("program", tmp_path)]
    words += ["--out", "null:", *config("cuda")]

    def of_a_frame() -> float:
        """What 100 frames more cost, by frame; weights and the like cost the same."""
        few, many = (
            copied_bytes(tmp_path / f"{n}.json", [*words, "--max-frames", str(n)])
            for n in (50, 150)
        )
        return (many - few) / 100

    picture = 960 * 540 * 3 / 2
    assert of_a_frame() < picture / 50
    monkeypatch.setattr(run_stream, "trouble_of_kernels", lambda: "they are to be counted")
    assert of_a_frame() > picture
