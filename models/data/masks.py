"""Pictures of which every pixel has a class: folders of masks, VOC's and COCO's segmentation.

    read_masks("camvid/train")  # has images/, labels/ and, here or one folder up, classes.json
    read_masks("VOC2012/ImageSets/Segmentation/train.txt:VOC2012/JPEGImages")
    read_masks("instances.json:images", ("background", "person", "car"))

All come out as classes of one list of names; what has another name is unknown (``IGNORED``).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from models.data.class_names import class_of
from models.data.json_files import read_json
from models.data.pictures import DataError, read_picture
from models.network import IGNORED

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
# One name a line would be a page.
# fmt: off
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)
# fmt: on
"""By the values of VOC's segmentation pictures; 255 is the border between objects, unknown."""


class Mask(Protocol):
    """The labels of one picture, not yet read."""

    def read(self) -> np.ndarray:
        """(H, W) uint8 class of each pixel, ``IGNORED`` where unknown."""
        ...


@dataclass(frozen=True)
class StoredMask:
    """A label picture, whose values are class ids or indices of a palette."""

    file: Path
    table: np.ndarray
    """(256,) uint8: value in the file -> class."""

    def read(self) -> np.ndarray:
        """(H, W) uint8. Raises DataError: missing, or in colours instead of class ids."""
        try:
            with Image.open(self.file) as picture:
                values = np.asarray(picture)
        except OSError as error:
            raise DataError(f"cannot read labels {self.file}: {error}") from error
        if values.ndim != 2 or values.dtype != np.uint8:
            raise DataError(
                f"{self.file} must hold one class id a pixel (8 bit grey or palette), "
                f"got shape {values.shape}, {values.dtype}"
            )
        return self.table[values]


@dataclass(frozen=True)
class DrawnMask:
    """Objects of COCO, one over the other, smaller ones on top; the rest is background."""

    size_hw: tuple[int, int]
    objects: Sequence[tuple[int, Any]] = field(repr=False)
    """Class, and COCO's ``segmentation``: polygons, or a run-length code."""

    def read(self) -> np.ndarray:
        """(H, W) uint8."""
        shapes = [
            (class_id, rasterise(outline, self.size_hw)) for class_id, outline in self.objects
        ]
        labels = np.zeros(self.size_hw, np.uint8)
        # COCO does not say what is in front; a whole object in front of a larger one is usual.
        for class_id, shape in sorted(shapes, key=lambda pair: -int(pair[1].sum())):
            labels[shape] = class_id
        return labels


