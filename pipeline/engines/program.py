"""A program of torch: the engine of a machine with torch and no TensorRT.

It runs what ``python -m models.program`` has written, the same static graph as the ONNX file, on an
NVIDIA GPU or on the CPU. torch is imported when this engine is asked for, not before.

The part for GPUs has never met one: see `pipeline.engines.program_cuda`.

| file | holds |
|---|---|
| `program_graph` | the program, read and put into a precision |
| `program_compile` | machine code of it, made or found |
| `program_tools` | what torch needs for that, and for the GPU |
| `program_cuda` | calls under way on a GPU |
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.cores import processor_flags, usable_cores
from pipeline.engines.cache_folder import cache_folder
from pipeline.engines.contract import (
    REGIONS,
    Answered,
    Images,
    Outputs,
    Pending,
    Regions,
    Size,
    check_images,
    check_outputs,
    no_images,
)
from pipeline.engines.parity import BY_CPU, Bounds, compare, golden_input
from pipeline.engines.precision import choose_gpu_precision, choose_precision
from pipeline.engines.program_compile import Call, Compiled, NotCompiled, ProgramCompiler, quiet
from pipeline.engines.program_cuda import CudaRunner, Port, TorchCuda, gpu_errors
from pipeline.engines.program_graph import (
    first_line,
    in_precision,
    on_device,
    read_program,
)
from pipeline.engines.program_tools import unused_gpu
from pipeline.errors import ConfigError, EngineError, EngineUnavailable
from pipeline.gpu.images import DeviceImages, HostImages, host_images
from pipeline.machine import instruction_sets
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings

GPU_BATCH = 4  # of recordings; a guess
# Machine code rounds half precision at other places than torch does operator by operator.
ROUGHLY = Bounds(iou=0.8, score=0.1, mask=0.1, pixels=0.97)

Array = npt.NDArray[Any]


class ProgramEngine:
    """Answers within `submit` on a CPU, keeps calls under way on a GPU; see `Engine`.

    Args:
        model: The model file.
        settings: Precision, batch, threads, and whether it may be compiled; 0 and ``"auto"`` are
            resolved here.
        latency: A camera's images, which do not wait for others, unless a batch is asked for.
        because: Why this engine was chosen.

    Raises:
        ConfigError: The file is no program, or the device does not have the precision.
        EngineUnavailable: torch is not installed, or the CPU lacks the precision.
        ModelMismatch: torch cannot read it, or it is not what it says.
        EngineError: The GPU fails.
    """

    name = "program"
    busy_seconds = 0.0
    calls = 0

    def __init__(
        self, model: ModelFile, settings: EngineSettings, *, latency: bool, because: str
    ) -> None:
        started = time.perf_counter()
        if not model.is_program:
            raise ConfigError(
                f"--engine program runs programs of torch, and {str(model.path)!r} is an ONNX "
                f"file; make one with `python -m models.program {model.path} --out "
                f"{model.path.with_suffix('.pt2').name}`, or use --engine auto"
            )
        self._torch = torch = import_torch()
        self._model = self.model = model
        self._settings = settings
        on_gpu = bool(torch.cuda.is_available())
        self.on_gpu, self._device = on_gpu, "cuda" if on_gpu else "cpu"
        self.precision, why = self._choose_precision()
        self.batch = settings.batch or (GPU_BATCH if on_gpu and not latency else 1)
        self.sizes_hw: tuple[Size, ...] = (model.input_size_hw,)
        self.in_flight = 2 if on_gpu else 1
        torch.set_num_threads(settings.threads or usable_cores())
        self._module = cache(self._read)
        self._runner: CudaRunner | None = None
        how = self._prepare_gpu() if on_gpu else self._prepare_cpu()
        self._module.cache_clear()
        unused = unused_gpu(torch)
        self.reason = f"{because}; {why}, {how}" + (f"; {unused}" if unused else "")
        check_outputs(model, self.infer(*self._nothing(self.batch)), self.batch)
        self.busy_seconds, self.calls = 0.0, 0
        self.load_seconds = time.perf_counter() - started

    def submit(self, images: Images, regions: Regions | None = None) -> Pending:
        """Compute now on a CPU; hand the images to a GPU and return at once."""
        check_images(images, self._model, self.sizes_hw, self.batch, regions)
        if self._runner:
            there = [images] if isinstance(images, DeviceImages) else [self._tensor(images)]
            there += [] if regions is None else [self._tensor(regions)]
            return self._runner.submit(there, self._answered)
        given = _arrays(host_images(images), regions)
        started = time.perf_counter()
        outputs = self._run(self._call, given, self._fixed)
        self._answered(time.perf_counter() - started)
        return Answered(outputs)

    def infer(self, images: Images, regions: Regions | None = None) -> Outputs:
        """Start, wait, and return the answer."""
        return self.submit(images, regions).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._runner:
            self._runner.close()

    def _answered(self, seconds: float) -> None:
        """Count a call; one follows the other, so that their times add up."""
        self.busy_seconds += seconds
        self.calls += 1

    def _choose_precision(self) -> tuple[str, str]:
        asked = self._settings.precision
        if self._device == "cuda":
            return choose_gpu_precision(self._model, asked)
        has_bf16 = bool((instruction_sets() or {}).get("bf16"))
        return choose_precision(self._model, asked, has_bf16)

    def _read(self) -> Any:
        """The graph, on its device and in its precision."""
        module = in_precision(self._torch, read_program(self._torch, self._model), self.precision)
        return on_device(self._torch, module, self._device)

    def _prepare_cpu(self) -> str:
        """Sets how a call is computed; says how. What is compiled is for batches of one size."""
        self._call, how, is_compiled = self._compiled_or_not(self.batch)
        self._fixed = self.batch if is_compiled else 0
        return how

    @gpu_errors()
    def _prepare_gpu(self) -> str:
        """The same with a runner that has a call for each batch size."""
        self._fixed = 0
        with quiet():
            for backend in (self._torch.backends.cudnn, self._torch.backends.cuda.matmul):
                backend.allow_tf32 = False  # f32 is to be f32
            self._torch.backends.cudnn.benchmark = True  # shapes stay, so it pays to try ways
        calls, is_compiled = dict[int, Call](), True
        for size in batch_sizes(self.batch):
            if is_compiled:
                calls[size], how, is_compiled = self._compiled_or_not(size)
            else:  # what fails for one size fails for the others, a minute later
                calls[size] = self._module()
        self._runner = CudaRunner(TorchCuda(self._torch), calls, *self._ports(calls[1]))
        no_graphs = self._runner.no_graphs
        graphs = f"without CUDA graphs, because {no_graphs}" if no_graphs else "in CUDA graphs"
        return f"{how}, {graphs}"

    def _compiled_or_not(self, size: int) -> tuple[Call, str, bool]:
        """What computes batches of `size`, what is to be said of it, and whether it is compiled."""
        compiler = ProgramCompiler(self._torch, cache_folder(self._settings.cache), self._facts())
        given = [self._tensor(one).to(self._device) for one in _arrays(*self._nothing(size))]
        try:
            found = compiler.compiled(
                self._model.path.read_bytes(), given, self._module, may_build=self._settings.build
            )
            if found.is_new:
                self._check(found, size)
                found.keep()
        except NotCompiled as refused:
            return self._module(), f"operator by operator, because {refused}", False
        return found.call, "compiled" if found.is_new else "compiled by an earlier run", True

    def _facts(self) -> dict[str, object]:
        """What machine code depends on."""
        torch = self._torch
        on_gpu = self._device == "cuda"
        return {
            "device": torch.cuda.get_device_name() if on_gpu else processor_flags(),
            "capability": torch.cuda.get_device_capability() if on_gpu else None,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
        }

    def _check(self, compiled: Compiled, size: int) -> None:
        """Refuse it unless it finds in drawn streets what torch finds operator by operator."""
        golden = golden_input(self._model, self._model.input_size_hw).repeated(size)
        given = _arrays(*golden)
        bounds = BY_CPU if self.precision == "f32" else ROUGHLY
        wanted, found = self._run(self._module(), given, 0), self._run(compiled.call, given, 0)
        parity = compare(self._model, wanted, found, bounds)
        if not parity.within(bounds):
            why = f"what was compiled finds something else ({parity})"
            compiled.refuse(why)
            raise NotCompiled(why)

    def _run(self, call: Call, given: Sequence[Array], fixed: int) -> Outputs:
        """Compute now; fill up to `fixed` images, if that is not 0."""
        n = len(given[0])
        tensors = [self._tensor(_padded(one, fixed)).to(self._device) for one in given]
        try:
            with self._torch.no_grad():
                found = call(*tensors)
        except RuntimeError as error:
            raise EngineError(f"torch failed in mid-run ({first_line(error)})") from error
        arrays = (one[:n].cpu().numpy() for one in found)
        return dict(zip(self._model.outputs, arrays, strict=True))

    def _tensor(self, array: Array) -> Any:
        """The same memory as a tensor; a copy where Python may only read it."""
        given = np.ascontiguousarray(array)
        return self._torch.from_numpy(given if given.flags.writeable else given.copy())

    def _nothing(self, n: int) -> tuple[HostImages, Regions | None]:
        return no_images(self._model, self._model.input_size_hw, n)

    def _ports(self, call: Call) -> tuple[list[Port], list[Port]]:
        """Inputs and outputs, as one image has them."""
        given = [self._tensor(one).to(self._device) for one in _arrays(*self._nothing(1))]
        with self._torch.no_grad():
            found = call(*given)
        inputs = zip(("frames", REGIONS), given, strict=False)
        outputs = zip(self._model.outputs, found, strict=True)
        ports = [
            [Port(name, tuple(one.shape[1:]), one.dtype) for name, one in side]
            for side in (inputs, outputs)
        ]
        return ports[0], ports[1]


def import_torch() -> Any:
    """The module.

    Raises:
        EngineUnavailable: It is not installed.
        EngineError: It is there and broken.
    """
    try:
        with quiet():
            import torch
    except ImportError as error:
        raise EngineUnavailable(
            f"torch is not installed or cannot be loaded ({error}); run `pip install torch`"
        ) from error
    except OSError as error:
        raise EngineError(
            f"torch is installed and cannot be loaded ({error}); "
            "run `pip install --force-reinstall torch`"
        ) from error
    return torch


def batch_sizes(batch: int) -> tuple[int, ...]:
    """Powers of two below `batch`, and itself: a call pays for fewer than twice its images."""
    return (*(1 << i for i in range((batch - 1).bit_length())), batch)


def _arrays(images: HostImages, regions: Regions | None) -> list[Array]:
    """Both, or the one that there is."""
    return [images] if regions is None else [images, regions]


def _padded(given: Array, size: int) -> Array:
    missing = size - len(given)
    return np.concatenate([given, np.repeat(given[-1:], missing, 0)]) if missing > 0 else given
