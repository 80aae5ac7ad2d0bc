"""Turn a foreign one-stage detector into a model file of ours.

    python -m models.adopt yolox_nano.onnx --kind yolox --names coco --out nano.onnx

Around the foreign graph, whose nodes and weights stay as they are, come nodes of our own: before
it those that make its input from ``frames`` (N, H, W, 3) uint8 RGB, behind it those that make
boxes, scores and labels from its raw head (:data:`models.network.DETECTION_OUTPUTS`). The metadata
entry is the usual one (:func:`models.model_file.writing.description`), so that the line, the judge
and the labeller take the file for one of ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from models.bad_input import ends_in, told
from models.boxes import SizeHW
from models.data.class_names import COCO_NAMES, STREET_NAMES
from models.judging.yolox import grid
from models.model_file.onnx_file import OPSET, write
from models.model_file.reading import ModelFileError, read_onnx
from models.model_file.writing import Objects, description
from models.network import DETECTION_OUTPUTS

EXIT_ARGUMENTS, EXIT_MODEL = 2, 4

NAMES: dict[str, Sequence[str]] = {"coco": COCO_NAMES, "street": STREET_NAMES}
"""Class names by a word of the command line."""

SLOTS = 1000
"""Candidates a frame."""
LEAST_SCORE = 0.01
FOREIGN = "foreign_"
"""Stands before every name of the foreign graph, so that none meets one of ours."""


class AdoptionError(ValueError):
    """The file is no network of the kind that was named."""


@dataclass(frozen=True)
class Kind:
    """What is known of a family of foreign files."""

    before: str
    """ONNX text: ``frames`` -> ``{image}``, the name of the foreign input."""
    behind: str
    """ONNX text: ``{raw}``, the name of the foreign output -> our outputs."""
    constants: Callable[[SizeHW, int], dict[str, np.ndarray]]
    """What both need, by its name, for an input (height, width) and a number of classes."""
    classes: Callable[[Sequence[int]], int]
    """How many classes a raw output of some shape has."""
    objects: Objects


def _yolox_constants(size_hw: SizeHW, classes: int) -> dict[str, np.ndarray]:
    """See :class:`models.judging.yolox.YoloX`, which does the same in NumPy."""
    if size_hw[0] != size_hw[1]:
        raise AdoptionError(f"expected a square input, got {size_hw[0]}x{size_hw[1]}")
    origins, strides = grid(size_hw[0])
    slots = min(SLOTS, len(origins))
    whole = {
        "zero": [0],
        "one": [1],
        "two": [2],
        "four": [4],
        "five": [5],
        "last_axis": [2],
        "end": [5 + classes],
        "bgr": [2, 1, 0],
        "no_label": 0,
        "slots": [slots],
        "classes": [classes],
        "by_pair": [0, slots * classes],
        # Sides of 1 stay what they are, so the batch is free.
        "by_class": [1, 1, classes],
        "by_corner": [1, 1, 4],
    }
    real = {"half": 0.5, "nothing": 0.0, "floor": LEAST_SCORE, "limit": size_hw[::-1]}
    return {
        "origins": origins,
        "strides": strides,
        **{name: np.array(value, np.int64) for name, value in whole.items()},
        **{name: np.array(value, np.float32) for name, value in real.items()},
    }


# The best pairs of anchor and class lie on the anchors with the best of their best classes: as
# many anchors as slots are enough, and sorting them first saves sorting all 280 000 pairs.
_YOLOX = Kind(
    before="""
        numbers = Cast <to = 1> (frames)
        turned = Gather <axis = 3> (numbers, bgr)
        {image} = Transpose <perm = [0, 3, 1, 2]> (turned)
    """,
    behind="""
        offset = Slice ({raw}, zero, two, last_axis)
        extent = Slice ({raw}, two, four, last_axis)
        objectness = Slice ({raw}, four, five, last_axis)
        of_class = Slice ({raw}, five, end, last_axis)
        on_grid = Add (offset, origins)
        centre = Mul (on_grid, strides)
        grown = Exp (extent)
        size = Mul (grown, strides)
        half_size = Mul (size, half)
        low = Sub (centre, half_size)
        high = Add (centre, half_size)
        low_inside = Max (low, nothing)
        high_inside = Max (high, nothing)
        low_clipped = Min (low_inside, limit)
        high_clipped = Min (high_inside, limit)
        all_boxes = Concat <axis = -1> (low_clipped, high_clipped)
        all_scores = Mul (objectness, of_class)
        best_class = ReduceMax <keepdims = 0> (all_scores, last_axis)
        best_score, anchor = TopK (best_class, slots)
        anchor_column = Unsqueeze (anchor, last_axis)
        class_index = Expand (anchor_column, by_class)
        class_rows = GatherElements <axis = 1> (all_scores, class_index)
        pairs = Reshape (class_rows, by_pair)
        pair_scores, pair = TopK (pairs, slots)
        row = Div (pair, classes)
        first_label = Mul (row, classes)
        pair_label = Sub (pair, first_label)
        pair_anchor = GatherElements <axis = 1> (anchor, row)
        pair_column = Unsqueeze (pair_anchor, last_axis)
        pair_index = Expand (pair_column, by_corner)
        pair_boxes = GatherElements <axis = 1> (all_boxes, pair_index)
        is_found = Greater (pair_scores, floor)
        found_column = Unsqueeze (is_found, last_axis)
        boxes = Where (found_column, pair_boxes, nothing)
        scores = Where (is_found, pair_scores, nothing)
        labels = Where (is_found, pair_label, no_label)
        last_score = ReduceMin <keepdims = 0> (pair_scores, one)
        exact = LessOrEqual (last_score, floor)
    """,
    constants=_yolox_constants,
    classes=lambda shape: shape[-1] - 5,
    objects=Objects(score_threshold=0.4, nms_iou=0.65, max_detections=100),
)

KINDS = {"yolox": _YOLOX}
"""By the word of the command line."""


def adopt(foreign: onnx.ModelProto, kind: Kind, class_names: Sequence[str]) -> onnx.ModelProto:
    """The foreign graph between nodes of ours, with a free batch; leaves ``foreign`` as it is.

    Raises:
        AdoptionError: it has not one input of one size and one output, or other classes.
    """
    size_hw, raw_shape = _faces(foreign)
    if (classes := kind.classes(raw_shape)) != len(class_names):
        raise AdoptionError(f"the file has {classes} classes, {len(class_names)} names are given")
    model = onnx.ModelProto()
    model.CopyFrom(foreign)
    model = version_converter.convert_version(model, OPSET)
    free_batch(model.graph)
    model = onnx.compose.add_prefix(model, FOREIGN)
    graph = model.graph
    constants = kind.constants(size_hw, classes)
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    nodes = [
        *_nodes(kind.before.format(image=graph.input[0].name)),
        *graph.node,
        *_nodes(kind.behind.format(raw=graph.output[0].name)),
    ]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.name = "adopted"
    tensor, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    slots = int(constants["slots"][0])
    graph.input.append(tensor("frames", types.UINT8, ["N", *size_hw, 3]))
    graph.output.extend(
        [
            tensor("boxes", types.FLOAT, ["N", slots, 4]),
            tensor("scores", types.FLOAT, ["N", slots]),
            tensor("labels", types.INT64, ["N", slots]),
            tensor("exact", types.BOOL, ["N"]),
        ]
    )
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def _faces(foreign: onnx.ModelProto) -> tuple[SizeHW, list[int]]:
    """Height and width of the one input, and the shape of the one output."""
    weights = {weight.name for weight in foreign.graph.initializer}
    inputs = [port for port in foreign.graph.input if port.name not in weights]
    if len(inputs) != 1 or len(foreign.graph.output) != 1:
        raise AdoptionError(
            f"expected one input and one output, got {len(inputs)} and {len(foreign.graph.output)}"
        )
    taken, given = (
        [side.dim_value for side in port.type.tensor_type.shape.dim]
        for port in (inputs[0], foreign.graph.output[0])
    )
    if len(taken) != 4 or taken[1] != 3 or min(taken[2:]) < 1 or len(given) != 3:
        raise AdoptionError(
            f"expected an input (1, 3, H, W) and an output (1, M, K), got {taken} and {given}"
        )
    return (taken[2], taken[3]), given


def free_batch(graph: onnx.GraphProto) -> None:
    """Let a graph that was written for one picture take any number, in place.

    A Reshape that names a batch of 1 keeps the batch it finds instead (0 means that in ONNX); all
    other operators of a convolutional detector do so by themselves.
    """
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for constant in graph.initializer:
        if constant.name in shapes:
            sides = numpy_helper.to_array(constant).copy()
            if len(sides) and sides[0] == 1:
                sides[0] = 0
                constant.CopyFrom(numpy_helper.from_array(sides, constant.name))
    for port in (*graph.input, *graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "N"


def _nodes(text: str) -> list[onnx.NodeProto]:
    """Nodes of ONNX's own text form, one a line."""
    return [onnx.parser.parse_node(line.strip()) for line in text.strip().splitlines()]


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.adopt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FOREIGN.onnx")
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument(
        "--names", default="coco", help=f"{', '.join(sorted(NAMES))}, or names, comma separated"
    )
    parser.add_argument("--out", type=ends_in(".onnx"), required=True, metavar="FILE.onnx")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Adopt what the command line names; returns the exit status."""
    arguments = parse_arguments(words)
    kind = KINDS[arguments.kind]
    names = NAMES.get(arguments.names) or arguments.names.split(",")
    try:
        foreign = read_onnx(arguments.file)
        model = adopt(foreign, kind, names)
    except (OSError, ModelFileError, AdoptionError, onnx.checker.ValidationError) as error:
        print(f"cannot adopt {arguments.file}: {error}", file=sys.stderr)
        return EXIT_MODEL
    about = about_adopted(model, kind, names, arguments)
    write(model, about, arguments.out)
    return 0


def about_adopted(
    model: onnx.ModelProto, kind: Kind, class_names: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """The metadata entry."""
    height, width = (
        side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:3]
    )
    return description(
        "detection",
        DETECTION_OUTPUTS,
        (height, width),
        class_names,
        "letterbox",
        {"architecture": arguments.kind, "weights": arguments.file.name},
        objects=kind.objects,
    )


if __name__ == "__main__":
    with told():
        sys.exit(main())
