"""What rounding a layer does to its outputs, each layer by itself.

All layers are looked at in one run of the float model: beside each stands its rounded twin, which
is given the same float inputs, so that no layer answers for the noise of those before it, and
what the heads see are the same regions. Of the difference the mean over pictures and places is an
offset of each channel. It is the larger part of the noise where weights are few, as in a trunk of
depthwise convolutions, and costs nothing to take back: it goes into the bias (Nagel et al.,
arXiv:1906.04721, sec. 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from models.quantization.eight_bits import INT8, EightBits
from models.quantization.layers import Layer
from models.quantization.qdq import Rounding, quantised


@dataclass(frozen=True)
class Noise:
    """Of one layer.

    Attributes:
        signal: Mean square of its outputs.
        before: Mean square of the difference that rounding makes, offsets included.
        offset: (C,) mean difference of each channel.
    """

    signal: float
    before: float
    offset: np.ndarray

    @property
    def decibels(self) -> float:
        """Signal to noise of what is left when the offsets are taken back."""
        return _decibels(self.signal, self.before - float((self.offset**2).mean()))

    @property
    def decibels_before(self) -> float:
        """The same with offsets."""
        return _decibels(self.signal, self.before)


def _decibels(signal: float, noise: float) -> float:
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, signal * 1e-12, 1e-30)))


def largest_inputs(
    model: ModelProto, layers: Sequence[Layer], frames: Iterable[np.ndarray], threads: int = 2
) -> dict[str, float]:
    """By tensor that goes into a layer: the largest magnitude in any of the frames.

    frames: (H, W, 3) uint8 RGB of the model's size.
    """
    names = sorted({layer.data for layer in layers})
    nodes = list[NodeProto]()
    for name in names:
        nodes += [
            helper.make_node("Abs", [name], [f"{name}/magnitude"]),
            helper.make_node("ReduceMax", [f"{name}/magnitude"], [f"{name}/most"], keepdims=0),
        ]
    run = watched(model, [f"{name}/most" for name in names], nodes, threads=threads)
    found = np.array([run(frame) for frame in frames])
    return dict(zip(names, found.max(0).tolist(), strict=True))


def noise_of_layers(
    model: ModelProto,
    layers: Sequence[Layer],
    largest: dict[str, float],
    frames: Iterable[np.ndarray],
    kind: EightBits = INT8,
    threads: int = 2,
) -> dict[str, Noise]:
    """By name of layer, the mean over all places where its weights are used."""
    twin = quantised(model, layers, Rounding(largest, {}, kind))
    ready = {name for node in model.graph.node for name in node.output}
    nodes = [node for node in twin.graph.node if not ready.intersection(node.output)]
    outputs = list[str]()
    for layer in layers:
        nodes += _beside(layer)
        outputs += [f"{layer.output}/{what}" for what in ("signal", "noise", "offset")]
    have = {tensor.name for tensor in model.graph.initializer}
    added = [tensor for tensor in twin.graph.initializer if tensor.name not in have]
    run = watched(model, outputs, nodes, [*added, *_axes()], threads)
    found = [run(frame) for frame in frames]
    means = [np.mean(values, axis=0) for values in zip(*found, strict=True)]
    gathered: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for layer, values in zip(layers, zip(*[iter(means)] * 3, strict=True), strict=True):
        gathered.setdefault(layer.name, []).append(values)
    return {name: _merged(places) for name, places in gathered.items()}


def _merged(places: Sequence[tuple[np.ndarray, ...]]) -> Noise:
    signal, before, offset = (np.mean(values, axis=0) for values in zip(*places, strict=True))
    return Noise(float(signal), float(before), np.asarray(offset, np.float32))


def _beside(layer: Layer) -> Iterator[NodeProto]:
    """The layer's twin, and what is asked of both."""
    twin, name = NodeProto(), layer.output
    twin.CopyFrom(layer.node)
    twin.name, twin.output[0] = f"{name}/twin", f"{name}/twin"
    twin.input[0] += "_rounded"
    twin.input[1] += "_rounded"
    spatial = layer.node.op_type in ("Conv", "ConvTranspose")
    axes = "axes_of_maps" if spatial else "axes_of_rows"
    yield twin
    yield helper.make_node("Sub", [f"{name}/twin", name], [f"{name}/difference"])
    yield helper.make_node(
        "ReduceMean", [f"{name}/difference", axes], [f"{name}/offset"], keepdims=0
    )
    for source, what in ((name, "signal"), (f"{name}/difference", "noise")):
        yield helper.make_node("Mul", [source, source], [f"{name}/{what}/square"])
        yield helper.make_node(
            "ReduceMean", [f"{name}/{what}/square"], [f"{name}/{what}"], keepdims=0
        )


def _axes() -> list[TensorProto]:
    return [
        numpy_helper.from_array(np.array([0, 2, 3]), "axes_of_maps"),
        numpy_helper.from_array(np.array([0]), "axes_of_rows"),
    ]


def watched(
    model: ModelProto,
    outputs: Sequence[str],
    nodes: Sequence[NodeProto] = (),
    stored: Sequence[TensorProto] = (),
    threads: int = 2,
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The model as a function from an (H, W, 3) uint8 RGB frame to tensors inside of it.

    nodes, stored: put in beside what is there. Nothing is joined, so that what is rounded in the
    graph is rounded as ONNX says and not as an engine's integers do it.
    """
    more = ModelProto()
    more.CopyFrom(model)
    more.graph.node.extend(nodes)
    more.graph.initializer.extend(stored)
    del more.graph.output[:]
    for name in outputs:
        more.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; they are raised as well
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        more.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    frames = session.get_inputs()[0].name
    return lambda frame: session.run(list(outputs), {frames: frame[None]})
