"""Score a detector on labelled pictures with the standard COCO implementation (pycocotools).

    python -m models.evaluate --model street --annotations instances.json --images images
    python -m models.evaluate --model yolox_nano.onnx --annotations instances.json --images images
    python -m models.evaluate --detections results.json --annotations instances.json

How classes meet: a category of the annotations belongs to the model's class of the same COCO number
(``coco_id``, where the annotations have one), else of the same name (VOC's names are understood).
Categories without a counterpart are left out of the truth, and detections of classes the
annotations lack are left out of the results. ``--merge vehicle=car,bus,truck`` counts several
classes as one on both sides; boxes of merged classes that cover the same object are then reduced to
the best.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.class_names import class_of
from models.data import DataError, read_picture
from models.detectors import Detector, load_detector
from models.found import Found, suppress
from models.input_sizes import parse_size

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The 12 figures of ``COCOeval.summarize``, in its order."""


@dataclass(frozen=True)
class Classes:
    """Which classes are scored, and as what."""

    names: list[str]
    """Names of the scored groups; group ``i`` has category id ``i + 1``."""
    of_category: dict[int, int]
    """Category id of the annotations -> group."""
    of_class: dict[int, int]
    """Class id of the model -> group."""


def meet(
    categories: list[dict[str, Any]], class_names: Sequence[str], merge: dict[str, list[str]]
) -> Classes:
    """Pair the annotations' categories with the model's classes.

    Raises:
        DataError: they have nothing in common.
    """
    group_of = {member: name for name, members in merge.items() for member in members}
    group_names = [group_of.get(name, name) for name in class_names]
    matched = {c["id"]: class_of(c, class_names) for c in categories}
    present = {group_names[i] for i in matched.values() if i is not None}
    names = [n for n in dict.fromkeys(group_names) if n in present]
    if not names:
        raise DataError(
            f"annotations and model share no class; the model knows {list(class_names)}"
        )
    return Classes(
        names,
        {c: names.index(group_names[i]) for c, i in matched.items() if i is not None},
        {i: names.index(g) for i, g in enumerate(group_names) if g in present},
    )


def regroup(found: Found, classes: Classes, merged: bool, iou_threshold: float = 0.65) -> Found:
    """Model classes to scored groups; where classes were merged, one box per object."""
    groups = np.array([classes.of_class.get(int(c), -1) for c in found.class_ids], np.int64)
    keep = groups >= 0
    found = Found(found.boxes[keep], found.scores[keep], groups[keep])
    return suppress(found, iou_threshold, len(groups)) if merged and len(found.scores) else found


def results(image_id: int, found: Found) -> list[dict[str, Any]]:
    """COCO result records; category ids are group + 1."""
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    return [
        {
            "image_id": image_id,
            "category_id": int(c) + 1,
            "bbox": [*map(float, box[:2]), *map(float, size)],
            "score": float(s),
        }
        for box, size, s, c in zip(found.boxes, sizes, found.scores, found.class_ids, strict=True)
    ]


def narrowed(truth: dict[str, Any], classes: Classes) -> dict[str, Any]:
    """The annotations with categories replaced by the scored groups."""
    annotations = [
        {**a, "category_id": classes.of_category[a["category_id"]] + 1}
        for a in truth["annotations"]
        if a["category_id"] in classes.of_category
    ]
    categories = [{"id": i + 1, "name": n} for i, n in enumerate(classes.names)]
    return {**truth, "annotations": annotations, "categories": categories}


