"""Judge a model by labelled pictures.

    python -m models.evaluate --model street --annotations instances.json --images images
    python -m models.evaluate --model yolox_nano.onnx --report out \
        --annotations VOC2007/ImageSets/Main/test.txt --images VOC2007/JPEGImages
    python -m models.evaluate --detections results.json --annotations instances.json
    python -m models.evaluate --model roads.onnx --masks camvid/val
    python -m models.evaluate --network unet --weights model_004000.pt --masks camvid/val

Boxes are judged by COCO's and VOC's average precision (annotations of either), classes of pixels by
mIoU and pixel accuracy. ``--report DIR`` writes the figures, the confusion of classes as a picture,
and a page of the worst cases.

``--merge vehicle=car,bus,truck`` counts several classes as one on both sides; how else classes meet
is said in :mod:`models.judging.coco_scores`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from models.bad_input import told
from models.data.class_names import STREET_NAMES
from models.data.json_files import read_results, read_truth
from models.data.masks import read_masks
from models.data.pictures import DataError, read_picture
from models.judging.coco_scores import meet, narrowed, regroup, results, score
from models.judging.detectors import Detector, ModelFile, load_detector
from models.judging.network_judges import NetworkSegmenter, network_detector
from models.judging.reports import (
    report_detection,
    report_segmentation,
    show_detection,
    show_segmentation,
)
from models.judging.runners import has_bf16
from models.judging.segmentation_scores import Segmenter
from models.judging.segmenters import InWordsOf, load_segmenter
from models.judging.voc_scores import voc_scores
from models.model_file.input_sizes import parse_size
from models.network import Network, Task
from models.papers import PAPERS
from models.proposals import read_proposals
from models.weights import load_network

Records = list[dict[str, Any]]
SIZE_HW = (320, 576)
"""In which a network sees pictures that nothing else is said of."""


def detect_all(
    detector: Detector,
    truth: dict[str, Any],
    images: Path,
    merge: dict[str, list[str]] | None = None,
    progress: bool = False,
    regions: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, Any], Records]:
    """Run a detector over all pictures of COCO annotations.

    Args:
        merge: classes that count as one.
        regions: proposals by file name, for region models; None has them made picture by picture.

    Returns:
        the annotations, narrowed to the classes that both know, and COCO results.

    Raises:
        DataError: a picture cannot be read or has no proposals, or no class is shared.
    """
    names = [image["file_name"] for image in truth["images"]]
    if regions is not None and (missing := [name for name in names if name not in regions]):
        raise DataError(
            f"no proposals for {missing[0]}, {len(missing)} of {len(names)} pictures lack them; "
            "make them for all pictures with python -m models.proposals"
        )
    classes = meet(truth["categories"], detector.class_names, merge or {})
    detections: Records = []
    for image in track(truth["images"], "pictures", disable=not progress):
        picture = read_picture(images / image["file_name"])
        if regions is not None and isinstance(detector, ModelFile):
            found = detector.detect_in(picture, regions[image["file_name"]])
        else:
            found = detector.detect(picture)
        detections += results(image["id"], regroup(found, classes, bool(merge)))
    return narrowed(truth, classes), detections


def score_both(truth: dict[str, Any], detections: Records) -> dict[str, Any]:
    """By COCO's average precision, and under ``VOC`` by VOC's."""
    return {**score(truth, detections), "VOC": voc_scores(truth, detections)}


def evaluate(
    detector: Detector,
    annotations: Path,
    images: Path,
    merge: dict[str, list[str]] | None = None,
    progress: bool = False,
    regions: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Run a detector over labelled pictures and score it; see :func:`score_both`.

    Raises:
        DataError: a picture cannot be read, or no class is shared.
    """
    truth = read_truth(annotations)
    return score_both(*detect_all(detector, truth, images, merge, progress, regions))


