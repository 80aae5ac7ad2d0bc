"""The whole line with pictures that stay on a GPU, on stand-ins, against the line without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")
pytest.importorskip("triton", reason="torch brings it on Linux")

import torch

import run_stream
from pipeline.checkup import staying as staying_module
from pipeline.checkup.staying import look_at_staying
from pipeline.engines import program as program_engine
from pipeline.engines.program_cuda import CudaRunner
from pipeline.frame import Frame
from pipeline.gpu import preprocess as on_gpu
from pipeline.gpu.images import DeviceImages
from pipeline.gpu.pictures import enter_shared_context, is_on_gpu
from pipeline.sources.decoding import Decoding
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding, _accelerators
from pipeline.sources.recorded import RecordedSource
from tests.pipeline.gpu import StrawGpu, install
from tests.pipeline.programs import write_program_file
from tests.pipeline.stand_in_chip import Chips
from tests.pipeline.stand_in_gpu_picture import GpuPicture
from tests.pipeline.stand_in_torch_cuda import StandInTorchCuda
from tests.pipeline.test_gpu_decoding import numbers, without_gpu

MakeClip = Callable[..., Path]
CLIP = "highway_day_960x540_25fps.mp4"
FRAMES = 6


@dataclass
class Seen:
    """What went through the line.

    Attributes:
        pictures: On the GPU, as they were asked for.
        images: Batches that were made there.
    """

    pictures: dict[int, GpuPicture] = field(default_factory=dict)
    images: list[DeviceImages] = field(default_factory=list)
    uploaded: int = 0  # bytes, before the first of them

    @property
    def downloads(self) -> list[int]:
        """Of each picture."""
        return [picture.downloads for picture in self.pictures.values()]


@pytest.fixture
def seen(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """A machine whose GPU decodes and makes images."""
    seen, real = Seen(), on_gpu.images_on_gpu

    def watched(frames: list[Frame], *given: Any) -> DeviceImages:
        # Frames say that theirs are pictures of FFmpeg; here all are stand-ins.
        seen.pictures |= {id(frame.picture): frame.picture for frame in frames}  # type: ignore[misc]
        seen.images.append(real(frames, *given))
        return seen.images[-1]

    monkeypatch.setattr(on_gpu, "images_on_gpu", watched)
    monkeypatch.setattr(run_stream, "GpuDecoding", lambda decoder: Chips())
    monkeypatch.setattr(run_stream, "trouble_of_kernels", lambda: None)
    return seen


@pytest.fixture
def straw(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrawGpu:
    """With TensorRT on it, which takes what torch has made."""
    straw, made = install(monkeypatch, tmp_path / "plans"), on_gpu.images_on_gpu

    def lent(*given: Any) -> DeviceImages:
        if not seen.images:
            seen.uploaded = straw.cuda.copied["up"]
        images = made(*given)
        straw.cuda.lend(images.tensor.view(-1).numpy())
        return images

    monkeypatch.setattr(on_gpu, "images_on_gpu", lent)
    return straw


def run(folder: Path, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records and report."""
    folder.mkdir()
    found, report = folder / "found.jsonl", folder / "report.json"
    outs = ["--out", str(found), "--report", str(report), "--quiet"]
    assert run_stream.main([*words, *outs]) == 0
    lines = found.read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads(report.read_text())


