"""Pictures that stay on the GPU until NVENC has them: everything but the two chips.

Kernels are run by Triton's interpreter, and an encoder that takes what lies on a GPU is x264 here.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.drawing.render import render
from pipeline.errors import EngineError
from pipeline.frame import Detections, Result
from pipeline.gpu import canvas as canvas_module
from pipeline.gpu import memory, trial
from pipeline.gpu.pictures import is_on_gpu, planes_on_gpu
from pipeline.settings import RenderSettings, VideoSettings
from pipeline.sinks import SinkTarget, encoder_choice, open_sink
from pipeline.sinks import encoder as encoder_module
from pipeline.sinks.encoder import Encoder
from pipeline.sinks.encoding import Encoding
from pipeline.sinks.footage import FootageEncoder
from pipeline.sinks.nvenc import NVENC, trouble_of_nvenc
from pipeline.sinks.video import VideoSink
from pipeline.yuv import Colours, own_yuv420p, planes
from tests.pipeline.stand_in_gpu_picture import GpuPicture
from tests.pipeline.written_video import NAMES, numbers, result, times

TARGET = SinkTarget("a", NAMES, Fraction(25))
FOUND = Detections(
    np.array([[8, 60, 60, 90]], np.float32), np.array([0.9], np.float32), np.array([2])
)
without_nvenc = pytest.mark.skipif(trouble_of_nvenc() is None, reason="NVENC opens here")


class OwnGpuPicture(GpuPicture):
    """One that may be written to: what is said of it is said of what lies behind."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_picture", "downloads", "format"):
            super().__setattr__(name, value)
        else:
            setattr(self._picture, name, value)


@pytest.fixture(autouse=True)
def passes(monkeypatch: pytest.MonkeyPatch, drawing: None) -> None:
    """A GPU that has passed its trial."""
    monkeypatch.setattr(canvas_module, "TILE", (128, 128))
    monkeypatch.setattr(trial, "trouble_of_drawing", lambda: None)


@pytest.fixture
def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn says that it lies on the GPU, as its source does."""
    made = memory._picture
    monkeypatch.setattr(memory, "_picture", lambda *given: OwnGpuPicture(made(*given)))


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the trial of NVENC opened."""
    monkeypatch.setattr(encoder_choice, "trouble_of_nvenc", lambda: None)


class StrawStream:
    """An encoder's stream that takes pictures on a GPU, and notes what it is given."""

    def __init__(self, stream: Any) -> None:
        self.real, self.given = stream, list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def encode(self, picture: Any) -> Any:
        if picture is None:
            return self.real.encode(None)
        self.given.append(picture)
        inner = own_yuv420p(picture._picture if is_on_gpu(picture) else picture)
        inner.pict_type = picture.pict_type
        return self.real.encode(inner)


@pytest.fixture
def straw(monkeypatch: pytest.MonkeyPatch, opens: None, stays: None) -> list[StrawStream]:
    """NVENC that takes pictures on a GPU; the streams that were opened."""
    streams, prepared = list[StrawStream](), encoder_module._prepared

    def prepared_here(encoding: Any, *rest: Any, on_gpu: bool = False) -> Any:
        if not on_gpu:
            return prepared(encoding, *rest)
        nowhere, stream = prepared(encoding.otherwise, *rest)
        streams.append(StrawStream(stream))
        return nowhere, streams[-1]

    def template(self: Encoder) -> Any:
        return getattr(self._stream, "real", self._stream)

    monkeypatch.setattr(encoder_module, "_prepared", prepared_here)
    monkeypatch.setattr(encoder_module.Encoder, "template", property(template))
    return streams


def shot(number: int, size: tuple[int, int] = (128, 96), found: Detections = FOUND) -> Result:
    """A numbered picture on the GPU, in which something is found."""
    made = result(number, size=size)
    picture = made.frame.picture.reformat(format="nv12", threads=1)
    Colours(6, full_range=False).tag(picture)
    picture.pts, picture.time_base = made.frame.pts, made.frame.time_base
    frame = replace(made.frame, picture=GpuPicture(picture))
    return replace(made, frame=frame, detections=found)


def drawn(results: list[Result], stays: bool = True) -> list[Result]:
    settings = RenderSettings(labels=False, scores=False)
    return list(render(results, NAMES, settings, stays=lambda _: stays))


