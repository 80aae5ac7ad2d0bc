"""OpenVINO on the CPU: the fast engine.

A throughput engine gives every core a stream of its own: two images at once on one core each
cost a fifth less than one image on two cores, and batches of four gain nothing over that. A
latency engine puts all cores on one image. That is the rule; what `pipeline.tune` has measured on
this machine, and what the user asks for, go before it.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.channel import idle
from pipeline.cores import processor_flags, usable_cores
from pipeline.engines.cache_folder import cache_folder
from pipeline.engines.contract import (
    Images,
    Outputs,
    Regions,
    Size,
    check_images,
    check_names,
    check_outputs,
    no_images,
)
from pipeline.engines.int8_form import choose_form
from pipeline.engines.ov_compiler import DEVICE, OpenVinoCompiler
from pipeline.engines.ov_core import openvino, the_core
from pipeline.engines.precision import Precision, choose_precision, named
from pipeline.engines.tuning import Purpose, choose
from pipeline.errors import EngineError, ModelMismatch
from pipeline.gpu.images import host_images
from pipeline.model_file.reading import ModelFile
from pipeline.model_file.sizes import at_size
from pipeline.settings import EngineSettings

Array = npt.NDArray[Any]


class OpenVinoEngine:
    """Keeps any number of inference requests under way; see `Engine` for the attributes.

    Args:
        model: The model file.
        settings: Precision, batch, threads, streams; 0 and ``"auto"`` are resolved here.
        purpose: All cores on one image (a camera) or one core for each (a recording).
        all_sizes: Take images of every size that the file has.
        because: Why this engine was chosen.
    """

    name = "openvino"

    def __init__(
        self,
        model: ModelFile,
        settings: EngineSettings,
        *,
        purpose: Purpose,
        all_sizes: bool,
        because: str,
    ) -> None:
        started = time.perf_counter()
        core = the_core()
        has_bf16 = "BF16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        form = choose_form(model, settings.precision, processor_flags(), has_bf16)
        self.model = model = form.model
        precision, why = choose_precision(model, settings.precision, has_bf16)
        chosen = choose(model, settings, self.name, named(model, precision), purpose)
        settings, latency = chosen.settings, purpose == "camera"
        self.batch = settings.batch or 1
        # A fixed batch is 15 to 30 % faster than a free one; worth the padding of a recording's
        # last batch, but not of a camera's many partial ones.
        self._pads = self.batch == 1 or not latency
        options = _options(precision, settings, latency)
        self.sizes_hw = model.input_sizes_hw if all_sizes else (model.input_size_hw,)
        compiler = OpenVinoCompiler(
            core, openvino.get_version(), options, cache_folder(settings.cache)
        )
        self._compiled = {size: self._compile(compiler, size) for size in self.sizes_hw}
        usual = self._compiled[model.input_size_hw]
        rest = usual.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = named(model, rest)
        self.in_flight = int(usual.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        told = chosen.remark(self.batch, self.in_flight)
        self.reason = f"{because}; {form.told}{why}{told}{compiler.remark}"
        self._free = {size: deque[openvino.InferRequest]() for size in self.sizes_hw}
        self._under_way: set[_Request] = set()
        self._last_end = 0.0
        for size in self.sizes_hw:
            first = self.infer(*no_images(model, size, self.batch))
            check_outputs(model, first, self.batch)
        self.busy_seconds, self.calls = 0.0, 0
        self.load_seconds = time.perf_counter() - started

    on_gpu = False
    busy_seconds = 0.0
    calls = 0

    def submit(self, images: Images, regions: Regions | None = None) -> _Request:
        """Start on the images; returns at once."""
        check_images(images, self.model, self.sizes_hw, self.batch, regions)
        images = host_images(images)
        size_hw = images.shape[1], images.shape[2]
        try:
            request = self._free[size_hw].pop()
        except IndexError:
            request = self._compiled[size_hw].create_infer_request()
        given: tuple[Array, ...] = (images,) if regions is None else (images, regions)
        pending = _Request(self, request, tuple(map(self._padded, given)), len(images))
        self._under_way.add(pending)
        pending.start()
        return pending

    def infer(self, images: Images, regions: Regions | None = None) -> Outputs:
        """Start, wait, and return the answer."""
        return self.submit(images, regions).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        for pending in list(self._under_way):  # they read memory that Python may free
            pending.abandon()
        self._under_way.clear()
        for requests in self._free.values():
            requests.clear()

    def answered(self, pending: _Request, started: float, seconds: float) -> None:
        """Count a request that has ended and take it back; called once by the request."""
        end = started + seconds
        self.busy_seconds += max(0.0, end - max(started, self._last_end))
        self._last_end = max(self._last_end, end)
        self.calls += 1
        self._under_way.discard(pending)
        self._free[pending.size_hw].append(pending.request)

    def _compile(self, compiler: OpenVinoCompiler, size_hw: Size) -> Any:
        model, shapes = self.model, None
        if self._pads or model.smaller_hw:
            n = self.batch if self._pads else -1
            shapes = [[n, *size_hw, 3], [n, model.regions, 4]]
        try:
            return compiler.compile(at_size(model, size_hw), shapes, partial(check_names, model))
        except RuntimeError as error:
            if isinstance(error, EngineError):
                raise
            raise ModelMismatch(
                f"OpenVINO cannot use {str(model.path)!r} ({_first_line(error)}); "
                "export it again or try --engine onnxruntime"
            ) from error

    def _padded(self, given: Array) -> Array:
        missing = self.batch - len(given) if self._pads else 0
        if missing:
            given = np.concatenate([given, np.repeat(given[-1:], missing, axis=0)])
        return np.ascontiguousarray(given)


class _Request:
    """One call under way. Holds its inputs, because the engine reads them where they are."""

    def __init__(
        self,
        engine: OpenVinoEngine,
        request: openvino.InferRequest,
        given: tuple[Array, ...],
        n: int,
    ) -> None:
        self.request = request
        self.size_hw = given[0].shape[1], given[0].shape[2]
        self._engine, self._given, self._n = engine, given, n
        self._started = 0.0
        self._outputs: Outputs | None = None

    def start(self) -> None:
        """Hand the images over."""
        for i, array in enumerate(self._given):
            self.request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))
        self._started = time.perf_counter()
        self.request.start_async()

    def result(self) -> Outputs:
        """Wait, copy the arrays out of the engine's memory, and give the request back."""
        if self._outputs is None:
            try:
                with idle():
                    self.request.wait()
            except RuntimeError as error:
                raise EngineError(f"OpenVINO failed in mid-run ({_first_line(error)})") from error
            self._outputs = {
                name: self.request.get_tensor(name).data[: self._n].copy()
                for name in self._engine.model.outputs
            }
            self._engine.answered(self, self._started, self.request.latency / 1e3)
        return self._outputs

    def abandon(self) -> None:
        """Wait without interest in the answer."""
        try:
            self.request.wait()
        except RuntimeError:
            return  # it failed, so it does not read the images any more


def _options(precision: Precision, settings: EngineSettings, latency: bool) -> dict[str, Any]:
    streams = {"NUM_STREAMS": settings.streams} if settings.streams else {}
    return streams | {
        # Never left to OpenVINO, whose own choice is bf16 wherever the CPU has it.
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY" if latency else "THROUGHPUT",
        "INFERENCE_NUM_THREADS": settings.threads or usable_cores(),
        # Pinned threads would wait for a core that the encoder has, with another one free.
        "ENABLE_CPU_PINNING": False,
    }


def _first_line(error: Exception) -> str:
    """OpenVINO's messages begin with the places in its source; the last line says what."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Exception from")]
    return (told or lines or ["no message"])[0]