def assert_alike(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The same objects; the images differ by a grey level here and there."""
    assert [r["frame"] for r in ours] == [r["frame"] for r in theirs]
    assert sum(len(record["detections"]) for record in theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        a, b = one["detections"], other["detections"]
        assert [d["label"] for d in a] == [d["label"] for d in b]
        for name, atol in (("box", 1.0), ("score", 0.02)):
            np.testing.assert_allclose([d[name] for d in a], [d[name] for d in b], atol=atol)


def test_records_of_pictures_that_stay_cost_no_copy_of_one(
    straw: StrawGpu, seen: Seen, tmp_path: Path, shared_data: Path
) -> None:
    words = (str(shared_data / "videos" / CLIP), "--engine", "tensorrt", "--max-frames", "6")
    ours, report = run(tmp_path / "ours", *words)
    assert len(seen.pictures) == FRAMES and seen.downloads == [0] * FRAMES
    height, width = seen.images[0].shape[1:3]
    assert straw.cuda.copied["across"] == FRAMES * height * width * 3
    assert straw.cuda.copied["up"] == seen.uploaded
    (decoder,) = (source["decoder"] for source in report["sources"].values())
    assert decoder["where"] == "gpu" and decoder["why"].endswith("stay there for the engine")
    theirs, _ = run(tmp_path / "theirs", words[0], "--engine", "onnxruntime", *words[3:])
    assert len(seen.pictures) == FRAMES, "an engine on the CPU has the pictures copied"
    assert_alike(ours, theirs)
    assert straw.cuda.left() == {}


@pytest.mark.parametrize("drawn", ["true", "false"])
def test_pictures_that_are_looked_at_come_down_once_for_all_sinks(
    straw: StrawGpu, seen: Seen, tmp_path: Path, shared_data: Path, drawn: str
) -> None:
    (tmp_path / "a.yaml").write_text(f"render: {{enabled: {drawn}}}")
    words = (str(shared_data / "videos" / CLIP), "--engine", "tensorrt", "--max-frames", "3")
    words += ("--config", str(tmp_path / "a.yaml"))
    outs = (f"{tmp_path}/a.mp4", f"{tmp_path}/b.mkv", f"{tmp_path}/c/")
    _, report = run(tmp_path / "ours", *words, *(w for out in outs for w in ("--out", out)))
    assert seen.downloads == [1] * 3
    assert report["totals"]["frames"] == 3


@pytest.fixture
def torch_gpu(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInTorchCuda]:
    """With torch on it instead of TensorRT."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    cuda, real, to = StandInTorchCuda(), CudaRunner, torch.Tensor.to
    monkeypatch.setattr(program_engine, "CudaRunner", lambda _, *given: real(cuda, *given))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA of straw")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: self if "cuda" in a else to(self, *a, **k)
    )
    monkeypatch.setattr(torch.fx.GraphModule, "to", lambda self, _: self)
    yield cuda
    cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = before


