"""Measure what half precision costs a model file, and write the result into the file.

    python -m models.precision_check street --data VAL.json:IMAGES [VAL.json:IMAGES ...]

The line's ``auto`` precision reads the entry ``precision_check`` of the metadata: average precision
by precision, the mean over the given data sets. Engine: OpenVINO on this machine's CPU.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import onnx
from rich.console import Console

from models.detectors import load_detector, model_path
from models.evaluate import evaluate

PRECISIONS = ("f32", "bf16")
METADATA_KEY = "boxstream"


def measure(file: Path, data: Sequence[str], precision: str) -> float:
    """Mean AP over data sets given as ``ANNOTATIONS.json:IMAGES``."""
    detector = load_detector(str(file), "openvino", precision)
    pairs = [words.partition(":") for words in data]
    scores = [evaluate(detector, Path(a), Path(images))["AP"] for a, _, images in pairs]
    return sum(scores) / len(scores)


def write_entry(file: Path, check: dict[str, float]) -> None:
    """Put ``precision_check`` into the metadata; the file changes whole or not at all."""
    model = onnx.load(str(file))
    about = json.loads({p.key: p.value for p in model.metadata_props}[METADATA_KEY])
    about["precision_check"] = check
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about)})
    unfinished = file.with_name(file.name + ".part")
    onnx.save(model, str(unfinished))
    os.replace(unfinished, file)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure what half precision costs a model file.")
    parser.add_argument("model", help="bundled name or ONNX file of ours")
    parser.add_argument("--data", nargs="+", required=True, metavar="JSON:IMAGES")
    arguments = parser.parse_args(words)
    file = model_path(arguments.model)
    check = {p: round(measure(file, arguments.data, p), 4) for p in PRECISIONS}
    write_entry(file, check)
    Console().print(f"{file.name}: mean AP {check}")


if __name__ == "__main__":
    main()
