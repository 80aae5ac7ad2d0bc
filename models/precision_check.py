"""Measure what half precision costs a model file, and write the result into the file.

    python -m models.precision_check street --data VAL.json:IMAGES [VAL.json:IMAGES ...]
    python -m models.precision_check road_segmentation --data MASKS [MASKS ...]

The line's ``auto`` precision reads the entry ``precision_check`` of the metadata: average
precision, or mIoU of classes of pixels, by precision, the mean over the given data sets. Engine:
OpenVINO on this machine's CPU.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from models.detectors import load_detector, model_path
from models.evaluate import evaluate
from models.masks import read_masks
from models.segmentation_scores import evaluate_segmentation
from models.segmenters import load_segmenter

PRECISIONS = ("f32", "bf16")
METADATA_KEY = "boxstream"


def measure(file: Path, data: Sequence[str], precision: str) -> float:
    """Mean AP over data sets given as ``ANNOTATIONS.json:IMAGES``, or mIoU over sets of masks."""
    if description(file).get("task") == "semantic":
        segmenter = load_segmenter(str(file), "openvino", precision)
        sets = [read_masks(words, segmenter.class_names) for words in data]
        found = [evaluate_segmentation(segmenter, one.entries)["mIoU"] for one in sets]
        return sum(found) / len(found)
    detector = load_detector(str(file), "openvino", precision)
    pairs = [words.partition(":") for words in data]
    scores = [evaluate(detector, Path(a), Path(images))["AP"] for a, _, images in pairs]
    return sum(scores) / len(scores)


def description(file: Path) -> dict[str, Any]:
    """The metadata entry of a model file of ours."""
    model = onnx.load(str(file), load_external_data=False)
    entries = {p.key: p.value for p in model.metadata_props}
    return dict(json.loads(entries[METADATA_KEY]))


def write_entry(file: Path, check: dict[str, float]) -> None:
    """Put ``precision_check`` into the metadata; the file changes whole or not at all."""
    model = onnx.load(str(file))
    about = description(file) | {"precision_check": check}
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about)})
    unfinished = file.with_name(file.name + ".part")
    onnx.save(model, str(unfinished))
    os.replace(unfinished, file)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure what half precision costs a model file.")
    parser.add_argument("model", help="bundled name or ONNX file of ours")
    parser.add_argument("--data", nargs="+", required=True, metavar="SET")
    arguments = parser.parse_args(words)
    file = model_path(arguments.model)
    check = {p: round(measure(file, arguments.data, p), 4) for p in PRECISIONS}
    write_entry(file, check)
    measure_name = "mIoU" if description(file).get("task") == "semantic" else "AP"
    Console().print(f"{file.name}: mean {measure_name} {check}")


if __name__ == "__main__":
    main()
