"""Of the people in a street, how many are unreadable: ``python -m tests.benchmarks.privacy``.

A clip whose every frame is labelled pixel by pixel goes through the line's own stations up to the
privacy blur, with the bundled model and the defaults. A head is the upper 30 % of a labelled
pedestrian or cyclist at least 40 pixels high (several who overlap are labelled as one); it counts
as unreadable when 90 % of its pixels are. The model was not trained on this camera.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.detect import Shown, detect
from pipeline.drawing.blur import conceal, detect_also_blurred, pixelate
from pipeline.engines import Engine, infer, load_engine
from pipeline.frame import Batch, Boxes
from pipeline.model_file.content import content_sha256
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.preprocess import preprocess
from pipeline.settings import DetectionSettings, EngineSettings, RenderSettings
from pipeline.sources import open_sources
from tests.benchmarks.files import STREET_FILE, best_precision
from tests.benchmarks.material import SHARED_VIDEOS
from tests.benchmarks.outcome import arguments, report

CLIP = SHARED_VIDEOS / "city_day_480x360_15fps.mp4"
LABELS = SHARED_VIDEOS.parent / "seg_camvid"
PEOPLE = ("pedestrian", "bicyclist")
LEAST_HEIGHT, LEAST_AREA = 40, 200  # pixels; smaller ones cannot be recognised anyway
HEAD_SHARE, HIDDEN_SHARE = 0.3, 0.9
WAYS = {
    "person": RenderSettings(blur=("person",)),
    "person, bicycle": RenderSettings(blur=("person", "bicycle")),
    "all": RenderSettings(blur=("all",)),
    "person, blur_frames 0": RenderSettings(blur=("person",), blur_frames=0),
    "person, blur_threshold 0.1": RenderSettings(blur=("person",), blur_threshold=0.1),
    "person, blur_threshold 0.5": RenderSettings(blur=("person",), blur_threshold=0.5),
}
COLUMNS = {
    "name": "render.blur",
    "heads": "heads",
    "hidden": "unreadable",
    "share": "share",
    "missed_at_edge": "missed at the picture's edge",
    "people_pixels": "people's pixels blurred",
    "picture_pixels": "picture blurred",
}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Labelled:
    """What is labelled in a frame.

    Attributes:
        people: (H, W) where people are.
        heads: (H, W) where each head is.
        at_edge: For each head, whether the person reaches the picture's edge.
    """

    people: Mask
    heads: list[Mask]
    at_edge: list[bool]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments("privacy", __doc__, None, argv)
    if not CLIP.exists():
        print(f"not measured: the labelled clip {CLIP.name} is not beside this checkout")
        return
    truth = list(labelled_frames(2 if asked.smoke else None))
    model = read_model_file(STREET_FILE)
    settings = EngineSettings(precision=best_precision())
    with load_engine(model, settings) as engine:
        rows = [
            judged(name, truth, list(blurred_boxes(engine, model, way, len(truth))))
            for name, way in WAYS.items()
        ]
        engine_name = f"{engine.name} {engine.precision}"
    report(
        "privacy",
        asked,
        rows,
        COLUMNS,
        title=f"{CLIP.name}, {len(truth)} labelled frames, model street, {engine_name}",
        notes=["what a row does not say is the default"],
        model_sha256=content_sha256(STREET_FILE),
    )


def labelled_frames(most: int | None) -> Iterator[Labelled]:
    """The labels of the clip's frames, in order."""
    classes = json.loads((LABELS / "classes.json").read_text())["classes"]
    ids = [entry["id"] for entry in classes if entry["name"] in PEOPLE]
    with CLIP.with_suffix(".frames.csv").open(newline="") as table:
        for number, row in enumerate(csv.DictReader(table)):
            assert int(row["frame"]) == number
            if number == most:
                return
            path = LABELS / "val" / "labels" / row["file"]
            yield labelled(np.isin(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), ids))


def labelled(people: Mask) -> Labelled:
    """Find those who are large enough, and their heads."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(people.astype(np.uint8))
    (height, width), heads, at_edge = people.shape, [], []
    for number in range(1, count):
        x, y, wide, high, area = boxes[number].tolist()
        if high < LEAST_HEIGHT or area < LEAST_AREA:
            continue
        head = numbers == number
        head[y + round(HEAD_SHARE * high) :] = False
        heads.append(head)
        at_edge.append(x == 0 or y == 0 or x + wide == width or y + high == height)
    return Labelled(people, heads, at_edge)


def blurred_boxes(
    engine: Engine, model: ModelFile, way: RenderSettings, frames: int
) -> Iterator[Boxes]:
    """What the line blurs in each frame of the clip."""
    detection = DetectionSettings()
    (source,) = open_sources([str(CLIP)])
    batches: Iterator[Batch] = preprocess(
        ([frame] for frame, _ in zip(source.frames(), range(frames), strict=False)),
        model.input_size_hw,
        model.fit,
    )
    found = detect(infer(batches, engine), model, detect_also_blurred(detection, way, model))
    for result in conceal(found, model, Shown(model, detection), way):
        assert result.private is not None
        yield result.private
    source.close()


def unreadable(boxes: Boxes, size_hw: tuple[int, int]) -> Mask:
    """(H, W) which pixels the blur replaces: none of a chequered picture stays as it was."""
    height, width = size_hw
    chequered = (np.indices(size_hw).sum(axis=0) % 2 * 255).astype(np.uint8)
    colour = np.zeros((height // 2, width // 2), np.uint8)
    luma = chequered.copy()
    pixelate((luma, colour, colour.copy()), boxes)
    return luma != chequered


def judged(name: str, truth: Sequence[Labelled], boxes: Sequence[Boxes]) -> dict[str, Any]:
    """Count the heads that cannot be recognised."""
    heads = hidden = missed_at_edge = 0
    people, everything = [], []
    for frame, private in zip(truth, boxes, strict=True):
        gone = unreadable(private, frame.people.shape)
        everything.append(gone.mean())
        people.append([np.count_nonzero(gone & frame.people), np.count_nonzero(frame.people)])
        for head, at_edge in zip(frame.heads, frame.at_edge, strict=True):
            is_hidden = gone[head].mean() >= HIDDEN_SHARE
            heads, hidden = heads + 1, hidden + is_hidden
            missed_at_edge += at_edge and not is_hidden
    covered, all_of_them = np.sum(people, axis=0)
    return {
        "name": name,
        "heads": heads,
        "hidden": int(hidden),
        "share": round(hidden / max(heads, 1), 4),
        "missed_at_edge": int(missed_at_edge),
        "people_pixels": round(float(covered / max(all_of_them, 1)), 4),
        "picture_pixels": round(float(np.mean(everything)), 4),
    }


if __name__ == "__main__":
    main()
