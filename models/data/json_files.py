"""JSON files that are given: COCO's annotations and results, and others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.data.pictures import DataError
from models.data.voc import voc_as_coco

PICTURES = {"images": ("file_name",)}
"""What of annotations is read where only the pictures matter: keys of each record of a list."""
ANNOTATIONS = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
"""What is read of annotations of boxes."""
RESULT = ("image_id", "category_id", "bbox", "score")


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises DataError: it is not there, or no JSON."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"there is no {file}") from None
    except ValueError as error:  # no JSON, or no text at all
        raise DataError(f"{file} is no JSON: {error}") from error


def read_truth(annotations: Path) -> dict[str, Any]:
    """The content of a COCO json, or VOC's annotations in that form.

    Args:
        annotations: a json file, a folder of VOC's XML files, or a list of pictures (.txt) in
            VOC's ``ImageSets/Main``.

    Raises:
        DataError: it is not there or of another form.
    """
    if annotations.is_dir() or annotations.suffix == ".txt":
        return voc_as_coco(annotations)
    return read_coco_json(annotations)


def read_coco_json(file: Path, parts: Mapping[str, Sequence[str]] = ANNOTATIONS) -> dict[str, Any]:
    """The content of a COCO json.

    Raises:
        DataError: it is not there, lacks one of these parts, or has annotations of pictures or
            categories that it does not list (ids once as words and once as numbers, say): to leave
            them out would make background of what they mark.
    """
    content = read_json(file)
    for part, keys in parts.items():
        listed = content.get(part) if isinstance(content, dict) else None
        if not isinstance(listed, list):
            raise DataError(f"{file} is not a COCO annotation file: it has no {part}")
        if lacking := _lacking(listed, keys):
            raise DataError(
                f"{file} is not a COCO annotation file of boxes: it has {part} without {lacking}"
            )
    if "annotations" in parts:
        for part, key in (("images", "image_id"), ("categories", "category_id")):
            known = {one["id"] for one in content[part]}
            strange = [a[key] for a in content["annotations"] if a[key] not in known]
            if strange:
                raise DataError(
                    f"{file} has annotations, {len(strange)} of {len(content['annotations'])}, "
                    f"whose {key} is not among its {part}, such as {strange[0]!r}"
                )
    return dict(content)


def corners(annotations: list[dict[str, Any]]) -> np.ndarray:
    """COCO ``x, y, width, height`` as (N, 4) float32 ``x1, y1, x2, y2``."""
    boxes = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def read_results(file: Path, truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """COCO results of the annotated pictures.

    Raises:
        DataError: the file is not there, of another form, or has results for other pictures.
    """
    found = read_json(file)
    if not isinstance(found, list) or _lacking(found, RESULT):
        raise DataError(f"{file} holds no COCO results: a list of {', '.join(RESULT)}")
    known = {image["id"] for image in truth["images"]}
    for one in found:
        if one["image_id"] not in known:
            raise DataError(f"{file}: picture {one['image_id']} is not among the annotated ones")
    return found


def _lacking(records: Sequence[Any], keys: Sequence[str]) -> str | None:
    """The first key that one of the records has not."""
    for one in records:
        for key in keys:
            if not isinstance(one, dict) or key not in one:
                return key
    return None
