"""The command that writes a network as a model file (:mod:`models.model_file.writing`).

    python -m models.export mobilenet_v3_large_320_fpn --weights DEFAULT --size 360x640 --out m.onnx
    python -m models.export deeplab_v3 --weights runs/road/model_009000.pt --size 288x512 \
        --names road,car,sky --palette 128,64,128/0,0,142/70,130,180 --out road.onnx

``--size`` more than once writes a file that can be run at several sizes; a name that ends in
``.pt2`` asks for a program of torch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from math import prod
from typing import Any, cast

import torchvision

from models.bad_input import ends_in, told
from models.data.class_names import STREET_NAMES
from models.detection.architectures import ARCHITECTURES, COCO_CLASSES
from models.detection.faster_rcnn import NMS_BODIES, OUTPUTS, FasterRCNN
from models.detection.mask_rcnn import MaskRCNN
from models.model_file.input_sizes import parse_size
from models.model_file.writing import Objects, export, export_network
from models.papers import PAPERS, SINGLE_MAP
from models.program import SUFFIX
from models.published import PUBLISHED
from models.weights import WeightsError, class_names_published, load_network, load_weights

EXIT_ARGUMENTS, EXIT_MODEL = 2, 4


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
    words.add_argument(
        "--weights",
        required=True,
        metavar="FILE|DEFAULT",
        help="what a training wrote (model_STEP.pt, or last.pt for its averaged weights), or "
        "DEFAULT for torchvision's, which are fetched",
    )
    words.add_argument(
        "--size",
        required=True,
        type=parse_size,
        action="append",
        metavar="HxW",
        help="of the frames; give more for a file that can also be run at smaller ones",
    )
    words.add_argument("--out", required=True, type=ends_in(".onnx", SUFFIX), metavar="FILE")
    words.add_argument(
        "--form",
        choices=list(OUTPUTS),
        default="candidates",
        help="of a Faster R-CNN: candidates (unless given) leaves the last suppression to the "
        "line, where it can be set; detections has it in the graph",
    )
    words.add_argument(
        "--nms",
        choices=list(NMS_BODIES),
        help="how suppression is written in the graph of a Faster R-CNN (fixpoint unless given) or "
        "a Mask R-CNN (nonmaxsuppression unless given); TensorRT takes fixpoint",
    )
    words.add_argument(
        "--fit",
        choices=["letterbox", "stretch"],
        default="letterbox",
        help="how frames of another shape are brought to --size: letterbox (unless given) keeps "
        "theirs, between grey bars; stretch fills",
    )
    words.add_argument("--threshold", type=score, default=0.5, help="recommended score")
    words.add_argument(
        "--min-score",
        type=score,
        metavar="S",
        help="below it the graph of a Faster R-CNN itself finds nothing",
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
    words.add_argument(
        "--names",
        metavar="A,B,...",
        help="of the classes, background left out. Unless given, a Faster R-CNN with a pyramid "
        "has the street's if it has six, COCO's if it has 90, else 'class 0' and so on; published "
        "weights bring their own; all else needs them",
    )
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
    if options.palette:
        return (
            f"--palette: a {options.network} finds objects, which are drawn in the line's colours"
        )
    if options.network in ARCHITECTURES:
        model, origin = load_weights(options.network, options.weights)
        names = options.names.split(",") if options.names else class_names_of(model.num_classes)
        if not options.names and options.weights != PUBLISHED:
            print(f"--names was not given; the classes are taken for {', '.join(names)}")
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
    if options.min_score is not None:
        return f"--min-score: a {options.network} is no Faster R-CNN; it keeps its own"
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
    with told():
        sys.exit(main())
