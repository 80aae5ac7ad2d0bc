"""Labelled pictures on disk, and the average precision that an engine reaches on them.

A set is a COCO json and the folder of its pictures, ``VAL.json:IMAGES``. Every score counts,
suppression is the model file's, and the arithmetic is COCO's: the mean over IoU thresholds of 0.5
to 0.95 and over the classes that occur. Pictures are read and made smaller by OpenCV, and not as
the line does it, so that the figure is that of `models.evaluate`.

A category of the set belongs to the class of the same name, or, where the set says under
``coco_id`` which class of COCO's it is, to the one of that number; null there means that it is
none. What the model does not know is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from pipeline.bookkeeping.score import HIT, IGNORED, MOST_PER_FRAME, average_precision, match
from pipeline.detect import detect
from pipeline.engines import Engine, infer
from pipeline.engines.contract import Size
from pipeline.errors import ConfigError
from pipeline.frame import Batch, Boxes, Detections, Frame
from pipeline.model_file.reading import Fit, ModelFile
from pipeline.placement import PADDING, Placement
from pipeline.settings import DetectionSettings
from pipeline.sources.street.dataset import COCO_IDS

Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
EVERY_SCORE = DetectionSettings(threshold=0.0, max_detections=MOST_PER_FRAME)

_PARTS = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


@dataclass(frozen=True)
class LabelledPicture:
    """One picture, not yet read.

    Attributes:
        path: Its file.
        boxes: (T, 4) float32 xyxy in its pixels.
        class_ids: (T,) int64, the model's.
        is_crowd: (T,) whether a box stands for many objects, and counts neither way.
    """

    path: Path
    boxes: Boxes
    class_ids: npt.NDArray[np.int64]
    is_crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledSet:
    """Pictures, and the name of their set."""

    name: str
    pictures: tuple[LabelledPicture, ...]


def read_labelled_set(words: str, model: ModelFile) -> LabelledSet:
    """Read a COCO json, in the classes of the model; of the pictures, that they are there.

    Args:
        words: ``VAL.json:IMAGES``.
        model: Finds objects, and looks for itself where.

    Raises:
        ConfigError: The set is none, has no picture or no class of the model, or the model is of
            another kind.
    """
    if model.is_semantic or model.proposer:
        kind = "classes of pixels" if model.is_semantic else "what its proposer shows it"
        raise ConfigError(
            f"--data takes an average precision of objects, but {model.path.name} finds {kind}; "
            "leave --data out, the plan is compared with a CPU engine all the same"
        )
    file, _, folder = words.partition(":")
    if not folder:
        raise ConfigError(f"--data wants VAL.json:IMAGES, a COCO json and a folder, not {words!r}")
    content = _coco(Path(file))
    classes = {one["id"]: _class_of(one, model.class_names) for one in content["categories"]}
    if all(class_id is None for class_id in classes.values()):
        raise ConfigError(
            f"{file!r} has none of the classes of {model.path.name} "
            f"({', '.join(model.class_names)}); give a set of pictures labelled with them"
        )
    records: dict[Any, list[dict[str, Any]]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        if one["image_id"] not in records or one["category_id"] not in classes:
            raise ConfigError(
                f"{file!r} labels the picture {one['image_id']!r} with the category "
                f"{one['category_id']!r}, and does not list both; write the set anew"
            )
        if classes[one["category_id"]] is not None:
            records[one["image_id"]].append(one)
    pictures = []
    for image in content["images"]:
        path = Path(folder, image["file_name"])
        if not path.is_file():
            raise ConfigError(f"there is no picture {str(path)!r}; --data wants VAL.json:IMAGES")
        pictures.append(_labelled(path, records[image["id"]], classes, file))
    if all(picture.is_crowd.all() for picture in pictures):
        raise ConfigError(f"{file!r} labels no object in a picture; give a set that does")
    return LabelledSet(file, tuple(pictures))


def mean_ap(engine: Engine, size_hw: Size, sets: Sequence[LabelledSet]) -> float:
    """What an engine reaches with images of that size, 0 to 1: the mean over the sets.

    Raises:
        ConfigError: A picture cannot be read.
        EngineError: The engine fails.
    """
    return float(np.mean([_ap(engine, size_hw, one) for one in sets]))


def _ap(engine: Engine, size_hw: Size, labelled: LabelledSet) -> float:
    model = engine.model
    answers = infer(_batches(labelled, size_hw, model.fit, engine.batch), engine)
    books = [_Book() for _ in model.class_names]
    for result, picture in zip(detect(answers, model, EVERY_SCORE), labelled.pictures, strict=True):
        for class_id, book in enumerate(books):
            found = result.detections[result.detections.class_ids == class_id]
            book.add(found, picture, class_id)
    return float(np.mean([book.average_precision() for book in books if book.positives]))


class _Book:
    """What is remembered of one class."""

    def __init__(self) -> None:
        self.positives = 0
        self._scores = list[npt.NDArray[np.float32]]()
        self._matched = list[npt.NDArray[np.int64]]()

    def add(self, found: Detections, picture: LabelledPicture, class_id: int) -> None:
        own = picture.class_ids == class_id
        real, crowd = (picture.boxes[own & (picture.is_crowd == is_crowd)] for is_crowd in (0, 1))
        best = found[np.argsort(-found.scores, kind="stable")[:MOST_PER_FRAME]]
        self.positives += len(real)
        self._scores.append(best.scores)
        self._matched.append(np.stack([match(best.boxes, real, crowd, iou) for iou in IOUS]))

    def average_precision(self) -> float:
        """Mean over the IoU thresholds."""
        scores = np.concatenate(self._scores).astype(np.float64)
        found = []
        for matched in np.concatenate(self._matched, axis=1):
            counts = matched != IGNORED
            ap = average_precision(scores[counts], matched[counts] == HIT, self.positives)
            found.append(ap or 0.0)
        return float(np.mean(found))


def _batches(labelled: LabelledSet, size_hw: Size, fit: Fit, most: int) -> Iterator[Batch]:
    place = {"letterbox": Placement.letterbox, "stretch": Placement.stretch}[fit]
    for begin in range(0, len(labelled.pictures), most):
        group = labelled.pictures[begin : begin + most]
        pictures = [_read(one.path) for one in group]
        placements = tuple(place(picture.shape[:2], size_hw) for picture in pictures)
        images = np.stack([_fitted(*each) for each in zip(pictures, placements, strict=True)])
        frames = (_frame(picture, labelled.name) for picture in pictures)
        yield Batch(tuple(frames), images, placements)


def _read(path: Path) -> Picture:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(
            f"the labelled picture {str(path)!r} cannot be read; replace it, or take it out of its "
            "set"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _fitted(picture: Picture, placement: Placement) -> Picture:
    """The picture in its place between grey bars."""
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    shrinks = height < picture.shape[0] and width < picture.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = np.full((*placement.input_hw, 3), PADDING, np.uint8)
    scaled = cv2.resize(picture, (width, height), interpolation=way)
    image[top : top + height, left : left + width] = scaled
    return image


def _frame(picture: Picture, name: str) -> Frame:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return Frame(frame, name, 0, 0, Fraction(1), time.monotonic())


def _coco(file: Path) -> dict[str, Any]:
    """The content of a COCO json, as far as it is looked at."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the labels {str(file)!r} ({error.strerror}); --data wants VAL.json:IMAGES"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{str(file)!r} is no JSON ({error}); --data wants VAL.json:IMAGES, labels as COCO's"
        ) from error
    for part, keys in _PARTS.items():
        records = content.get(part) if isinstance(content, dict) else None
        if not isinstance(records, list) or not all(_has(one, keys) for one in records):
            raise ConfigError(
                f"{str(file)!r} is no COCO json of boxes: it has no {part} with {', '.join(keys)}; "
                "--data wants VAL.json:IMAGES"
            )
    return dict(content)


def _has(record: Any, keys: Sequence[str]) -> bool:
    """Whether it says all that, its box as anything, the rest as a word or a number."""
    return isinstance(record, dict) and all(
        key == "bbox" or isinstance(record.get(key), str | int) for key in keys
    )


def _class_of(category: dict[str, Any], class_names: Sequence[str]) -> int | None:
    """The model's class for a category of the set."""
    name = category["name"]
    if "coco_id" in category:
        number = category["coco_id"]
        if number is None:
            return None
        name = {known: called for called, known in COCO_IDS.items()}.get(number, name)
    return class_names.index(name) if name in class_names else None


def _labelled(
    path: Path, records: list[dict[str, Any]], classes: dict[Any, int | None], file: str
) -> LabelledPicture:
    try:
        boxes = np.array([one["bbox"] for one in records], np.float32).reshape(len(records), 4)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{file!r} has a bbox in {path.name!r} that is not x, y, width and height; write the "
            "set anew"
        ) from None
    boxes[:, 2:] += boxes[:, :2]
    class_ids = np.array([classes[one["category_id"]] for one in records], np.int64)
    is_crowd = np.array([bool(one.get("iscrowd")) for one in records], np.bool_)
    return LabelledPicture(path, boxes, class_ids, is_crowd)
