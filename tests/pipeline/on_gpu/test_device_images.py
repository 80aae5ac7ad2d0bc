"""Images that lie on the GPU as input of its engines, on stand-ins that keep streams apart."""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")

import torch

from pipeline.engines.contract import check_images
from pipeline.frame import Batch
from pipeline.gpu.images import DeviceImages, host_images
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.placement import Placement
from pipeline.propose import propose
from tests.pipeline.frames import blank
from tests.pipeline.gpu import install
from tests.pipeline.model_files import HEIGHT, WIDTH, images, load, write_model
from tests.pipeline.stand_in_cuda import StandInCuda
from tests.pipeline.stand_in_torch_cuda import StandInTorchCuda
from tests.pipeline.test_program_cuda import (
    HASTY,
    HASTY_COPIES,
    HASTY_WORK,
    LAZY,
    assert_right,
    runner,
)
from tests.pipeline.test_program_cuda import images as small_images

STREAMS = pytest.mark.parametrize("hasty", [LAZY, HASTY_COPIES, HASTY_WORK, HASTY])
COUNTS = [1, 3, 2, 3, 1, 1, 2, 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


def on_device(given: np.ndarray) -> DeviceImages:
    return DeviceImages(torch.from_numpy(given))


# What they are ------------------------------------------------------------------------------------


def test_they_say_of_themselves_what_an_array_does(model: ModelFile) -> None:
    given = images(3)
    there = on_device(given)
    assert (there.shape, there.ndim, there.dtype, len(there)) == (
        *(given.shape, 4, given.dtype, 3),
    )
    assert there.address == given.ctypes.data
    check_images(there, model, ((HEIGHT, WIDTH),), 3)
    with pytest.raises(ValueError, match="1 to 2 images, got 3"):
        check_images(there, model, ((HEIGHT, WIDTH),), 2)
    with pytest.raises(ValueError, match=r"uint8 .* got float32"):
        check_images(DeviceImages(there.tensor.float()), model, ((HEIGHT, WIDTH),), 3)
    with pytest.raises(ValueError, match="contiguous"):
        DeviceImages(there.tensor.flip(3).transpose(1, 2))


def test_a_batch_takes_them_and_checks_them_as_others() -> None:
    frames = (blank(16, 8), blank(16, 8))
    place = (Placement.stretch((8, 16), (4, 8)),) * 2
    assert len(Batch(frames, on_device(np.zeros((2, 4, 8, 3), np.uint8)), place).images) == 2
    with pytest.raises(ValueError, match=r"images must be \(2, H, W, 3\), got \(1, 4, 8, 3\)"):
        Batch(frames, on_device(np.zeros((1, 4, 8, 3), np.uint8)), place)
    with pytest.raises(ValueError, match="images must be uint8, got int16"):
        Batch(frames, on_device(np.zeros((2, 4, 8, 3), np.int16)), place)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_engines_of_a_cpu_never_take_them_for_numbers(model: ModelFile, name: Any) -> None:
    there = on_device(images(1))
    with load(model, name, batch=1) as engine:
        assert not engine.on_gpu
        with pytest.raises(ValueError, match=r"lie on a GPU.*decoder: software"):
            engine.submit(there)
    with pytest.raises(ValueError, match="lie on a GPU"):
        host_images(there)
    batch = Batch((blank(16, 8),), there, (Placement.stretch((8, 16), (HEIGHT, WIDTH)),))
    with pytest.raises(ValueError, match="lie on a GPU"):
        next(propose([batch], lambda image: np.zeros((0, 4), np.float32), 3))


# A program of torch -------------------------------------------------------------------------------


def made_later(cuda: Any, making: Any, target: torch.Tensor, content: torch.Tensor) -> Any:
    """Images that are written when the stream `making` comes to it, and the event that tells."""
    event = cuda.event()
    cuda.copy(target, content, making)
    cuda.record(event, making)
    return DeviceImages(target, event)


@STREAMS
@pytest.mark.parametrize("making_is_hasty", [True, False])
def test_a_program_waits_for_images_that_the_gpu_is_still_making(
    hasty: tuple[int, ...], making_is_hasty: bool
) -> None:
    cuda = StandInTorchCuda((*hasty, *((2,) if making_is_hasty else ())))
    calls = runner(cuda)
    making = cuda.stream()  # the third
    given = [small_images(n, seed) for seed, n in enumerate(COUNTS)]
    pending = []
    for n, one in enumerate(given):
        rubbish = torch.full_like(one, 99)
        # Every third call brings images of the host, which take the same places.
        there = one if n % 3 == 2 else made_later(cuda, making, rubbish, one)
        pending.append(calls.submit([there]))
    for answer, one in reversed(list(zip(pending, given, strict=True))):
        assert_right(answer.result(), one)
    calls.close()


def test_images_are_kept_until_the_answer_is_there_and_no_longer() -> None:
    calls = runner(StandInTorchCuda())
    there = DeviceImages(small_images(3, 1))
    kept = weakref.ref(there)
    pending = calls.submit([there])
    del there
    assert kept() is not None
    assert_right(pending.result(), small_images(3, 1))
    assert kept() is None
    calls.close()


# TensorRT -----------------------------------------------------------------------------------------


def device_images(cuda: StandInCuda, given: np.ndarray, making: Any) -> DeviceImages:
    """Images in the stand-in's memory, written when the stream comes to it."""
    address = cuda.cudaMalloc(given.nbytes)[1]
    block = (ctypes.c_uint8 * given.nbytes).from_address(address)
    tensor = torch.frombuffer(block, dtype=torch.uint8).view(given.shape)
    event = cuda.cudaEventCreateWithFlags(1)[1]
    cuda.append(making, lambda: tensor.copy_(torch.from_numpy(given)))
    assert cuda.cudaEventRecord(event, making) == (0,)
    return DeviceImages(tensor, SimpleNamespace(cuda_event=event))


@STREAMS
@pytest.mark.parametrize("graphs", [True, False])
def test_tensorrt_waits_for_images_that_the_gpu_is_still_making(
    model: ModelFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hasty: tuple[int, ...],
    graphs: bool,
) -> None:
    straw = install(monkeypatch, tmp_path / "plans", hasty)
    straw.trt.faults.capture = not graphs
    with load(model, "onnxruntime", batch=3) as other:
        wanted = [other.infer(images(n, seed)) for seed, n in enumerate(COUNTS)]
    with straw.engine(model) as engine:
        assert engine.on_gpu
        making = straw.cuda.cudaStreamCreateWithFlags(1)[1]
        before = straw.cuda.copied["up"]
        there = [device_images(straw.cuda, images(n, s), making) for s, n in enumerate(COUNTS)]
        pending = [engine.submit(one) for one in there]
        assert straw.cuda.copied["up"] == before
        assert straw.cuda.copied["across"] == sum(COUNTS) * HEIGHT * WIDTH * 3
        kept = [weakref.ref(one) for one in there]
        there.clear()
        assert all(one() is not None for one in kept)
        for answer, right in reversed(list(zip(pending, wanted, strict=True))):
            found = answer.result()
            for name in right:
                np.testing.assert_allclose(
                    found[name].astype(float), right[name].astype(float), atol=1e-4
                )
        assert all(one() is None for one in kept)
        assert straw.cuda.cudaStreamSynchronize(making) == (0,)
