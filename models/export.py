"""Write a network as a model file: one ONNX file that says by itself how to use it.

    python -m models.export mobilenet_v3_large_320_fpn --weights DEFAULT --size 360x640 --out m.onnx
    python -m models.export deeplab_v3 --weights runs/road/model_9000.pt --size 288x512 \
        --names road,car,sky --palette 128,64,128/0,0,142/70,130,180 --out road.onnx

A name that ends in ``.pt2`` asks for a program of torch instead (:mod:`models.program`).

The file takes ``frames`` (N, H, W, 3) uint8 RGB with a free N, with a proposer also ``regions``
(N, R, 4), and returns the tensors that the network names (see :mod:`models.network`). A Faster
R-CNN may be run at several sizes (``--size`` more than once): then a line that is too slow can make
do with a smaller one. Everything else a user of it must know stands in one metadata entry, a JSON
text under the key "boxstream", which holds what its task needs and no more (see
:func:`description`).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import onnx
import torchvision

from models.boxes import SizeHW
from models.class_names import STREET_NAMES
from models.detection.architectures import ARCHITECTURES, COCO_CLASSES
from models.detection.faster_rcnn import (
    NMS_BODIES,
    OUTPUTS,
    FasterRCNN,
    NMSBody,
    OutputForm,
)
from models.detection.mask_rcnn import MaskRCNN
from models.input_sizes import combine, parse_size
from models.network import Task
from models.onnx_file import to_onnx, write
from models.papers import PAPERS, SINGLE_MAP
from models.program import SUFFIX, to_program, write_program
from models.published import PUBLISHED
from models.weights import WeightsError, class_names_published, load_network, load_weights

SCHEMA = 1
NMS_ITERATIONS = 16  # of the fixpoint; clustered boxes need about a dozen
EXIT_ARGUMENTS, EXIT_MODEL = 2, 4

Fit = Literal["letterbox", "stretch"]


def export(
    model: FasterRCNN,
    path: Path,
    *,
    frame_hw: SizeHW,
    class_names: Sequence[str],
    output_form: OutputForm = "candidates",
    nms_body: NMSBody = "fixpoint",
    nms_iterations: int = NMS_ITERATIONS,
    fit: Fit = "letterbox",
    score_threshold: float = 0.5,
    provenance: Mapping[str, Any] | None = None,
    half_weights: bool = False,
    smaller_hw: Sequence[SizeHW] = (),
) -> None:
    """Write ``model`` for frames of one size to ``path``, which appears whole or not at all.

    Leaves the model prepared for that size, and in eval mode.

    nms_body: "fixpoint" for every engine, TensorRT and CUDA graphs included; "nonmaxsuppression"
        for CPU engines when the model thins out thousands of boxes.
    fit: how frames of another size are to be brought to ``frame_hw``.
    score_threshold: recommended to the user; the graph itself returns all above its own floor.
    provenance: architecture, training_data, date, score.
    half_weights: store the weights of convolutions and layers as float16, half the file; engines
        turn them back to float32 when they load it.
    smaller_hw: other sizes at which the file can be run, ever fewer pixels.
    """
    if len(class_names) != model.num_classes:
        raise ValueError(f"{model.num_classes} classes need names, got {len(class_names)}")
    sizes = [frame_hw, *smaller_hw]
    if any(prod(more) <= prod(fewer) for more, fewer in pairwise(sizes)):
        raise ValueError(f"each size must have fewer pixels than the one before, got {sizes}")
    settings, outputs = model.roi_heads.settings, OUTPUTS[output_form]
    found = Objects(score_threshold, settings.iou, settings.detections, nms_body)
    about = description(
        "detection", outputs, frame_hw, class_names, fit, provenance or {}, objects=found
    )
    proposals = model.rpn.settings
    # For people; an engine finds all of it in the graph.
    about["proposals"] = {"per_level": proposals.pre_nms, "kept": proposals.post_nms}
    if path.suffix == SUFFIX:
        if smaller_hw:
            raise ValueError(f"a program is written for one size, got {sizes}")
        model.eval().prepare(
            frame_hw, output_form=output_form, nms_body=nms_body, nms_iterations=nms_iterations
        )
        write_program(to_program(model, frame_hw), about, path)
        return
    protos = list[tuple[SizeHW, onnx.ModelProto]]()
    for size_hw in reversed(sizes):
        model.eval().prepare(
            size_hw, output_form=output_form, nms_body=nms_body, nms_iterations=nms_iterations
        )
        protos.insert(0, (size_hw, to_onnx(model, size_hw, outputs, half_weights=half_weights)))
    if smaller_hw:
        about["input_sizes_hw"] = [list(size_hw) for size_hw in sizes]
    write(combine(protos), about, path)


def export_network(
    network: Any,
    path: Path,
    frame_hw: SizeHW,
    class_names: Sequence[str],
    *,
    fit: Fit = "letterbox",
    objects: Objects | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    half_weights: bool = False,
    nms_body: NMSBody | None = None,
) -> None:
    """Write any :class:`models.network.Network` for frames of one size; see :func:`export`.

    objects: recommended numbers for what is found; of no use to a semantic network.
    nms_body: how a Mask R-CNN suppresses inside the graph: None for "nonmaxsuppression", which its
        thousands of boxes ask for on a CPU; TensorRT and programs want "fixpoint". Of no use to
        others.
    palette: red, green and blue of each class; None leaves the colours to whoever draws.
    """
    if len(class_names) != network.num_classes:
        raise ValueError(f"{network.num_classes} classes need names, got {len(class_names)}")
    if palette is not None and len(palette) != len(class_names):
        raise ValueError(f"{len(class_names)} classes need colours, got {len(palette)}")
    network.eval().prepare(frame_hw)
    if nms_body:
        network.prepare(frame_hw, nms=NMS_BODIES[nms_body](NMS_ITERATIONS))
        objects = replace(objects or Objects(), nms_body=nms_body)
    about = description(
        network.task,
        network.outputs,
        frame_hw,
        class_names,
        fit,
        provenance or {},
        objects=None if network.task == "semantic" else objects or Objects(),
        palette=palette,
        proposer=network.proposer,
        regions=network.regions,
    )
    regions = network.regions if network.proposer else 0
    if path.suffix == SUFFIX:
        write_program(to_program(network, frame_hw, regions), about, path)
        return
    write(to_onnx(network, frame_hw, network.outputs, regions, half_weights), about, path)


@dataclass(frozen=True)
class Objects:
    """Recommended numbers for what a network finds.

    score_threshold: lowest score that is shown.
    nms_iou: overlap from which a box is a duplicate.
    max_detections: of a frame.
    nms_body: how suppression is written inside the graph.
    """

    score_threshold: float = 0.5
    nms_iou: float = 0.5
    max_detections: int = 100
    nms_body: str = "none"


def description(
    task: Task,
    outputs: Sequence[str],
    frame_hw: SizeHW,
    class_names: Sequence[str],
    fit: Fit,
    provenance: Mapping[str, Any],
    *,
    objects: Objects | None,
    palette: Sequence[Sequence[int]] | None = None,
    proposer: str | None = None,
    regions: int = 0,
) -> dict[str, Any]:
    """What the metadata entry says; without `objects` nothing of thresholds and suppression."""
    entry: dict[str, Any] = {"schema": SCHEMA, "task": task}
    if objects:
        entry["output_form"] = "detections" if "count" in outputs else "candidates"
    entry |= {
        "class_names": list(class_names),
        "input_size_hw": list(frame_hw),
        "fit": fit,
        "outputs": list(outputs),
    }
    if palette is not None:
        entry["palette"] = [list(colour) for colour in palette]
    if objects:
        entry |= asdict(objects)
    if proposer:
        entry |= {"proposer": proposer, "regions": regions}
    return entry | {"provenance": dict(provenance)}


def class_names_of(num_classes: int) -> list[str]:
    """The names that go with a number of classes: COCO's, or the street's, or numbers."""
    if num_classes == COCO_CLASSES:
        weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT
        return list(weights.meta["categories"][1:])
    if num_classes == len(STREET_NAMES):
        return list(STREET_NAMES)
    return [f"class {i}" for i in range(num_classes)]


def score(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a score lies between 0 and 1, got {text!r}")
    return value


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def colours(text: str) -> list[list[int]]:
    """ "128,64,128/0,0,142" -> one triple of 0 to 255 for each class."""
    try:
        triples = [[int(part) for part in colour.split(",")] for colour in text.split("/")]
    except ValueError:
        triples = [[]]
    if not all(len(t) == 3 and min(t) >= 0 and max(t) <= 255 for t in triples):
        raise argparse.ArgumentTypeError(f"colours are R,G,B/R,G,B/... of 0 to 255, got {text!r}")
    return triples


def known_origin(text: str) -> tuple[str, Any]:
    """ "date=2026-11-21" -> its two sides; the right one is JSON where it reads as JSON."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m models.export", description="Write a model file."
    )
    words.add_argument("network", choices=list(PAPERS), metavar="NETWORK", help=", ".join(PAPERS))
    words.add_argument("--weights", required=True, metavar="FILE|DEFAULT")
    words.add_argument(
        "--size",
        required=True,
        type=parse_size,
        action="append",
        metavar="HxW",
        help="of the frames; give more for a file that can also be run at smaller ones",
    )
    words.add_argument("--out", required=True, type=Path, metavar="FILE")
    words.add_argument("--form", choices=list(OUTPUTS), default="candidates")
    words.add_argument(
        "--nms",
        choices=list(NMS_BODIES),
        help="how suppression is written in the graph of a Faster R-CNN (fixpoint unless given) or "
        "a Mask R-CNN (nonmaxsuppression unless given); TensorRT takes fixpoint",
    )
    words.add_argument("--fit", choices=["letterbox", "stretch"], default="letterbox")
    words.add_argument("--threshold", type=score, default=0.5, help="recommended score")
    words.add_argument(
        "--min-score", type=score, metavar="S", help="below it the graph itself finds nothing"
    )
    words.add_argument(
        "--proposals",
        type=at_least_one,
        metavar="N",
        help="that the second stage of a Faster R-CNN looks at; fewer are quicker and find less",
    )
    words.add_argument(
        "--per-level",
        type=at_least_one,
        metavar="N",
        help="boxes of each level of the pyramid, of which the proposals are what overlaps little",
    )
    words.add_argument(
        "--provenance",
        type=known_origin,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the file tells of its origin, such as training_data=COCO; the value may be "
        "JSON; an empty one leaves the key out",
    )
    words.add_argument("--names", metavar="A,B,...", help="of the classes, background left out")
    words.add_argument(
        "--palette", type=colours, metavar="R,G,B/R,G,B/...", help="in which classes are drawn"
    )
    words.add_argument("--half", action="store_true", help="store weights as float16 (ONNX)")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 2 for bad arguments, 4 for weights."""
    options = parser().parse_args(arguments)
    if options.out.suffix == SUFFIX and (trouble := _no_program(options)):
        print(f"error: {trouble}", file=sys.stderr)
        return EXIT_ARGUMENTS
    try:
        is_faster_rcnn = options.network in ARCHITECTURES or options.network in SINGLE_MAP
        trouble = (_write_faster_rcnn if is_faster_rcnn else _write_network)(options)
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_MODEL
    if trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return EXIT_ARGUMENTS
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _no_program(options: argparse.Namespace) -> str | None:
    """What of the arguments a program of torch has not."""
    if len(options.size) > 1:
        return f"--size: a program ({SUFFIX}) is written for one size"
    if options.half:
        return f"--half: the weights of a program ({SUFFIX}) are float32; its engine halves them"
    if options.nms == "nonmaxsuppression":
        return f"--nms: a program ({SUFFIX}) takes fixpoint"
    return None


def _write_faster_rcnn(options: argparse.Namespace) -> str | None:
    """Says what is wrong with the arguments, if anything is."""
    if options.network in ARCHITECTURES:
        model, origin = load_weights(options.network, options.weights)
        names = options.names.split(",") if options.names else class_names_of(model.num_classes)
    elif not options.names:
        return f"--names is needed: a {options.network} does not know what its classes are called"
    else:
        names = options.names.split(",")
        network, origin = load_network(options.network, options.weights, names)
        model = cast(FasterRCNN, network)
    if len(names) != model.num_classes:
        return f"--names gives {len(names)} of {model.num_classes} names"
    if options.min_score is not None:
        heads = model.roi_heads
        heads.settings = replace(heads.settings, min_score=options.min_score)
    wanted = {"post_nms": options.proposals, "pre_nms": options.per_level}
    given = {key: count for key, count in wanted.items() if count is not None}
    model.rpn.settings = replace(model.rpn.settings, **given)
    sizes = sorted(set(options.size), key=prod, reverse=True)
    export(
        model,
        options.out,
        frame_hw=sizes[0],
        smaller_hw=sizes[1:],
        class_names=names,
        output_form=options.form,
        nms_body=options.nms or "fixpoint",
        fit=options.fit,
        score_threshold=options.threshold,
        provenance=_provenance(options, origin),
        half_weights=options.half,
    )
    return None


def _write_network(options: argparse.Namespace) -> str | None:
    """The same for all other papers, which have no forms to choose from."""
    if options.names:
        names = options.names.split(",")
    elif options.weights == PUBLISHED:
        names = class_names_published(options.network)
    else:
        return f"--names is needed: a {options.network} does not know what its classes are called"
    if options.proposals or options.per_level:
        return f"--proposals, --per-level: a {options.network} is no Faster R-CNN"
    if len(options.size) > 1:
        return f"--size: a {options.network} is written for one size"
    if options.palette and len(options.palette) != len(names):
        return f"--palette gives {len(options.palette)} colours for {len(names)} names"
    network, origin = load_network(options.network, options.weights, names)
    if options.nms and not isinstance(network, MaskRCNN):
        return f"--nms: the graph of a {options.network} suppresses nothing"
    if options.out.suffix == SUFFIX and isinstance(network, MaskRCNN):
        options.nms = "fixpoint"
    export_network(
        network,
        options.out,
        options.size[0],
        names,
        fit=options.fit,
        objects=Objects(score_threshold=options.threshold),
        palette=options.palette,
        provenance=_provenance(options, origin),
        half_weights=options.half,
        nms_body=options.nms,
    )
    return None


def _provenance(options: argparse.Namespace, origin: Mapping[str, Any]) -> dict[str, Any]:
    told = {**origin, "date": date.today().isoformat(), **dict(options.provenance)}
    return {key: value for key, value in told.items() if value != ""}


if __name__ == "__main__":
    sys.exit(main())