def parse_merge(words: Sequence[str]) -> dict[str, list[str]]:
    """``["vehicle=car,bus,truck"]`` -> ``{"vehicle": ["car", "bus", "truck"]}``."""
    parts = [w.partition("=") for w in words]
    return {name: members.split(",") for name, _, members in parts}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="bundled name or ONNX file")
    source.add_argument("--network", choices=sorted(PAPERS), metavar="NAME", help="with --weights")
    source.add_argument(
        "--detections", type=Path, help="COCO results file, categories as annotated"
    )
    add = parser.add_argument
    add("--annotations", type=Path, help="COCO json, or VOC's XML folder or list (.txt)")
    add("--images", type=Path, help="folder of the pictures")
    add("--masks", metavar="SET", help="labels of pixels, see models.data.masks.read_masks")
    add(
        "--weights",
        type=Path,
        help="of --network: what a training wrote (model_STEP.pt, or last.pt for its averaged "
        "weights)",
    )
    add("--classes", help="of --network, comma separated; default: the street's, the masks' own")
    add("--size", type=parse_size, metavar="HxW", help="of several that --model has; of --network")
    add("--regions", type=Path, metavar="NPZ", help="proposals, for models that need them")
    add("--engine", choices=("onnxruntime", "openvino"), help="of --model; default: onnxruntime")
    add("--precision", choices=("f32", "bf16"), default="f32", help="OpenVINO only")
    add("--nms-iou", type=float, help="instead of the model's own or the paper's")
    add(
        "--merge",
        nargs="*",
        default=[],
        metavar="NAME=CLASS,CLASS",
        help="judge the model's CLASSes as NAME; with --masks by the classes of the set",
    )
    add("--threshold", type=float, default=0.5, help="least score in the report")
    add("--report", type=Path, metavar="DIR", help="write figures, confusion and worst cases here")
    add("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if reason := contradiction(arguments):
        parser.error(reason)
    arguments.engine = arguments.engine or "onnxruntime"
    return arguments


WORDS_OF = {
    "classes": ("network",),
    "weights": ("network",),
    "engine": ("model",),
    "size": ("model", "network"),
    "regions": ("model", "network"),
    "nms_iou": ("model", "network"),
}
"""Options that mean something for some of what can be judged, and for which."""


def contradiction(arguments: argparse.Namespace) -> str | None:
    """What of the arguments is missing, or would be ignored; None: nothing."""
    if bool(arguments.annotations) == bool(arguments.masks):
        return "give --annotations for boxes or --masks for classes of pixels"
    if arguments.precision == "bf16" and not (arguments.model and arguments.engine == "openvino"):
        return "--precision bf16 wants --model and --engine openvino; all else is f32"
    if arguments.precision == "bf16" and not has_bf16():
        return "--precision bf16: this processor has none, OpenVINO would compute in f32"
    if arguments.detections and arguments.merge:
        return "--merge: results of a file are judged in the classes that they name"
    for option, sources in WORDS_OF.items():
        given = getattr(arguments, option) is not None
        if given and not any(getattr(arguments, source) for source in sources):
            word = f"--{option.replace('_', '-')}"
            return f"{word} goes with --{' or --'.join(sources)}; leave it out"
    if arguments.network and not arguments.weights:
        return "--network needs --weights"
    if arguments.masks:
        return _contradiction_of_masks(arguments)
    if arguments.network and _task_of(arguments.network) == "semantic":
        return f"a {arguments.network} finds classes of pixels, not objects; judge it with --masks"
    if not arguments.images and (arguments.report or not arguments.detections):
        return "--images is missing, the folder of the annotated pictures"
    return None


def _contradiction_of_masks(arguments: argparse.Namespace) -> str | None:
    if arguments.detections:
        return "--masks: results are boxes; judge them with --annotations"
    if arguments.network and _task_of(arguments.network) != "semantic":
        return (
            f"a {arguments.network} finds objects, not classes of pixels; judge it with "
            "--annotations and --images"
        )
    if arguments.network and arguments.size:
        return "--size: a --network of classes of pixels takes pictures as they are"
    if arguments.regions or arguments.nms_iou is not None:
        return "--regions, --nms-iou: are of boxes, and --masks judges pixels; leave them out"
    return None


def _task_of(name: str) -> Task:
    return cast(Network, PAPERS[name](2)).task


def network_of(arguments: argparse.Namespace, class_names: Sequence[str]) -> torch.nn.Module:
    """The network that ``--network`` names, with its weights, in eval mode."""
    return load_network(arguments.network, str(arguments.weights), class_names)[0]


def detector_of(arguments: argparse.Namespace) -> Detector:
    """The detector that the command line names."""
    if arguments.model:
        return load_detector(
            arguments.model,
            arguments.engine,
            arguments.precision,
            arguments.nms_iou,
            arguments.size,
        )
    names = tuple(arguments.classes.split(",")) if arguments.classes else STREET_NAMES
    network = network_of(arguments, names)
    return network_detector(network, names, arguments.size or SIZE_HW, arguments.nms_iou)


def segmenter_of(arguments: argparse.Namespace) -> Segmenter:
    """The semantic network or model file that the command line names."""
    if arguments.model:
        return load_segmenter(
            arguments.model, arguments.engine, arguments.precision, arguments.size
        )
    given = tuple(arguments.classes.split(",")) if arguments.classes else None
    names = read_masks(arguments.masks, given).class_names
    return NetworkSegmenter(network_of(arguments, names), names)


def judge_boxes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Average precision, table and report of a detector or of its results."""
    truth = read_truth(arguments.annotations)
    if arguments.detections:
        detections = read_results(arguments.detections, truth)
    else:
        regions = read_proposals(arguments.regions) if arguments.regions else None
        merge = parse_merge(arguments.merge)
        detector = detector_of(arguments)
        looks_itself = not (isinstance(detector, ModelFile) and detector.about.get("proposer"))
        if regions is not None and looks_itself:
            raise DataError("--regions: this detector finds its regions itself; leave it out")
        truth, detections = detect_all(detector, truth, arguments.images, merge, True, regions)
    figures = score_both(truth, detections)
    show_detection(figures)
    if arguments.report:
        report_detection(
            arguments.report, figures, truth, detections, arguments.images, arguments.threshold
        )
    return figures


def judge_masks(arguments: argparse.Namespace) -> dict[str, Any]:
    """mIoU and pixel accuracy, table and report of a segmenter."""
    segmenter = segmenter_of(arguments)
    if arguments.merge:
        names = read_masks(arguments.masks).class_names
        segmenter = InWordsOf(segmenter, names, parse_merge(arguments.merge))
    entries = read_masks(arguments.masks, segmenter.class_names).entries
    shown = track(entries, "pictures")
    figures = report_segmentation(arguments.report, segmenter, shown)
    show_segmentation(figures)
    return figures


def main() -> None:
    """Judge what the command line names."""
    arguments = parse_arguments()
    figures = judge_masks(arguments) if arguments.masks else judge_boxes(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    if arguments.report:
        Console().print(f"report: {arguments.report}")


if __name__ == "__main__":
    with told():
        main()