def test_a_program_of_torch_takes_pictures_that_stay(
    torch_gpu: StandInTorchCuda,
    seen: Seen,
    tmp_path: Path,
    make_clip: MakeClip,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = write_program_file(tmp_path / "m.pt2")
    clip = make_clip("a.mp4", size=(96, 64), frames=9)
    words = (str(clip), "--model", str(model), "--engine", "program", "--threshold", "0.3")
    ours, _ = run(tmp_path / "ours", *words, "--no-build")
    assert len(seen.pictures) == 9 and not any(seen.downloads)
    monkeypatch.setattr(run_stream, "trouble_of_kernels", lambda: "that is how it is wanted")
    theirs, report = run(tmp_path / "theirs", *words, "--no-build")
    assert len(seen.pictures) == 9
    (decoder,) = (source["decoder"] for source in report["sources"].values())
    assert decoder["why"].endswith("copied to main memory, because that is how it is wanted")
    assert_alike(ours, theirs)


# Sources ------------------------------------------------------------------------------------------


def staying(**options: Any) -> Chips:
    chips = Chips(**options)
    chips.keep_pictures(lambda: None)
    return chips


def play(path: Path, gpu: GpuDecoding) -> tuple[list[Frame], RecordedSource]:
    source = RecordedSource(path, name="a", url="a", limits=Limits(), decoder_threads=1, gpu=gpu)
    return list(source.frames()), source


@pytest.mark.parametrize("fails_at", [5, 64, 101])
def test_software_goes_on_from_pictures_that_stayed_without_losing_one(
    make_clip: MakeClip, fails_at: int
) -> None:
    path = make_clip("a.mp4", frames=120)
    frames, source = play(path, staying(options={"fails_at": fails_at}))
    where = [is_on_gpu(frame.picture) for frame in frames]
    assert where == sorted(where, reverse=True) and any(where) and not all(where)
    assert [number_of(frame) for frame in frames] == [*range(120)]
    assert source.stats.decoded_by and source.stats.decoded_by.why.endswith("(Generic error)")


def number_of(frame: Frame) -> int:
    (number,) = numbers([Frame(frame.in_memory, "a", 0, 0, frame.time_base, 0.0)])
    return number


def test_a_turned_recording_comes_upright_in_main_memory(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", frames=9, rotation=90, size=(96, 64))
    frames, _ = play(path, staying())
    assert {frame.size_hw for frame in frames} == {(96, 64)}
    assert not any(is_on_gpu(frame.picture) for frame in frames)


def test_a_layout_that_is_not_read_there_is_copied_and_that_is_said(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sources.gpu_decoder.is_readable_there", lambda picture: False)
    frames, source = play(make_clip("a.mp4"), staying())
    assert numbers(frames) == [*range(12)]
    assert source.stats.decoded_by and source.stats.decoded_by.why == (
        "as asked for; pictures are copied to main memory, because nv12 of 64x48 is not read on "
        "the GPU"
    )


def test_a_camera_that_is_watched_by_keyframes_leaves_them_there(make_clip: MakeClip) -> None:
    """`replay:` has no decoder of cameras; so one stands here alone, told what to leave out."""
    path, chips = make_clip("a.mp4", frames=60, keyframe_every=6), staying()
    decoding = Decoding(path, 1)
    decoder = chips.of_camera(decoding._stream)
    decoder.context.skip_frame = "NONKEY"
    packets = list(decoding._packets())
    pictures = [picture for packet in packets for picture in decoder.decode(packet)]
    keyframes = sum(packet.is_keyframe for packet in packets)
    assert len(pictures) == keyframes < 60 and all(map(is_on_gpu, pictures))
    decoding.close()


def test_what_a_decoder_still_holds_is_placed_as_the_others(make_clip: MakeClip) -> None:
    decoding = Decoding(make_clip("a.mp4", frames=9, options={"bf": "2"}), 1)
    decoder = staying().of_camera(decoding._stream)
    packets = [packet for packet in decoding._packets() if packet.size]
    before = [picture for packet in packets for picture in decoder.decode(packet)]
    rest = decoder.rest()
    assert rest and len(before) + len(rest) == 9 and all(map(is_on_gpu, rest))
    decoding.close()


def test_whether_pictures_can_stay_is_asked_only_where_a_gpu_decodes() -> None:
    def asked() -> str | None:
        raise AssertionError("nobody needs to know")

    GpuDecoding("software").keep_pictures(asked)


def test_the_context_that_all_share_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = list[bool]()

    def enter(works: bool) -> bool:
        entered.append(works)
        return works

    monkeypatch.setattr("pipeline.sources.gpu.enter_shared_context", lambda: enter(True))
    primary, current = {"primary_ctx": "1"}, {"current_ctx": "1", "primary_ctx": "0"}
    ways = [(way.options, way.is_hw_owned) for way in _accelerators(True)]
    assert ways == [(primary, True), (current, True), (primary, False), ({}, False)]
    assert entered == [True]
    ways = [(way.options, way.is_hw_owned) for way in _accelerators(False)]
    assert ways == [(primary, False), ({}, False)]
    assert entered == [True], "torch is not needed for pictures that do not stay"
    monkeypatch.setattr("pipeline.sources.gpu.enter_shared_context", lambda: enter(False))
    assert [way.is_hw_owned for way in _accelerators(True)] == [False, False]


@without_gpu
def test_without_a_gpu_there_is_no_context_to_enter() -> None:
    assert not enter_shared_context()


def test_a_decoder_that_could_be_opened_elsewhere_only_says_so(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.pipeline.stand_in_chip.on_gpu", lambda picture: picture)
    frames, source = play(make_clip("a.mp4"), staying())
    assert numbers(frames) == [*range(12)]
    assert source.stats.decoded_by and source.stats.decoded_by.why == (
        "as asked for; pictures are copied to main memory, because its decoder has no place in "
        "the CUDA context of the engine"
    )


# The doctor ---------------------------------------------------------------------------------------


def test_the_doctor_shows_whether_pictures_can_stay(
    seen: Seen, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip("a.mp4", size=(96, 64), frames=6)
    monkeypatch.setattr(staying_module, "trouble_of_kernels", lambda: None)
    monkeypatch.setattr(staying_module, "trouble_of_drawing", lambda: None)
    assert look_at_staying(path, Chips()) == {
        "stay": True,
        "why_copied": None,
        "same_images": True,
        "draws": True,
        "why_drawn_here": None,
    }
    assert not any(seen.downloads)
    found = look_at_staying(path, Chips(options={"fails_at": 3}))
    assert (found["stay"], found["same_images"], found["draws"]) == (False, None, None)
    monkeypatch.setattr(staying_module, "trouble_of_drawing", lambda: "it fails in /home/me")
    found = look_at_staying(path, Chips())
    assert (found["stay"], found["draws"]) == (True, False)
    assert found["why_drawn_here"].startswith("it fails in ") and "/me" not in str(found)
    monkeypatch.setattr(on_gpu, "CHROMA_SHIFT_X", 30.0)
    assert look_at_staying(path, Chips())["same_images"] is False
    monkeypatch.setattr(staying_module, "trouble_of_kernels", lambda: "there is no Triton")
    assert look_at_staying(path, Chips()) == {
        "stay": False,
        "why_copied": "there is no Triton",
        "same_images": None,
        "draws": None,
        "why_drawn_here": None,
    }