def rasterise(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """COCO's ``segmentation`` -> (H, W) bool: a list of polygons, or a run-length code."""
    height, width = size_hw
    if isinstance(segmentation, list):
        code = coco_masks.merge(coco_masks.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        code = coco_masks.frPyObjects(segmentation, height, width)
    else:
        code = segmentation
    with warnings.catch_warnings():  # it hands NumPy 2 its array in the way of NumPy 1
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools' own
        return coco_masks.decode(code).astype(bool)


@dataclass(frozen=True)
class MaskEntry:
    """One picture and its labels, not yet read."""

    file: Path
    mask: Mask

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 classes.

        Raises:
            DataError: a file is missing or foreign, or the two differ in size.
        """
        picture, labels = read_picture(self.file), self.mask.read()
        if picture.shape[:2] != labels.shape:
            raise DataError(
                f"{self.file} is {picture.shape[1]}x{picture.shape[0]}, "
                f"its labels are {labels.shape[1]}x{labels.shape[0]}"
            )
        return picture, labels


@dataclass(frozen=True)
class MaskSet:
    """A labelled set, and how many times over it counts when pictures are drawn."""

    entries: list[MaskEntry]
    class_names: tuple[str, ...]
    repeat: float = 1.0


def translation(names: Mapping[int, str], class_names: Sequence[str]) -> np.ndarray:
    """(256,) uint8 from the values of a file to classes; values without a class are unknown."""
    table = np.full(256, IGNORED, np.uint8)
    for value, name in names.items():
        if name in class_names:
            table[value] = class_names.index(name)
    return table


def read_folder(folder: Path, class_names: Sequence[str] | None = None) -> MaskSet:
    """``images/`` and ``labels/`` of equal file names; ``classes.json`` here or one folder up.

    ``classes.json``: ``{"classes": [{"id": 0, "name": "sky"}, ...], "ignore_id": 11}``; ids from 0
    to 254. What bears the ``ignore_id`` is unknown, even if it is listed with a name.

    Args:
        class_names: the order that is wanted; None takes the file's own.

    Raises:
        DataError: a part is missing, or no class is known.
    """
    places = [folder / "classes.json", folder.parent / "classes.json"]
    about = next((p for p in places if p.is_file()), None)
    if about is None:
        raise DataError(f"no classes.json in {folder} or the folder above")
    content = read_json(about)
    try:
        classes = content["classes"]
        own = {int(c["id"]): str(c["name"]) for c in sorted(classes, key=lambda c: c["id"])}
        own.pop(content.get("ignore_id"), None)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{about} does not list classes with id and name: {error!r}") from error
    if strange := [value for value in own if not 0 <= value < IGNORED]:
        raise DataError(f"{about}: a pixel's class is from 0 to {IGNORED - 1}, not {strange[0]}")
    names = tuple(own.values()) if class_names is None else tuple(class_names)
    table = known(translation(own, names), about, names)
    labels = sorted(f for f in (folder / "labels").glob("*.png"))
    if not labels:
        raise DataError(f"no label pictures (*.png) in {folder / 'labels'}")
    pictures = {f.stem: f for f in (folder / "images").glob("*") if f.suffix in PICTURE_SUFFIXES}
    if lacking := [f.stem for f in labels if f.stem not in pictures]:
        raise DataError(f"{folder / 'images'} lacks the picture {lacking[0]} of a label picture")
    return MaskSet([MaskEntry(pictures[f.stem], StoredMask(f, table)) for f in labels], names)


def read_voc(split: Path, images: Path, class_names: Sequence[str] | None = None) -> MaskSet:
    """VOC's ``ImageSets/Segmentation/SPLIT.txt``; the labels lie in ``SegmentationClass``.

    Raises:
        DataError: the list is missing or no class is known.
    """
    if not split.is_file():
        raise DataError(f"no list of pictures {split}")
    names = VOC_CLASSES if class_names is None else tuple(class_names)
    table = known(translation(dict(enumerate(VOC_CLASSES)), names), split, names)
    folder = split.absolute().parent.parent.parent / "SegmentationClass"
    words = split.read_text().split()
    entries = [
        MaskEntry(images / f"{word}.jpg", StoredMask(folder / f"{word}.png", table))
        for word in words
    ]
    return MaskSet(entries, names)


def read_coco(annotations: Path, images: Path, class_names: Sequence[str] | None) -> MaskSet:
    """A COCO json; the first class is the background. Crowds and other classes are unknown.

    Args:
        class_names: None takes "background" and the file's categories.

    Raises:
        DataError: the file is missing, not COCO, or has no known class.
    """
    content = read_json(annotations)
    try:
        listed = ("background", *(c["name"] for c in content["categories"]))
        names = listed if class_names is None else tuple(class_names)
        found = {c["id"]: class_of(c, names) for c in content["categories"]}
        by_image: dict[int, list[tuple[int, Any]]] = {i["id"]: [] for i in content["images"]}
        for a in content["annotations"]:
            own = None if a.get("iscrowd") else found[a["category_id"]]
            outline = a["segmentation"]
            by_image[a["image_id"]].append((IGNORED if own is None else own, outline))
        entries = [
            MaskEntry(
                images / i["file_name"], DrawnMask((i["height"], i["width"]), by_image[i["id"]])
            )
            for i in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{annotations} is not COCO with segmentation: {error!r}") from error
    if all(c is None for c in found.values()):
        raise DataError(f"{annotations} has none of the classes {', '.join(names)}")
    return MaskSet(entries, names)


def known(table: np.ndarray, source: Path, class_names: Sequence[str]) -> np.ndarray:
    """The table itself. Raises DataError if it knows no class at all."""
    if (table == IGNORED).all():
        raise DataError(f"{source} has none of the classes {', '.join(class_names)}")
    return table


def read_masks(words: str, class_names: Sequence[str] | None = None) -> MaskSet:
    """``FOLDER``, ``SPLIT.txt:IMAGES`` or ``JSON:IMAGES``, each with ``[:REPEAT]``.

    Args:
        class_names: the order that is wanted; None takes the set's own.

    Raises:
        DataError: the words do not have this form, or the set cannot be read.
    """
    parts = words.split(":")
    kind = Path(parts[0]).suffix
    wanted = 2 if kind in (".txt", ".json") else 1
    if len(parts) not in (wanted, wanted + 1):
        raise DataError(
            f"expected FOLDER, SPLIT.txt:IMAGES or JSON:IMAGES, with or without :REPEAT, "
            f"got {words!r}"
        )
    repeat = float(parts[wanted]) if len(parts) > wanted else 1.0
    if kind == ".txt":
        read = read_voc(Path(parts[0]), Path(parts[1]), class_names)
    elif kind == ".json":
        read = read_coco(Path(parts[0]), Path(parts[1]), class_names)
    else:
        read = read_folder(Path(parts[0]), class_names)
    return MaskSet(read.entries, read.class_names, repeat)


def class_pixels(entries: Sequence[MaskEntry], classes: int) -> np.ndarray:
    """(E, classes) int64: pixels of each class in each picture. Reads all labels."""
    counts = np.zeros((len(entries), classes), np.int64)
    for row, entry in zip(counts, entries, strict=True):
        row += np.bincount(entry.mask.read().ravel(), minlength=256)[:classes]
    return counts


def median_frequency_weights(counts: np.ndarray) -> np.ndarray:
    """(classes,) float32 weights of the loss that make rare classes count as common ones.

    A class weighs ``median frequency / its frequency``, its frequency being its share of the
    pixels of those pictures in which it occurs (Eigen and Fergus, ICCV 2015, arXiv:1411.4734;
    for CamVid: SegNet, arXiv:1511.00561, sec. 4). Classes that never occur weigh 0.

    Args:
        counts: as from :func:`class_pixels`.
    """
    labelled = counts.sum(1, keepdims=True)
    beside = np.where(counts > 0, labelled, 0).sum(0)
    occurs = beside > 0
    frequency = counts.sum(0)[occurs] / beside[occurs]
    weights = np.zeros(counts.shape[1], np.float32)
    weights[occurs] = np.median(frequency) / frequency
    return weights
