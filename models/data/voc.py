"""Pascal VOC's annotations: one XML file a picture, read into the form of a COCO json.

    content = voc_as_coco("VOC2007/ImageSets/Main/trainval.txt")   # Annotations/ lies two up
    content = voc_as_coco("annotations")                           # every XML file of a folder

Objects that are marked ``difficult`` count neither as found nor as missed, so they become crowds.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from models.data.pictures import DataError


def annotation_files(place: Path) -> list[Path]:
    """XML files of a folder, or those that a list in ``ImageSets/Main`` names.

    Raises:
        DataError: there is none.
    """
    if place.is_dir():
        files = sorted(place.glob("*.xml"))
    elif place.is_file():
        folder = place.resolve().parent.parent.parent / "Annotations"
        lines = place.read_text(errors="replace").splitlines()
        # A list of one class has a second column, which says whether the class is in the picture.
        files = [folder / f"{line.split()[0]}.xml" for line in lines if line.strip()]
    else:
        raise DataError(f"no annotations {place}")
    if not files:
        raise DataError(f"{place} names no annotation file (*.xml)")
    return files


def voc_as_coco(place: Path) -> dict[str, Any]:
    """``images``, ``annotations`` and ``categories`` as in a COCO json.

    VOC counts pixels from 1 and includes both ends; here edges are continuous and begin at 0, so a
    box ``xmin, xmax`` becomes ``xmin - 1, xmax`` and keeps the size that VOC's own arithmetic sees.

    Args:
        place: a folder of XML files, or a list such as ``ImageSets/Main/train.txt``.

    Raises:
        DataError: a file is missing or no annotation.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids: dict[str, int] = {}
    for number, file in enumerate(annotation_files(place), 1):
        root = parsed(file)
        try:
            images.append({"id": number, **picture_of(root, file)})
            for thing in root.findall("object"):
                name = str(thing.findtext("name"))
                entry = {"id": len(annotations) + 1, "image_id": number, **object_of(thing)}
                annotations.append({**entry, "category_id": ids.setdefault(name, len(ids) + 1)})
        except (TypeError, ValueError) as error:
            raise DataError(f"{file} is not a VOC annotation: {error}") from error
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def parsed(file: Path) -> ElementTree.Element:
    """The root of an XML file. Raises DataError: it is missing or broken."""
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"cannot read annotation {file}: {error}") from error


def picture_of(root: ElementTree.Element, file: Path) -> dict[str, Any]:
    """File name and size in pixels; some tools leave out the suffix of the picture."""
    name = root.findtext("filename") or f"{file.stem}.jpg"
    size = root.find("size")
    width, height = (
        int(float(str(size.findtext(side)))) if size is not None else 0
        for side in ("width", "height")
    )
    return {"file_name": name, "width": width, "height": height}


def object_of(thing: ElementTree.Element) -> dict[str, Any]:
    """Box and ``iscrowd`` of one object."""
    box = thing.find("bndbox")
    if box is None:
        raise ValueError("an object has no bndbox")
    x1, y1, x2, y2 = (float(str(box.findtext(n))) for n in ("xmin", "ymin", "xmax", "ymax"))
    width, height = x2 - x1 + 1, y2 - y1 + 1
    difficult = int(str(thing.findtext("difficult") or 0).strip() or 0)
    return {
        "bbox": [x1 - 1, y1 - 1, width, height],
        "area": width * height,
        "iscrowd": difficult,
    }
