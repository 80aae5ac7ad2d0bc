"""The layers of a graph one by one, in ONNX Runtime, and how far another engine's are from them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from pipeline.cores import usable_cores
from pipeline.engines.trt_graph import nodes, with_outputs

OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "RoiAlign", "TopK"})

_KINDS = {"tensor(float)": (1, 4), "tensor(float16)": (10, 2)}  # number in onnx.proto, bytes


@dataclass
class Layer:
    """One operator, and how much of what it gives is signal.

    Attributes:
        name: Of the operator, or of what it gives if it has none.
        operator: What it does.
        output: Name of what it gives.
        chosen: It lies behind a TopK, whose order, and with it that of the rows, the last digit of
            a score decides; so values are compared by size, whatever their order.
        kind: Type of its numbers, as onnx.proto counts types; 0 until it is known.
        signal, noise: Sums of squares, of what the CPU gives and of the difference.
    """

    name: str
    operator: str
    output: str
    chosen: bool
    kind: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def add(self, wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> None:
        """Compare what both give for one batch."""
        one, other = (part.ravel().astype(np.float64) for part in (wanted, found))
        if self.chosen:
            one, other = np.sort(one), np.sort(other)
        with np.errstate(invalid="ignore"):  # of two infinities; those that are alike are no noise
            apart = np.where(one == other, 0.0, other - one)
        self.signal += float(np.square(one[np.isfinite(one)]).sum())
        self.noise += float(np.square(apart).sum())

    @property
    def decibels(self) -> float:
        """Signal to noise."""
        if self.noise == 0:
            return math.inf
        if self.signal == 0 or not math.isfinite(self.noise):
            return -math.inf
        return 10 * math.log10(self.signal / self.noise)

    def __str__(self) -> str:
        return f"{self.name!r} ({self.operator}, {self.decibels:.0f} dB)"


def layers_of(onnx: bytes) -> list[Layer]:
    """All that may be looked at, in the order of the graph."""
    found, chosen = [], set[str]()
    for node in nodes(onnx):
        behind = not chosen.isdisjoint(node.inputs)
        if node.operator in OPERATORS:
            output = node.outputs[0]
            found.append(Layer(node.name or output, node.operator, output, behind))
        if behind or node.operator == "TopK":
            chosen.update(filter(None, node.outputs))
    return found


def on_cpu(onnx: bytes, layers: Sequence[Layer]) -> onnxruntime.InferenceSession:
    """ONNX Runtime in f32, with the layers' outputs open."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # see `pipeline.engines.ort`
    opened = with_outputs(onnx, {layer.output: None for layer in layers})
    return onnxruntime.InferenceSession(opened, options, providers=["CPUExecutionProvider"])


def looked_at(
    session: onnxruntime.InferenceSession, layers: Sequence[Layer], most: int
) -> list[Layer]:
    """Those of float numbers, or as many of them, evenly, as give `most` bytes for an image."""
    sizes = dict[str, int]()
    kinds = {port.name: _KINDS.get(port.type, (0, 0)) for port in session.get_outputs()}
    for port in session.get_outputs():
        # A side that depends on the batch is a word, such as "100*N".
        sides = (int(part) for side in port.shape for part in re.findall(r"\d+", str(side)))
        sizes[port.name] = math.prod(sides) * kinds[port.name][1]
    known = [replace(layer, kind=kinds[layer.output][0]) for layer in layers]
    known, step = [layer for layer in known if layer.kind], 1
    while sum(sizes[layer.output] for layer in known[::step]) > most and step < len(known):
        step += 1
    return known[::step]
