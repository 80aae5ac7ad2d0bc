"""Read the weights back out of a model file, to fine-tune the bundled detector or to check it.

The exporter folds each batch norm into the convolution before it. Read back, the norm becomes a
plain offset: weight 1, mean 0, variance 1 - epsilon and the convolution's bias. The network then
computes the same; it trains like one whose norms are frozen, which is how ours are trained.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from models.data.pictures import DataError
from models.model_file.input_sizes import at_size, sizes_of
from models.model_file.reading import read_onnx

HALF = "_half"  # the exporter's mark on weights that it stored as float16


def load_from_model_file(model: nn.Module, path: Path) -> None:
    """Put the weights in the model file at `path` into `model`, which has its architecture.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no ONNX file, or a weight of the model is not in it or has another shape.
    """
    proto = read_onnx(path)
    for size_hw in sizes_of(proto)[:1]:
        proto = at_size(proto, size_hw)
    state = model.state_dict()
    stored = _stored(proto)
    biases = _biases(proto)
    found = {name: value for name, value in stored.items() if name in state}
    for conv, norm in folded_norms(model):
        if f"{norm}.bias" not in found and f"{conv}.weight" in biases:
            found |= _as_offset(model.get_submodule(norm), norm, stored[biases[f"{conv}.weight"]])
    missing = [name for name in state if name not in found and not name.endswith("tracked")]
    wrong = [name for name, value in found.items() if value.shape != state[name].shape]
    if missing or wrong:
        raise DataError(
            f"{path} does not hold this architecture: {len(missing)} weights are missing and "
            f"{len(wrong)} have another shape, such as {(missing + wrong)[0]}"
        )
    model.load_state_dict(state | found)


def least_score_in(path: Path) -> float | None:
    """Below which the graph of a model file finds nothing: what the pairs that it counts exceed.

    None where nothing is counted so.
    """
    proto = read_onnx(path)
    for size_hw in sizes_of(proto)[:1]:
        proto = at_size(proto, size_hw)
    constants = {one.name: one for one in proto.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in proto.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    counted = {node.input[0] for node in proto.graph.node if node.op_type == "ReduceSum"}
    casts = {node.input[0] for node in proto.graph.node if node.output[0] in counted}
    for node in proto.graph.node:
        if node.op_type == "Greater" and node.output[0] in casts and node.input[1] in constants:
            value = numpy_helper.to_array(constants[node.input[1]])
            if value.size == 1:
                return float(value.reshape(()))
    return None


def _stored(proto: ModelProto) -> dict[str, Tensor]:
    """Every initialiser as float32 (or its own integer type), by the name of its parameter."""
    tensors = {}
    for initialiser in proto.graph.initializer:
        tensor = torch.from_numpy(numpy_helper.to_array(initialiser).copy())
        name = initialiser.name.removesuffix(HALF)
        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
    return tensors


def _biases(proto: ModelProto) -> dict[str, str]:
    """Name of a convolution's weight -> name of the bias it is computed with."""
    before_cast = {
        node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "Cast"
    }

    def stored_as(name: str) -> str:
        return before_cast.get(name, name).removesuffix(HALF)

    return {
        stored_as(node.input[1]): stored_as(node.input[2])
        for node in proto.graph.node
        if node.op_type == "Conv" and len(node.input) > 2
    }


def folded_norms(model: nn.Module) -> list[tuple[str, str]]:
    """Names of every convolution and the batch norm right behind it.

    Behind it are those that one module holds side by side; a norm at the beginning of another
    module may be given something else.
    """
    modules = [
        (name, module) for name, module in model.named_modules() if not list(module.children())
    ]
    return [
        (name, following)
        for (name, module), (following, norm) in pairwise(modules)
        if isinstance(module, nn.Conv2d)
        and hasattr(norm, "running_mean")
        and name.rpartition(".")[0] == following.rpartition(".")[0]
    ]


def _as_offset(norm: nn.Module, name: str, bias: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.ones_like(bias),
        f"{name}.bias": bias,
        f"{name}.running_mean": torch.zeros_like(bias),
        f"{name}.running_var": torch.ones_like(bias) - float(norm.eps),  # type: ignore[arg-type]  # a norm
    }
