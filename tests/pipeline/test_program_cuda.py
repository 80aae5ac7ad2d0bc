"""Calls of a program on a GPU: what is copied when, on a stand-in; and the calls of real torch."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")

import torch

from pipeline.engines.program_cuda import CudaRunner, Port, TorchCuda
from pipeline.errors import EngineError
from tests.pipeline.stand_in_torch_cuda import StandInTorchCuda

LAZY, HASTY_COPIES, HASTY_WORK, HASTY = (), (0,), (1,), (0, 1)
SHAPE = (4, 6, 3)


def brightness(images):
    """A network: sum and extremes of each image."""
    flat = images.flatten(1).to(torch.int64)
    return flat.sum(1), torch.stack([flat.amin(1), flat.amax(1)], 1).float()


def runner(cuda: StandInTorchCuda, sizes=(1, 2, 3)) -> CudaRunner:
    inputs = [Port("frames", SHAPE, torch.uint8)]
    outputs = [Port("sum", (), torch.int64), Port("extremes", (2,), torch.float32)]
    return CudaRunner(cuda, dict.fromkeys(sizes, brightness), inputs, outputs)


def images(n: int, seed: int):
    shape = (n, *SHAPE)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def assert_right(found, given) -> None:
    for name, wanted in zip(("sum", "extremes"), brightness(given), strict=True):
        np.testing.assert_array_equal(found[name], wanted.numpy())


@pytest.mark.parametrize("hasty", [LAZY, HASTY_COPIES, HASTY_WORK, HASTY])
@pytest.mark.parametrize("graphs", [True, False])
def test_calls_under_way_keep_apart_however_the_streams_get_on(hasty, graphs) -> None:
    cuda = StandInTorchCuda(hasty)
    cuda.no_capture = None if graphs else "operation not permitted when stream is capturing"
    calls = runner(cuda)
    given = [images(n, seed) for seed, n in enumerate([1, 3, 2, 3, 1, 1, 2, 3, 3, 2])]
    for _ in range(2):  # the second time memory is used again
        pending = []
        for one in given:
            lent = one.clone()
            pending.append(calls.submit([lent]))
            lent[:] = 7  # a copy was taken
        for answer, one in reversed(list(zip(pending, given, strict=True))):
            assert_right(answer.result(), one)
    assert cuda.launches == (2 * len(given) if graphs else 0)
    calls.close()


def test_the_next_images_are_copied_while_a_batch_is_computed() -> None:
    cuda = StandInTorchCuda(HASTY_COPIES)
    calls = runner(cuda)
    copying, computing = cuda.machine.streams.values()
    for seed in range(2):
        calls.submit([images(3, seed)])
        assert computing.waiting and not copying.waiting
    calls.submit([images(3, 2)])
    assert copying.waiting  # both places are in use
    calls.close()


def test_each_batch_size_has_a_graph_for_each_place_and_a_call_takes_the_next_larger() -> None:
    cuda, sizes = StandInTorchCuda(), list[int]()

    def watched(given):
        sizes.append(len(given))
        return brightness(given)

    outputs = [Port("sum", (), torch.int64), Port("extremes", (2,), torch.float32)]
    calls = CudaRunner(
        cuda, dict.fromkeys((1, 2, 4), watched), [Port("frames", SHAPE, torch.uint8)], outputs
    )
    assert cuda.captured_works == 3 * 2 and calls.no_graphs is None
    for n, size in ((1, 1), (2, 2), (3, 4), (4, 4)):
        assert_right(calls.submit([images(n, n)]).result(), images(n, n))
        assert sizes[-1] == size
    calls.close()


def test_what_cannot_be_captured_is_run_all_the_same_and_the_reason_is_one_line() -> None:
    cuda = StandInTorchCuda()
    cuda.no_capture = "operation not permitted when stream is capturing"
    calls = runner(cuda)
    assert calls.no_graphs == cuda.no_capture and cuda.launches == 0
    assert_right(calls.submit([images(2, 5)]).result(), images(2, 5))
    calls.close()


def test_answers_are_the_callers_own_and_the_gpus_seconds_are_told_once() -> None:
    calls, seconds = runner(StandInTorchCuda()), list[float]()
    first = calls.submit([images(3, 1)], seconds.append)
    found = first.result()
    kept = {name: rows.copy() for name, rows in found.items()}
    calls.submit([images(3, 2)]).result()
    for name, rows in kept.items():
        np.testing.assert_array_equal(found[name], rows)
    assert first.result() is found and len(seconds) == 1 and seconds[0] >= 0
    calls.close()


def test_a_gpu_that_fails_is_an_engine_error_with_a_remedy() -> None:
    cuda = StandInTorchCuda()
    calls = runner(cuda)
    pending = calls.submit([images(1, 1)])
    cuda.failing = "CUDA error: an illegal memory access was encountered\nCompile with ..."
    with pytest.raises(EngineError, match=r"illegal memory access was encountered\); look at nvid"):
        pending.result()
    cuda.failing = None
    calls.close()
    for late in (lambda: calls.submit([images(1, 1)]), pending.result):
        with pytest.raises(EngineError, match="was closed"):
            late()


class CudaThatEndsNoCapture:
    """As much of ``torch.cuda`` as a capture takes; one that fails leaves its stream current."""

    def __init__(self) -> None:
        self.current = "default"
        self.fails = False
        self.CUDAGraph, self.graph_pool_handle = object, object
        self.current_stream = lambda: self.current

    def set_stream(self, stream: str) -> None:
        self.current = stream

    @contextmanager
    def stream(self, stream: str):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph: object, pool: object, stream: str, mode: str):
        before, self.current = self.current, stream
        yield
        if self.fails:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.current = before


def test_a_capture_that_fails_leaves_the_current_stream_as_it_was() -> None:
    cuda = CudaThatEndsNoCapture()
    cuda.fails = True
    with pytest.raises(RuntimeError, match="during capture"):
        TorchCuda(SimpleNamespace(cuda=cuda, no_grad=torch.no_grad)).captured(int, "computing")
    assert cuda.current == "default"


def test_nothing_that_runs_on_a_gpu_is_kept_for_gradients() -> None:
    cuda, found = CudaThatEndsNoCapture(), list[tuple[str, bool]]()
    calls = TorchCuda(SimpleNamespace(cuda=cuda, no_grad=torch.no_grad))
    for give in (calls.run, calls.captured):
        give(lambda: found.append((cuda.current, torch.is_grad_enabled())), "computing")
    assert found == [("computing", False)] * 2 and cuda.current == "default"


def test_the_stand_in_has_the_face_of_the_real_one() -> None:
    def methods(kind):
        functions = inspect.getmembers(kind, inspect.isfunction)
        return {n: list(inspect.signature(f).parameters) for n, f in functions if n[0] != "_"}

    assert methods(StandInTorchCuda) == methods(TorchCuda)


def test_torch_has_what_is_called_by_name_and_arguments() -> None:
    cuda = torch.cuda
    assert {"blocking", "enable_timing"} <= set(inspect.signature(cuda.Event.__new__).parameters)
    for kind, names in (
        (cuda.Stream, ("wait_event", "synchronize")),
        (cuda.Event, ("record", "synchronize", "elapsed_time")),
        (cuda.CUDAGraph, ("replay",)),
    ):
        assert all(callable(getattr(kind, name)) for name in names)
    graph = list(inspect.signature(cuda.graph.__init__).parameters)
    assert graph[1:5] == ["cuda_graph", "pool", "stream", "capture_error_mode"]
    assert callable(cuda.graph_pool_handle) and callable(cuda.synchronize)
    assert callable(cuda.current_stream) and callable(cuda.set_stream)


@pytest.mark.needs_cuda
def test_a_real_gpu_answers_as_the_stand_in_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this torch finds no GPU")
    calls = runner(TorchCuda(torch))
    pending = [(calls.submit([one]), one) for one in (images(n, n) for n in (1, 3, 2, 3))]
    for answer, one in pending:
        assert_right(answer.result(), one)
    calls.close()
