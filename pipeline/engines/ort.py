"""ONNX Runtime on the CPU: the engine that runs where OpenVINO does not."""

from __future__ import annotations

import time
from typing import Self

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as raised

from pipeline.cores import usable_cores
from pipeline.engines.contract import (
    Answered,
    Images,
    Outputs,
    Regions,
    Size,
    check_images,
    check_names,
    check_outputs,
    no_images,
)
from pipeline.engines.precision import choose_precision, in_the_graph
from pipeline.engines.tuning import Purpose, choose
from pipeline.errors import ConfigError, EngineError, ModelMismatch
from pipeline.gpu.images import host_images
from pipeline.model_file.reading import ModelFile
from pipeline.model_file.sizes import at_size
from pipeline.settings import EngineSettings

# They have no common base but Exception.
FAILURES = (
    raised.EPFail,
    raised.Fail,
    raised.InvalidArgument,
    raised.InvalidGraph,
    raised.InvalidProtobuf,
    raised.NoSuchFile,
    raised.NotImplemented,
    raised.RuntimeException,
    RuntimeError,
)


class OnnxRuntimeEngine:
    """Answers within `submit`; see `Engine` for the attributes.

    One call on all cores is within a few percent of two calls at once (`run_async`) in this
    runtime, so the simple form is used.

    Args:
        model: The model file.
        settings: Precision, batch and threads; 0 and ``"auto"`` are resolved here.
        purpose: For which `pipeline.tune` may have measured what is best; else all are alike.
        all_sizes: Take images of every size that the file has.
        because: Why this engine was chosen.
    """

    name = "onnxruntime"
    in_flight = 1
    on_gpu = False
    busy_seconds = 0.0
    calls = 0

    def __init__(
        self,
        model: ModelFile,
        settings: EngineSettings,
        *,
        purpose: Purpose,
        all_sizes: bool,
        because: str,
    ) -> None:
        if settings.precision == "int8":
            raise ConfigError(
                "ONNX Runtime is slower in int8 than in f32; use precision auto or f32, or "
                "--engine openvino"
            )
        if settings.precision not in ("f32", "auto"):
            raise ConfigError(
                "ONNX Runtime computes in f32 only on a CPU; use precision f32 or auto, "
                "or --engine openvino for bf16"
            )
        started = time.perf_counter()
        self.model, self.precision = model, "f32"
        chosen = choose(model, settings, self.name, self.precision, purpose)
        settings = chosen.settings
        self.batch = settings.batch or 1
        self.sizes_hw = model.input_sizes_hw if all_sizes else (model.input_size_hw,)
        threads = settings.threads or usable_cores()
        self._sessions = {size: _load(model, size, threads) for size in self.sizes_hw}
        why = choose_precision(model, settings.precision, cpu_has_bf16=False)[1]
        if settings.precision == "auto":
            why = in_the_graph(model) + "f32, its only precision on a CPU"
        if model.arithmetic == "int8":
            why += "; its 8-bit integers are multiplied in f32, where sums cannot overflow"
        elif model.arithmetic == "f8":
            why += "; its float8 numbers are multiplied in f32, exactly and slowly"
        self.reason = f"{because}; {why}{chosen.remark(self.batch, self.in_flight)}"
        for size in self.sizes_hw:
            first = self.infer(*no_images(model, size, self.batch))
            check_outputs(model, first, self.batch)
        self.busy_seconds, self.calls = 0.0, 0
        self.load_seconds = time.perf_counter() - started

    def submit(self, images: Images, regions: Regions | None = None) -> Answered:
        """Compute now; the answer is ready on return."""
        check_images(images, self.model, self.sizes_hw, self.batch, regions)
        images = host_images(images)
        session = self._sessions[images.shape[1], images.shape[2]]
        given = (images,) if regions is None else (images, regions)
        names = [port.name for port in session.get_inputs()]
        feed = dict(zip(names, map(np.ascontiguousarray, given), strict=True))
        started = time.perf_counter()
        try:
            found = session.run(list(self.model.outputs), feed)
        except FAILURES as error:
            raise EngineError(f"ONNX Runtime failed in mid-run ({error})") from error
        self.busy_seconds += time.perf_counter() - started
        self.calls += 1
        return Answered(dict(zip(self.model.outputs, found, strict=True)))

    def infer(self, images: Images, regions: Regions | None = None) -> Outputs:
        """Return the answer."""
        return self.submit(images, regions).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        """Nothing is ever under way between two calls."""


def _load(model: ModelFile, size_hw: Size, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    for side, pixels in zip("HW", size_hw, strict=True):  # free in a file of several sizes
        options.add_free_dimension_override_by_name(side, pixels)
    # Waiting threads would otherwise burn the cores that decoding and encoding need
    # (65 instead of 42 ms of CPU a frame).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Integers are no faster here than f32, and their sums overflow on processors without VNNI.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = onnxruntime.InferenceSession(
            at_size(model, size_hw), options, providers=["CPUExecutionProvider"]
        )
    except FAILURES as error:
        reason = " ".join(str(error).split())  # older versions break their lines
        raise ModelMismatch(
            f"ONNX Runtime cannot use {str(model.path)!r} ({reason}); export it again"
        ) from error
    check_names(
        model,
        [port.name for port in session.get_inputs()],
        [port.name for port in session.get_outputs()],
    )
    return session
