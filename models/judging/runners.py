"""ONNX files as plain functions, for evaluation and labelling; the line has engines of its own."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Runner = Callable[..., list[np.ndarray]]
"""A loaded network: its inputs in the file's order in, its outputs in the file's order out."""


def onnxruntime_runner(file: Path | bytes, threads: int = 2) -> Runner:
    """Load an ONNX file, or what would stand in it, into ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # see sums_overflow
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *blobs: list(session.run(None, dict(zip(names, blobs, strict=True))))


@cache
def the_core() -> Any:
    """OpenVINO's core, one for all; why there is no other: `pipeline.engines.ov_core`."""
    # Its conversion tools, which nothing here uses, would tell their maker of it over the network.
    tools = "openvino.tools.ovc"
    barred = tools not in sys.modules
    if barred:
        sys.modules[tools] = None  # type: ignore[assignment]  # bars the import
    import openvino

    if barred:
        del sys.modules[tools]
    return openvino.Core()


def openvino_runner(file: Path | bytes, precision: str = "f32", threads: int = 2) -> Runner:
    """The same with OpenVINO; ``precision`` is ``f32`` or ``bf16``.

    A file with 8-bit integers goes to ONNX Runtime where their sums would overflow: what it is
    worth must not depend on the machine that it is judged on. One with float8 always does, because
    OpenVINO rounds to it by way of float16, so that what lies beside a tie goes the other way.

    Raises:
        LookupError: bf16 on a processor without it, where OpenVINO would compute in f32.
    """
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = the_core()
    if precision == "bf16" and not has_bf16():
        raise LookupError("this processor has no bf16, and OpenVINO would compute in f32")
    graph = core.read_model(file)
    kinds = {node.get_type_name() for node in graph.get_ops()}
    if "FakeConvert" in kinds or (sums_overflow() and "FakeQuantize" in kinds):
        return onnxruntime_runner(file, threads)
    compiled = core.compile_model(graph, "CPU", settings)
    return lambda *blobs: [np.array(out) for out in compiled(list(blobs)).values()]


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 where it is asked to."""
    return "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def sums_overflow(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of 8-bit products overflow on this processor: an x86 without VNNI and AMX."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False  # nothing tells
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set[str]())
    return "sse2" in flags and flags.isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8"})
