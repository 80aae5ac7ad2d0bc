"""Measure what lower precision costs a model file, and write the result into the file.

    python -m models.precision_check street --data VAL.json:IMAGES [VAL.json:IMAGES ...]
    python -m models.precision_check road_segmentation --data MASKS [MASKS ...]
    python -m models.precision_check street_int8 --original street [--data ...]

The line's ``auto`` precision reads the entry ``precision_check`` of the metadata: average
precision, or mIoU of classes of pixels, by precision, the mean over the given data sets. Engine:
OpenVINO on this machine's CPU, for float8 ONNX Runtime. Of bf16 nothing is written where that CPU
has none, and the line then does not take it by itself.

``--original`` is for files of `models.quantize` that do not say which file they were made from,
without which the line does not run them by itself: it holds graph and weights against that file,
and writes it down. Exit codes: 0 written, 2 arguments, 6 it was made from another file.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from models.bad_input import told
from models.data.masks import read_masks
from models.evaluate import evaluate
from models.judging.detectors import load_detector
from models.judging.runners import has_bf16
from models.judging.segmentation_scores import evaluate_segmentation, miou_of_labelled
from models.judging.segmenters import load_segmenter
from models.model_file.reading import METADATA_KEY, description, model_path, read_onnx
from models.quantization.origin import is_made_from, origin

EXIT_REFUSED = 6


def precisions_here() -> tuple[str, ...]:
    """In what a file can be judged on this machine."""
    return ("f32", "bf16") if has_bf16() else ("f32",)


def measure(file: Path, data: Sequence[str], precision: str) -> float:
    """Mean AP over data sets given as ``ANNOTATIONS.json:IMAGES``, or mIoU over sets of masks.

    The latter is of the classes that a set labels: see ``miou_of_labelled``.
    """
    if description(file).get("task") == "semantic":
        segmenter = load_segmenter(str(file), "openvino", precision)
        sets = [read_masks(words, segmenter.class_names) for words in data]
        found = [miou_of_labelled(evaluate_segmentation(segmenter, one.entries)) for one in sets]
        return sum(found) / len(found)
    detector = load_detector(str(file), "openvino", precision)
    pairs = [words.partition(":") for words in data]
    scores = [evaluate(detector, Path(a), Path(images))["AP"] for a, _, images in pairs]
    return sum(scores) / len(scores)


def write_entry(file: Path, more: dict[str, Any]) -> None:
    """Put more into the metadata; the file changes whole or not at all."""
    model = read_onnx(file)
    about = description(file) | more
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about)})
    unfinished = file.with_name(file.name + ".part")
    onnx.save(model, str(unfinished))
    os.replace(unfinished, file)


def checked(file: Path, original: Path | None, data: Sequence[str]) -> dict[str, float]:
    """Scores of the file by precision, and that of its original in f32, if there is one."""
    check = {p: round(measure(file, data, p), 4) for p in precisions_here()}
    return check | ({"original": round(measure(original, data, "f32"), 4)} if original else {})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(
        prog="python -m models.precision_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("model", help="bundled name or ONNX file of ours")
    words.add_argument("--data", nargs="+", default=[], metavar="SET")
    words.add_argument("--original", metavar="MODEL", help="what an int8 file was made from")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; return the exit code."""
    words, told = parser(), Console(soft_wrap=True)
    options = words.parse_args(arguments)
    if not options.data and not options.original:
        words.error("there is nothing to do without --data or --original")
    file = model_path(options.model)
    original = model_path(options.original) if options.original else None
    more: dict[str, Any] = {}
    if original:
        if not is_made_from(original, file):
            told.print(f"error: {file} was not made from {original}; `models.quantize` makes one")
            return EXIT_REFUSED
        more["made_from"] = origin(original)
        told.print(f"{file.name}: made from {original.name}")
    if options.data:
        more["precision_check"] = check = checked(file, original, options.data)
        measure_name = "mIoU" if description(file).get("task") == "semantic" else "AP"
        told.print(f"{file.name}: mean {measure_name} {check}")
        if "bf16" not in check:
            told.print("this CPU has no bf16: the line will run the file in f32, unless asked")
    write_entry(file, more)
    return 0


if __name__ == "__main__":
    with told():
        sys.exit(main())
