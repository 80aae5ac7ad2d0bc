"""A program of torch: read, put into a precision, its weights laid out as convolutions like them.

In a lower precision, convolutions and matrix products take half as many bytes, and what lies
between them stays as it comes. Boxes, scores and ranks must not: the exporter, which had everything
in float32, left an assertion at each place where the network asks for float32 by name, and there,
from the assertion on, numbers are turned back. (bfloat16 has steps of 4 pixels at 640.)
"""

from __future__ import annotations

import inspect
import operator
from typing import Any

from pipeline.errors import ModelMismatch
from pipeline.model_file.reading import ModelFile

Torch = Any  # the module
Graph = Any  # a torch.fx.GraphModule

DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_PRODUCTS = {
    *("aten.conv2d", "aten.conv_transpose2d", "aten.convolution", "aten.linear"),
    *("aten.addmm", "aten.mm", "aten.bmm", "aten.matmul"),
}
_ASSERTION = "aten._assert_tensor_metadata"


def read_program(torch: Torch, model: ModelFile) -> Graph:
    """The graph, with a free batch and on the CPU, as it was exported.

    Raises:
        ModelMismatch: torch cannot read it, or it is not what its entry says.
    """
    try:
        program = torch.export.load(model.path)
    except (RuntimeError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelMismatch(
            f"torch {torch.__version__} cannot use {str(model.path)!r} ({first_line(error)}); "
            "export it again, with this version"
        ) from error
    found = len(program.graph_signature.user_inputs), len(program.graph_signature.user_outputs)
    wanted = 2 if model.proposer else 1, len(model.outputs)
    if found != wanted:
        raise ModelMismatch(
            f"{str(model.path)!r} promises {wanted[0]} inputs and {wanted[1]} outputs, but its "
            f"graph has {found[0]} and {found[1]}; export it again"
        )
    # Its check of the inputs is ours, too; older versions have none.
    has_check = "check_guards" in inspect.signature(program.module).parameters
    return program.module(check_guards=False) if has_check else program.module()


def in_precision(torch: Torch, module: Graph, precision: str) -> Graph:
    """The same graph in a precision; weights of convolutions get channels last.

    Args:
        torch: The module.
        module: As read; it is used up.
        precision: ``"f32"``, ``"bf16"`` or ``"f16"``.
    """
    dtype = getattr(torch, DTYPES[precision])
    places = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in list(places):
        if _name(node) == _ASSERTION:
            if dtype != torch.float32 and torch.float32 in (*node.args, *node.kwargs.values()):
                _turn_back(torch, module.graph, node, places)
            module.graph.erase_node(node)
    for node in [n for n in module.graph.nodes if _name(n) in _PRODUCTS]:
        _lower_inputs(torch, module, node, dtype)
    module.graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, module.graph)  # with the weights that it uses, no others


def on_device(torch: Torch, module: Graph, device: str) -> Graph:
    """The same graph with all its weights and constants on a device; it is used up.

    What it makes at each call (ranges, ones) was exported for the CPU, which stands in the graph.
    """
    for node in module.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
    module.recompile()
    return module.to(device)


def first_line(error: BaseException) -> str:
    """Of what torch says; the rest are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


def _turn_back(torch: Torch, graph: Any, assertion: Any, places: dict[Any, int]) -> None:
    """Have all that comes after the assertion see float32."""
    source = assertion.args[0]
    with graph.inserting_before(assertion):
        exact = graph.call_function(torch.ops.aten.to.dtype, (source, torch.float32))
    places[exact] = places[assertion]
    for user in list(source.users):
        if user is not exact and places[user] >= places[assertion]:
            user.replace_input_with(source, exact)


def _lower_inputs(torch: Torch, module: Graph, node: Any, dtype: Any) -> None:
    """Give a product its inputs in that type: weights once for all, the others at each call."""
    for given in list(node.all_input_nodes):
        with module.graph.inserting_before(node):
            if given.op == "get_attr":
                name = _lowered_weight(torch, module, given.target, dtype)
                node.replace_input_with(given, module.graph.get_attr(name))
            elif dtype != torch.float32:
                cast = module.graph.call_function(torch.ops.aten.to.dtype, (given, dtype))
                node.replace_input_with(given, cast)


def _lowered_weight(torch: Torch, module: Graph, target: str, dtype: Any) -> str:
    name = f"lowered_{target.replace('.', '_')}"
    if not hasattr(module, name):
        weight = operator.attrgetter(target)(module).detach().to(dtype)
        if weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        module.register_buffer(name, weight)
    return name


def _name(node: Any) -> str:
    """Of an operator, without its overload."""
    return str(node.target).rpartition(".")[0] if node.op == "call_function" else ""