def score(truth: dict[str, Any], detections: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO figures of detections (result records) against annotations of the same categories.

    Returns:
        the 12 figures by name, ``stats`` in COCO's order, and ``classes``: name -> AP, AP50, AP75,
        boxes.
    """
    # pycocotools prints its progress; the figures are returned instead.
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = COCO()
        wanted.dataset = {"info": {}, **truth}
        wanted.createIndex()
        evaluation = COCOeval(wanted, found_in(wanted, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [float(s) for s in evaluation.stats]
    return {
        **dict(zip(SUMMARY, stats, strict=True)),
        "stats": stats,
        "classes": by_class(evaluation, truth),
    }


def found_in(truth: COCO, detections: list[dict[str, Any]]) -> COCO:
    """Detections as pycocotools wants them; an empty list, which its ``loadRes`` refuses, is
    fine."""
    if detections:
        return truth.loadRes([dict(d) for d in detections])
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def by_class(evaluation: COCOeval, truth: dict[str, Any]) -> dict[str, dict[str, float]]:
    """AP, AP50 and AP75 per category, over all areas and 100 detections; -1 where there is no
    truth."""
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = {c["id"]: c["name"] for c in truth["categories"]}
    out = {}
    for k, category_id in enumerate(map(int, evaluation.params.catIds)):
        own = [a for a in truth["annotations"] if a["category_id"] == category_id]
        counted = sum(not a.get("iscrowd") for a in own)
        parts = {"AP": precision[:, :, k], "AP50": precision[0, :, k], "AP75": precision[5, :, k]}
        out[names[category_id]] = {
            **{n: float(p.mean()) if counted else -1.0 for n, p in parts.items()},
            "boxes": counted,
        }
    return out


def evaluate(
    detector: Detector,
    annotations: Path,
    images: Path,
    merge: dict[str, list[str]] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run a detector over all pictures of a COCO json and score it; see :func:`score`.

    Raises:
        DataError: a picture cannot be read, or no class is shared.
    """
    truth = json.loads(annotations.read_text())
    classes = meet(truth["categories"], detector.class_names, merge or {})
    detections: list[dict[str, Any]] = []
    for image in track(truth["images"], annotations.name, disable=not progress):
        found = detector.detect(read_picture(images / image["file_name"]))
        detections += results(image["id"], regroup(found, classes, bool(merge)))
    return score(narrowed(truth, classes), detections)


def parse_merge(words: Sequence[str]) -> dict[str, list[str]]:
    """``["vehicle=car,bus,truck"]`` -> ``{"vehicle": ["car", "bus", "truck"]}``."""
    parts = [w.partition("=") for w in words]
    return {name: members.split(",") for name, _, members in parts}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="bundled name or ONNX file")
    source.add_argument(
        "--detections", type=Path, help="COCO results file, categories as annotated"
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances json")
    parser.add_argument("--images", type=Path, help="folder of the pictures")
    parser.add_argument("--engine", choices=("onnxruntime", "openvino"), default="onnxruntime")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="OpenVINO only")
    parser.add_argument(
        "--size", type=parse_size, metavar="HxW", help="of several that the model file has"
    )
    parser.add_argument("--nms-iou", type=float, help="instead of the model's own")
    parser.add_argument("--merge", nargs="*", default=[], metavar="NAME=CLASS,CLASS")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if arguments.model and not arguments.images:
        parser.error("--model needs --images")
    return arguments


def show(figures: dict[str, Any]) -> None:
    """Print a table, one row per class and one for all."""
    table = Table("class", "boxes", "AP", "AP50", "AP75")
    total = {"boxes": sum(c["boxes"] for c in figures["classes"].values()), **figures}
    for name, row in [*figures["classes"].items(), ("all", total)]:
        table.add_row(name, str(row["boxes"]), *(f"{row[k]:.3f}" for k in ("AP", "AP50", "AP75")))
    Console().print(table)


def main() -> None:
    """Score what the command line names."""
    arguments = parse_arguments()
    if arguments.detections:
        truth = json.loads(arguments.annotations.read_text())
        figures = score(truth, json.loads(arguments.detections.read_text()))
    else:
        detector = load_detector(
            arguments.model,
            arguments.engine,
            arguments.precision,
            arguments.nms_iou,
            arguments.size,
        )
        merge = parse_merge(arguments.merge)
        figures = evaluate(detector, arguments.annotations, arguments.images, merge, progress=True)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
