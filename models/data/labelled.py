"""Labelled pictures in the formats of COCO and VOC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.data.augment import Labelled
from models.data.class_names import class_of
from models.data.json_files import corners, read_truth
from models.data.masks import rasterise
from models.data.pictures import DataError, read_picture


@dataclass(frozen=True)
class Entry:
    """One labelled picture, not yet read."""

    file: Path
    boxes: np.ndarray
    class_ids: np.ndarray
    ignored: np.ndarray
    regions: np.ndarray | None = None
    """(R, 4) float32 proposals in pixels of the picture; None where nobody asked."""
    segmentations: tuple[Any, ...] | None = None
    """COCO's, one for each box; None where nobody asked, or one is missing."""

    def read(self) -> Labelled:
        """Decode the picture, and draw the masks.

        Raises:
            DataError: the file is missing or no picture.
        """
        item = Labelled(read_picture(self.file), self.boxes, self.class_ids, self.ignored)
        if self.segmentations is not None:
            size_hw = (item.image.shape[0], item.image.shape[1])
            drawn = [rasterise(one, size_hw) for one in self.segmentations]
            item = replace(item, masks=np.array(drawn, np.uint8).reshape(-1, *size_hw))
        return item if self.regions is None else replace(item, regions=self.regions)


def read_coco(
    annotations: Path,
    images: Path,
    class_names: Sequence[str],
    regions: Mapping[str, np.ndarray] | None = None,
    masks: bool = False,
) -> list[Entry]:
    """Entries of what :func:`models.data.json_files.read_truth` reads: a COCO json, or VOC's.

    Crowds and classes the model does not know become ignored regions.

    Args:
        regions: (R, 4) float32 proposals in pixels, by the pictures' file names in the
            annotations.
        masks: keep the segmentations of pictures in which every object has one.

    Raises:
        DataError: the file is missing, foreign, has no class of the model, or a picture has no
            proposals.
    """
    content = read_truth(annotations)
    categories = {c["id"]: class_of(c, class_names) for c in content["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = {i["id"]: [] for i in content["images"]}
    if all(c is None for c in categories.values()):
        raise DataError(f"{annotations} has none of the classes {', '.join(class_names)}")
    for a in content["annotations"]:
        by_image[a["image_id"]].append(a)
    entries = []
    for image in content["images"]:
        every = [a for a in by_image[image["id"]] if a["bbox"][2] > 0 and a["bbox"][3] > 0]
        sure = [
            a for a in every if not a.get("iscrowd") and categories[a["category_id"]] is not None
        ]
        rest = [a for a in every if a.get("iscrowd") or categories[a["category_id"]] is None]
        class_ids = np.array([categories[a["category_id"]] for a in sure], np.int64)
        name = image["file_name"]
        if regions is not None and name not in regions:
            raise DataError(f"no proposals for {name}, which {annotations} lists")
        own = None if regions is None else regions[name]
        drawn = tuple(a.get("segmentation") for a in sure) if masks else (None,)
        segmentations = drawn if all(drawn) else None
        entries.append(
            Entry(images / name, corners(sure), class_ids, corners(rest), own, segmentations)
        )
    return entries


@dataclass(frozen=True)
class Share:
    """A data set and how many times over it counts when pictures are drawn."""

    entries: list[Entry]
    repeat: float = 1.0


def parse_share(
    words: str,
    class_names: Sequence[str],
    regions: Mapping[str, np.ndarray] | None = None,
    masks: bool = False,
) -> Share:
    """``ANNOTATIONS:IMAGES_DIR[:REPEAT]`` as the command line gives it; see :func:`read_coco`.

    Raises:
        DataError: the words do not have this form.
    """
    parts = words.split(":")
    if len(parts) not in (2, 3):
        raise DataError(f"expected ANNOTATIONS:IMAGES_DIR[:REPEAT], got {words!r}")
    repeat = float(parts[2]) if len(parts) == 3 else 1.0
    return Share(read_coco(Path(parts[0]), Path(parts[1]), class_names, regions, masks), repeat)