def written(path: Path, results: list[Result], **settings: Any) -> dict[str, Any]:
    with VideoSink(path, TARGET, VideoSettings(**settings)) as sink:
        for each in results:
            sink.write(each)
    return sink.report()


def pictures(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def psnr(one: av.VideoFrame, other: av.VideoFrame) -> float:
    pairs = zip(planes(one), planes(other), strict=True)
    errors = np.concatenate([(a.astype(float) - b).ravel() ** 2 for a, b in pairs])
    return float(10 * np.log10(255**2 / max(errors.mean(), 1e-9)))


def test_what_nvenc_is_given_never_leaves_the_gpu_and_shows_what_the_cpu_draws(
    straw: list[StrawStream], tmp_path: Path
) -> None:
    shots = [shot(n) for n in range(12)]
    results = drawn(shots)
    report = written(tmp_path / "a.mp4", results)
    assert numbers(tmp_path / "a.mp4") == [*range(12)]
    assert times(tmp_path / "a.mp4") == [Fraction(n, 25) for n in range(12)]
    assert report["encoder"] == NVENC and report["encoder_why"].endswith("the GPU's memory")
    given = straw[0].given
    everywhere = [*given, *(each.annotated for each in results), *(s.frame.picture for s in shots)]
    assert len(given) == 12 and all(map(is_on_gpu, given))
    assert sum(picture.downloads for picture in everywhere) == 0
    wanted = drawn([shot(n) for n in range(12)], stays=False)
    for ours, theirs in zip(pictures(tmp_path / "a.mp4"), wanted, strict=True):
        assert psnr(ours, theirs.annotated) > 36


def test_a_picture_that_nothing_is_drawn_on_is_copied_on_the_gpu(
    straw: list[StrawStream], tmp_path: Path
) -> None:
    shots = [shot(n) for n in range(5)]
    written(tmp_path / "a.mp4", shots)
    assert numbers(tmp_path / "a.mp4") == [*range(5)]
    given = straw[0].given
    assert sum(p.downloads for p in (*given, *(s.frame.picture for s in shots))) == 0
    addresses = {planes_on_gpu(p).luma.data_ptr() for p in given}
    assert not addresses & {planes_on_gpu(s.frame.picture).luma.data_ptr() for s in shots}


def test_keyframes_are_other_pictures_of_the_same_memory(straw: list[StrawStream]) -> None:
    encoder = FootageEncoder(TARGET, VideoSettings(), 10.0, at_once=True)
    results = drawn([shot(n) for n in range(6)])
    footage = [each for n, r in enumerate(results) for each in encoder.encode(r, begin=n == 3)]
    assert [each.moment.index for each in footage] == [*range(6)]
    assert [each.packet.is_keyframe for each in footage] == [n in (0, 3) for n in range(6)]
    for n, (given, made) in enumerate(zip(straw[0].given, results, strict=True)):
        assert (given is made.annotated) == (n not in (0, 3))
        at = planes_on_gpu(given).luma.data_ptr(), planes_on_gpu(made.annotated).luma.data_ptr()
        assert at[0] == at[1]
        assert made.annotated.pict_type == 0


def test_what_comes_from_software_in_between_is_encoded_too(
    straw: list[StrawStream], tmp_path: Path
) -> None:
    """A decoder on the GPU that gives up, and one picture of another size."""
    results = drawn([*map(shot, range(4)), result(4), result(5), shot(6)])
    odd = drawn([shot(7, size=(192, 144))])
    report = written(tmp_path / "a.mp4", results + odd)
    assert numbers(tmp_path / "a.mp4") == [*range(8)]
    assert report["frames_resized"] == 1
    assert [is_on_gpu(picture) for picture in straw[0].given] == [
        *(True, True, True, True, False, False, True, False)
    ]


def test_footage_of_another_size_is_encoded_anew(straw: list[StrawStream]) -> None:
    encoder = FootageEncoder(TARGET, VideoSettings(), 10.0, at_once=True)
    sizes = [(128, 96), (128, 96), (192, 144)]
    for n, size in enumerate(sizes):
        (footage,) = encoder.encode(picture_of_size(n, size))
        assert footage.moment.index == n
    assert [len(stream.given) for stream in straw] == [2, 1]


def picture_of_size(number: int, size: tuple[int, int]) -> Result:
    return drawn([shot(number, size)])[0]


def test_an_encoder_that_was_opened_for_main_memory_has_pictures_copied(
    straw: list[StrawStream], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "start", start_otherwise)
    path = tmp_path / "a.mp4"
    with VideoSink(path, TARGET, VideoSettings()) as sink:
        assert sink.takes_gpu_pictures
        sink.write(result(0))
        assert not sink.takes_gpu_pictures
        for each in drawn([shot(1), shot(2)]):
            sink.write(each)
    assert numbers(path) == [0, 1, 2] and not straw


def start_otherwise(encoding: Any, picture: Any, time_base: Fraction) -> Any:
    """Open x264 where NVENC is asked for in main memory."""
    nowhere, stream = encoder_module._prepared(
        encoding.otherwise or encoding, own_yuv420p(picture), time_base
    )
    nowhere.start_encoding()
    return nowhere, stream


def test_nvenc_that_does_not_take_them_gets_them_in_main_memory(
    opens: None,
    stays: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_given: Any) -> Any:
        raise av.ExternalError(0, "Generic error in an external library")

    monkeypatch.setattr(encoder_module, "start_on_gpu", refuses)
    monkeypatch.setattr(encoder_module, "start", start_otherwise)
    path = tmp_path / "a.mp4"
    with VideoSink(path, TARGET, VideoSettings()) as sink:
        for n in range(6):
            sink.write(drawn([shot(n)], stays=sink.takes_gpu_pictures)[0])
            assert not sink.takes_gpu_pictures
    report = sink.report()
    assert numbers(path) == [*range(6)] and times(path)[5] == Fraction(5, 25)
    assert report["encoder"] == NVENC and "it refuses the GPU's (Generic" in report["encoder_why"]


@without_nvenc
def test_x264_takes_over_where_nvenc_does_not_open_after_all(
    opens: None, caplog: pytest.LogCaptureFixture
) -> None:
    """On this machine it really does not: FFmpeg's own errors are those that are told."""
    encoding = Encoding.choose(VideoSettings(), (96, 128), Fraction(25), live=False, cores=2)
    given = [shot(n).frame.picture for n in range(5)]
    encoder = Encoder(given[0], Fraction(1, 25), encoding)
    assert not encoder.takes_gpu_pictures and encoder.encoding.encoder == "libx264"
    assert "h264_nvenc does not open for 128x96" in str(encoder.encoding.refused)
    assert caplog.text.count("h264_nvenc") == 1
    packets = [packet for picture in given for packet in encoder.encode(picture)]
    assert [packet.pts for packet in packets + encoder.flush()] == [*range(5)]


@pytest.mark.parametrize("out", ["a.mp4", "segments/%H%M%S.mp4", "live.m3u8", "rtmp://host/a"])
def test_sinks_that_encode_take_pictures_on_a_gpu_where_nvenc_opens(
    out: str, tmp_path: Path, opens: None
) -> None:
    out = out if "://" in out else f"{tmp_path}/{out}"
    assert open_sink(out, TARGET, VideoSettings()).takes_gpu_pictures
    assert not open_sink(out, TARGET, VideoSettings(encoder="libx264")).takes_gpu_pictures


def test_only_pictures_on_a_gpu_are_asked_about() -> None:
    def asked(_source: str) -> bool:
        raise AssertionError("asked of a picture in main memory")

    (each,) = render([result(0)], NAMES, RenderSettings(), stays=asked)
    assert each.annotated is not None and each.annotated.format.name == "yuv420p"


@pytest.mark.parametrize("size", [(129, 96), (128, 97)])
def test_a_picture_of_odd_size_is_drawn_on_in_main_memory(size: tuple[int, int]) -> None:
    odd = shot(1, size)
    (each,) = drawn([odd])
    assert each.annotated is not None and each.annotated.format.name == "yuv420p"
    assert odd.frame.picture.downloads == 1


def test_the_trial_passes_where_the_kernels_are_right_and_not_where_they_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    assert trial.draws_alike(torch.device("cpu"))
    monkeypatch.setattr(canvas_module, "BLEND", canvas_module.FILL)
    assert not trial.draws_alike(torch.device("cpu"))


def test_a_gpu_that_fails_in_mid_run_is_told_of_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_given: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory\nmore of it")

    monkeypatch.setattr(canvas_module, "kernels", fails)
    with pytest.raises(EngineError, match=r"failed in mid-run \(CUDA error: out of memory\); `vid"):
        drawn([shot(1)])
