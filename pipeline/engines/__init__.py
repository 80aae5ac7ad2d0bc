"""Engines run a model file; the line sees only `Engine`.

An engine's package is imported when it is asked for, not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.engines.contract import Engine, Outputs, Pending, Submits
from pipeline.engines.nvidia import driver
from pipeline.engines.precision import refuse_float8
from pipeline.engines.tuning import Purpose
from pipeline.engines.watch import EngineWatch
from pipeline.errors import ConfigError, EngineError, EngineUnavailable
from pipeline.frame import Batch
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings

__all__ = ["Engine", "EngineWatch", "Outputs", "Pending", "Purpose", "infer", "load_engine"]


def infer(
    batches: Iterable[Batch], engine: Submits, beside: Submits | None = None
) -> Iterator[tuple[Batch, Pending]]:
    """Start the engine on each batch and yield at once, without waiting for the answer.

    The capacity of the channel behind this stage bounds how many calls are under way.

    Args:
        batches: Frames made ready for the engine, and for `beside` if there is one.
        engine: Runs the model, or the first of two.
        beside: Runs the second on the same frames; both answers become one.
    """
    for batch in batches:
        pending = engine.submit(batch.images, batch.regions)
        if beside is not None and batch.beside is not None:
            other = batch.beside
            pending = _Both(pending, beside.submit(other.images, other.regions))
        yield batch, pending


class _Both(NamedTuple):
    """Two answers to one batch; their outputs have different names."""

    first: Pending
    second: Pending

    def result(self) -> Outputs:
        """Wait for both."""
        return self.first.result() | self.second.result()


def load_engine(
    model: ModelFile,
    settings: EngineSettings,
    *,
    purpose: Purpose = "recording",
    all_sizes: bool = False,
) -> Engine:
    """Load the model into the engine asked for; ``auto`` takes the fastest that works here.

    Args:
        model: What to run; OpenVINO may take the form in int8 that lies beside it, see
            `pipeline.engines.int8_form`.
        settings: Engine, precision, batch, threads and streams.
        purpose: What it is to be quick at, see `Purpose`.
        all_sizes: Take images of every size that the file has, not only of the usual one. Each
            is made ready now: under the load for which one changes it there is no time for that.

    Raises:
        EngineUnavailable: The engine is not installed, or the CPU or GPU lacks the precision.
        ModelMismatch: The engine cannot read the file, or its graph is not what it says.
        ConfigError: The engine does not have the precision asked for, or does not run that kind
            of file.
    """
    if settings.name == "program" or model.is_program:
        return _program(model, settings, purpose)
    if settings.name == "tensorrt":
        return _tensorrt(model, settings, purpose, all_sizes, "TensorRT as asked")
    if settings.name == "openvino":
        return _openvino(model, settings, purpose, all_sizes, "OpenVINO as asked")
    if settings.name == "onnxruntime":
        return _onnxruntime(model, settings, purpose, all_sizes, "ONNX Runtime as asked")
    because = "OpenVINO, the faster engine on a CPU"
    of_a_cpu = settings.precision in ("bf16", "int8")
    if (gpu := gpu_name()) and not of_a_cpu:
        try:
            return _tensorrt(model, settings, purpose, all_sizes, f"TensorRT on the {gpu}")
        except EngineError as refused:
            if model.arithmetic == "f8":  # never on a CPU unless that is asked for
                raise
            because += f", because TensorRT cannot be used: {refused}"
    refuse_float8(model, "which is for TensorRT on a GPU")
    try:
        return _openvino(model, settings, purpose, all_sizes, because)
    except EngineError as refused:
        if of_a_cpu:  # the other engine does not have it
            raise
        try:
            return _onnxruntime(
                model, settings, purpose, all_sizes, f"ONNX Runtime because {refused}"
            )
        except EngineUnavailable as absent:
            raise EngineUnavailable(f"no engine can be used: {refused}; {absent}") from refused


def _program(model: ModelFile, settings: EngineSettings, purpose: Purpose) -> Engine:
    from pipeline.engines.program import ProgramEngine

    if settings.name not in ("auto", "program"):
        raise ConfigError(
            f"--engine {settings.name} runs ONNX files, and {str(model.path)!r} is a program of "
            "torch; use --engine program or auto"
        )
    asked = settings.name == "program"
    because = "a program of torch as asked" if asked else "the file is a program of torch"
    return ProgramEngine(model, settings, latency=purpose == "camera", because=because)


def gpu_name() -> str | None:
    """Name of the GPU, where there is one with a driver."""
    try:
        return driver().gpus[0].name
    except EngineUnavailable:
        return None


def _tensorrt(
    model: ModelFile, settings: EngineSettings, purpose: Purpose, all_sizes: bool, because: str
) -> Engine:
    from pipeline.engines.trt import TensorRtEngine

    latency = purpose == "camera"
    return TensorRtEngine(model, settings, latency=latency, all_sizes=all_sizes, because=because)


def _openvino(
    model: ModelFile, settings: EngineSettings, purpose: Purpose, all_sizes: bool, because: str
) -> Engine:
    try:
        from pipeline.engines.ov import OpenVinoEngine
    except (ImportError, OSError) as error:  # OSError: a library that it needs is not there
        raise _missing("OpenVINO", "openvino", error) from error
    refuse_float8(model, "to which OpenVINO rounds otherwise than GPUs do")
    return OpenVinoEngine(model, settings, purpose=purpose, all_sizes=all_sizes, because=because)


def _onnxruntime(
    model: ModelFile, settings: EngineSettings, purpose: Purpose, all_sizes: bool, because: str
) -> Engine:
    try:
        from pipeline.engines.ort import OnnxRuntimeEngine
    except (ImportError, OSError) as error:
        raise _missing("ONNX Runtime", "onnxruntime", error) from error
    return OnnxRuntimeEngine(model, settings, purpose=purpose, all_sizes=all_sizes, because=because)


def _missing(name: str, package: str, error: Exception) -> EngineError:
    """What to raise for a package that is not there, or is there and broken."""
    if isinstance(error, ImportError):
        return EngineUnavailable(
            f"{name} is not installed or cannot be loaded ({error}); run `pip install {package}`"
        )
    return EngineError(
        f"{name} is installed and cannot be loaded ({error}); "
        f"run `pip install --force-reinstall {package}`"
    )
