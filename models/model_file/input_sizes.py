"""One model file for several sizes of frames: a graph for each, the weights stored once.

The graphs stay static, because that is what makes them fast. Which of them runs is decided by
ONNX's ``If``, in a chain from the largest to the smallest: are the frames larger than 192x352?
then "320x576", else "192x352". Each graph bears its size as its name, and as a prefix of its
values (``"320x576/boxes"``). :func:`at_size` takes one out again; the line has its own way to do
that, without ONNX's library.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from math import prod

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from models.boxes import SizeHW
from models.data.pictures import DataError

FRAMES = "frames"
CHOICE = "choice"
"""Name of a graph that only chooses between two others."""
SMALLEST_SHARED = 256
"""Bytes. Smaller constants stay in each graph, where an engine's shape inference sees them."""


def combine(models: Sequence[tuple[SizeHW, ModelProto]]) -> ModelProto:
    """One model that takes frames of each of the sizes.

    models: ever fewer pixels; exports of one network, so that equal weights have equal names.
    """
    first = models[0][1]
    if len(models) == 1:
        return first
    shared = _shared([model.graph for _, model in models])
    names = {FRAMES, *(tensor.name for tensor in shared)}
    graphs = [_branch(model.graph, _name(size), names) for size, model in models]
    outputs = [_common(values) for values in zip(*(m.graph.output for _, m in models), strict=True)]
    chosen = graphs[-1]
    for i in reversed(range(len(graphs) - 1)):
        chosen = _choice(graphs[i], chosen, models[i + 1][0], outputs, prefix=f"{CHOICE}{i}/")
    whole = ModelProto()
    whole.CopyFrom(first)
    whole.graph.CopyFrom(_with_names(chosen, lambda name: name.removeprefix(f"{CHOICE}0/")))
    whole.graph.initializer.extend(shared)
    whole.graph.input.append(_frames("H", "W"))
    return whole


def at_size(model: ModelProto, size_hw: SizeHW) -> ModelProto:
    """The model for frames of one size, as it was before :func:`combine`.

    A model of that size only is returned as it is. Raises DataError where it has no such size.
    """
    name, graphs = _name(size_hw), _branches(model.graph)
    if not graphs:
        sides = model.graph.input[0].type.tensor_type.shape.dim
        if tuple(side.dim_value for side in sides[1:3]) != size_hw:
            raise DataError(f"the model is not for frames of {name}")
        return model
    if name not in graphs:
        raise DataError(f"no graph for {name}, only for {', '.join(graphs)}")
    single = ModelProto()
    single.CopyFrom(model)
    graph = _with_names(graphs[name], lambda value: value.removeprefix(f"{name}/"))
    single.graph.CopyFrom(graph)
    single.graph.initializer.extend(model.graph.initializer)
    single.graph.input.append(_frames(*size_hw))
    return single


def sizes_of(model: ModelProto) -> list[SizeHW]:
    """The sizes among which it chooses, the largest first; none where it does not choose."""
    parts = [name.split("x") for name in _branches(model.graph)]
    return [(int(height), int(width)) for height, width in parts]


def parse_size(text: str) -> SizeHW:
    """ "360x640" -> (360, 640), height first; for a command line."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ArgumentTypeError(f"a size is HEIGHTxWIDTH in pixels, got {text!r}")
    return int(height), int(width)


def _name(size_hw: SizeHW) -> str:
    return "{}x{}".format(*size_hw)


def _frames(height: int | str, width: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(FRAMES, TensorProto.UINT8, ["N", height, width, 3])


def _shared(graphs: Sequence[GraphProto]) -> list[TensorProto]:
    """Constants that every graph has, worth storing only once."""
    others = [{tensor.name: tensor for tensor in graph.initializer} for graph in graphs[1:]]
    return [
        tensor
        for tensor in graphs[0].initializer
        if len(tensor.raw_data) >= SMALLEST_SHARED
        and all(tensor == other.get(tensor.name) for other in others)
    ]


def _branch(graph: GraphProto, name: str, outside: set[str]) -> GraphProto:
    """The graph as an arm of an ``If``: what stands outside is taken from there."""
    arm = _with_names(graph, lambda value: value if value in outside else f"{name}/{value}")
    arm.name = name
    arm.ClearField("input")
    own = [tensor for tensor in arm.initializer if tensor.name not in outside]
    arm.ClearField("initializer")
    arm.initializer.extend(own)
    return arm


def _choice(
    larger: GraphProto,
    smaller: GraphProto,
    smaller_hw: SizeHW,
    outputs: Sequence[ValueInfoProto],
    prefix: str,
) -> GraphProto:
    """Run `larger` on frames with more pixels than `smaller_hw`, else `smaller`."""
    size, pixels, limit, is_larger = (prefix + n for n in ("size", "pixels", "limit", "is_larger"))
    nodes = [
        helper.make_node("Shape", [FRAMES], [size], start=1, end=3),
        helper.make_node("ReduceProd", [size], [pixels], keepdims=0),
        helper.make_node("Constant", [], [limit], value_int=prod(smaller_hw)),
        helper.make_node("Greater", [pixels, limit], [is_larger]),
    ]
    graph = helper.make_graph(nodes, CHOICE, [], outputs)
    for value in graph.output:
        value.name = prefix + value.name
    names = [value.name for value in graph.output]
    arms = {"then_branch": larger, "else_branch": smaller}
    graph.node.append(helper.make_node("If", [is_larger], names, **arms))
    return graph


def _common(values: Sequence[ValueInfoProto]) -> ValueInfoProto:
    """What is true of an output in every graph: sides that differ are free."""
    common = ValueInfoProto()
    common.CopyFrom(values[0])
    sides = zip(*(value.type.tensor_type.shape.dim for value in values), strict=True)
    for axis, sizes in enumerate(sides):
        if any(side != sizes[0] for side in sizes):
            common.type.tensor_type.shape.dim[axis].dim_param = f"{common.name}_{axis}"
    return common


def _branches(graph: GraphProto) -> dict[str, GraphProto]:
    """Graphs among which it chooses, by name, the largest first; none where it does not choose."""
    if graph.name != CHOICE:
        return {}
    arms = {attribute.name: attribute.g for attribute in graph.node[-1].attribute}
    larger, smaller = arms["then_branch"], arms["else_branch"]
    return {larger.name: larger} | (_branches(smaller) or {smaller.name: smaller})


def _with_names(graph: GraphProto, rename: Callable[[str], str]) -> GraphProto:
    """A copy in which every value and node is called otherwise; what lies in arms is not."""
    copy = GraphProto()
    copy.CopyFrom(graph)
    for entry in (*copy.initializer, *copy.input, *copy.output, *copy.value_info):
        entry.name = rename(entry.name)
    for node in copy.node:
        _rename_node(node, rename)
    return copy


def _rename_node(node: NodeProto, rename: Callable[[str], str]) -> None:
    node.name = node.name and rename(node.name)
    for names in (node.input, node.output):
        names[:] = [name and rename(name) for name in names]  # an empty one is left out
