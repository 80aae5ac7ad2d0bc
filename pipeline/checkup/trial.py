"""Run an engine on a few frames of the drawn street, through the ordinary stations of the line."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from pipeline.checkup.anonymous import anonymous
from pipeline.checkup.isolation import Finding
from pipeline.checkup.parity import ROUGH, bounds_of, compare_boxes, compare_pixels
from pipeline.detect import LOW, detect
from pipeline.engines import Engine, Outputs, load_engine
from pipeline.engines.contract import Answered
from pipeline.engines.int8_form import beside_of
from pipeline.frame import Batch, Detections
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.preprocess import preprocess
from pipeline.settings import DetectionSettings, EngineSettings, LiveSettings
from pipeline.sources import open_sources

STREET = "synthetic://street?seed=7&size=640x360&fps=1&seconds=8"  # 8 frames, a second apart

Answers = dict[str, Any]
"""Arrays by name, as a file of them holds them."""


def known_engines() -> Finding:
    """The engines and precisions that can be asked for, ``auto`` left out."""
    hints = get_type_hints(EngineSettings)
    names, precisions = (
        [choice for choice in get_args(hints[key]) if choice != "auto"]
        for key in ("name", "precision")
    )
    return {"engines": names, "precisions": precisions}


def about_model(model: str) -> Finding:
    """What a model file says about itself, as far as it matters here."""
    file = read_model_file(model)
    return {
        "name": file.path.stem,
        "task": file.task,
        "input_size_hw": list(file.input_size_hw),
        "smaller_hw": [list(size) for size in file.smaller_hw],
        "precision_check": file.precision_check,
        "arithmetic": file.arithmetic,
        "has_int8_form": beside_of(file.path).exists(),
    }


def try_engine(
    engine: str,
    precision: str,
    model: str,
    answers: str | None,
    witness: str | None,
    build: bool,
) -> Finding:
    """Load a model the ordinary way; run it, if wanted, and compare.

    Args:
        engine: Its name, or ``"auto"``.
        precision: Likewise.
        model: Path of the model file.
        answers: Where to write what it says about the frames (.npz); None: do not run it.
        witness: Such a file of another engine, to be compared with.
        build: Whether a plan or machine code may be made, which takes minutes.
    """
    file = read_model_file(model)
    choice: Any = {"name": engine, "precision": precision, "build": build}
    with load_engine(file, EngineSettings(**choice), purpose="camera") as loaded:
        finding = {
            "name": loaded.name,
            "model": loaded.model.path.stem,
            "precision": loaded.precision,
            "reason": anonymous(loaded.reason),  # it may tell why another engine was refused
            "batch": loaded.batch,
            "load_seconds": round(loaded.load_seconds, 3),
        }
        if answers is None:
            return finding
        batches = list(drawn_frames(file))
        outputs, finding["ms_per_call"] = run(loaded, batches)
    arrays = collected(file, batches, outputs)
    np.savez(answers, **arrays)
    if witness is not None and Path(witness).exists():
        with np.load(witness) as kept:
            finding["parity"] = compared(file, dict(kept), arrays, str(finding["precision"]))
    return finding


def drawn_frames(file: ModelFile) -> Iterator[Batch]:
    """The frames, each made ready for a call of its own."""
    (street,) = open_sources(
        [STREET], max_frames=None, duration=None, decoder_threads=1, live=LiveSettings()
    )
    groups = ([frame] for frame in street.frames())
    for batch in preprocess(groups, file.input_size_hw, file.fit):
        yield replace(batch, regions=some_regions(file)) if file.proposer else batch


def some_regions(file: ModelFile) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(1, R, 4) float32 xyxy: for comparing engines any regions do, if they are the same."""
    chance = np.random.default_rng(7)
    height, width = file.input_size_hw
    corners = np.sort(chance.random((1, file.regions, 2, 2)), axis=2) * (width, height)
    return corners.reshape(1, file.regions, 4).astype(np.float32)


def run(engine: Engine, batches: Sequence[Batch]) -> tuple[list[Outputs], float]:
    """The answer to each, and the median time of a call in milliseconds."""
    outputs, seconds = [], []
    for batch in batches:
        started = time.perf_counter()
        outputs.append(engine.infer(batch.images, batch.regions))
        seconds.append(time.perf_counter() - started)
    return outputs, round(statistics.median(seconds) * 1000, 2)


def collected(file: ModelFile, batches: Sequence[Batch], outputs: Sequence[Outputs]) -> Answers:
    """Boxes in pixels of the frames after suppression, or the class of every pixel."""
    if file.is_semantic:
        return {"classes": np.concatenate([output["classes"] for output in outputs])}
    low = DetectionSettings(threshold=max(LOW, file.score_threshold - ROUGH.score))
    answered = zip(batches, map(Answered, outputs), strict=True)
    arrays: Answers = {}
    for i, result in enumerate(detect(answered, file, low)):
        found = result.detections
        arrays |= {f"boxes{i}": found.boxes, f"scores{i}": found.scores, f"ids{i}": found.class_ids}
    return arrays


def compared(file: ModelFile, witness: Answers, found: Answers, precision: str) -> Finding:
    """How alike two answers are, and whether that is enough for the precision."""
    bounds = bounds_of(precision)
    if file.is_semantic:
        return compare_pixels(witness["classes"], found["classes"], bounds)
    sides = (_detections(witness), _detections(found))
    return compare_boxes(*sides, file.score_threshold, bounds)


def _detections(arrays: Answers) -> list[Detections]:
    frames = sum(name.startswith("boxes") for name in arrays)
    return [
        Detections(arrays[f"boxes{i}"], arrays[f"scores{i}"], arrays[f"ids{i}"])
        for i in range(frames)
    ]
