"""ONNX files as plain functions, for evaluation and labelling; the line has engines of its own."""

from collections.abc import Callable
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
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *blobs: list(session.run(None, dict(zip(names, blobs, strict=True))))


def openvino_runner(file: Path | bytes, precision: str = "f32", threads: int = 2) -> Runner:
    """The same with OpenVINO; ``precision`` is ``f32`` or ``bf16``."""
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", settings)
    return lambda *blobs: [np.array(out) for out in compiled(list(blobs)).values()]
