"""Write pictures of the drawn street and their true boxes as a COCO data set.

python -m pipeline.sources.street.dataset OUT --images 2000 --seed 1000 [--masks]

Every street (seed) gives a few frames far apart, so that looks vary more than moments. Objects that
the street counts neither way become ``iscrowd`` regions, which COCO tools ignore. With ``--masks``
the class of every pixel is written too: OUT/labels/*.png, and OUT/classes.json with their names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.drive import STREET_CLASSES, Street, StreetFrame
from pipeline.sources.street.pixel_classes import PIXEL_CLASSES, UNKNOWN

SIZES_HW = ((360, 640), (432, 768), (540, 960))
COCO_IDS = {"person": 1, "bicycle": 2, "car": 3, "motorcycle": 4, "bus": 6, "truck": 8}
SECONDS = 12.0
FPS = 5.0


def frames(
    first_seed: int,
    images: int,
    per_street: int,
    sizes_hw: Sequence[tuple[int, int]] = SIZES_HW,
    masks: bool = False,
) -> Iterator[tuple[str, StreetFrame]]:
    """Name and frame of ``images`` pictures, ``per_street`` of each seed from ``first_seed`` on."""
    for number in range(images):
        seed, turn = first_seed + number // per_street, number % per_street
        if turn == 0:
            street = Street(seed, sizes_hw[seed % len(sizes_hw)], FPS, SECONDS)
        index = (turn * len(street)) // per_street
        yield f"street_{seed:06d}_{index:03d}.jpg", street.frame(index, labelled=masks)


def annotation(box: npt.NDArray[np.float32], category: int, crowd: bool) -> dict[str, object]:
    """One COCO annotation without ids; ``box`` is xyxy in pixels."""
    x1, y1, x2, y2 = (round(float(side), 2) for side in box)
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "category_id": category,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 2),
        "iscrowd": int(crowd),
    }


def truth_records(frame: StreetFrame) -> list[dict[str, object]]:
    """True boxes, then one region of every class for each box that counts neither way."""
    true = [
        annotation(box, int(class_id) + 1, crowd=False)
        for box, class_id in zip(frame.boxes, frame.class_ids, strict=True)
    ]
    # COCO ignores per class, and what is nearly hidden may be of any class.
    unknown = [
        annotation(box, category + 1, crowd=True)
        for box in frame.ignored
        for category in range(len(STREET_CLASSES))
    ]
    return true + unknown


def pixel_classes() -> dict[str, object]:
    """What classes.json says: the value and name of each class, and that of pixels without one."""
    classes = [{"id": i, "name": name} for i, name in enumerate(PIXEL_CLASSES)]
    return {"classes": classes, "ignore_id": UNKNOWN}


def size(words: str) -> tuple[int, int]:
    """Read HxW."""
    height, width = words.split("x")
    return int(height), int(width)


def write(
    out: Path,
    images: int,
    first_seed: int,
    per_street: int,
    sizes_hw: Sequence[tuple[int, int]] = SIZES_HW,
    masks: bool = False,
) -> None:
    """Write OUT/images/*.jpg and OUT/instances.json; with ``masks`` also what names them above."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    if masks:
        (out / "labels").mkdir(exist_ok=True)
        (out / "classes.json").write_text(json.dumps(pixel_classes()))
    pictures: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    for name, frame in frames(first_seed, images, per_street, sizes_hw, masks):
        height, width = frame.image.shape[:2]
        picture = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(out / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        if frame.classes is not None:
            cv2.imwrite(str((out / "labels" / name).with_suffix(".png")), frame.classes)
        pictures.append(
            {"id": len(pictures) + 1, "file_name": name, "height": height, "width": width}
        )
        for found in truth_records(frame):
            boxes.append({**found, "id": len(boxes) + 1, "image_id": len(pictures)})
    categories = [
        {"id": i + 1, "name": name, "coco_id": COCO_IDS[name]}
        for i, name in enumerate(STREET_CLASSES)
    ]
    content = {"categories": categories, "images": pictures, "annotations": boxes}
    (out / "instances.json").write_text(json.dumps(content))


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description="Write the drawn street as a COCO data set.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1000, help="first seed")
    parser.add_argument("--per-street", type=int, default=4, help="pictures of one seed")
    parser.add_argument("--size", type=size, nargs="*", help="HxW in turn; default: three sizes")
    parser.add_argument("--masks", action="store_true", help="write the class of each pixel too")
    given = parser.parse_args()
    sizes_hw = given.size or SIZES_HW
    write(given.out, given.images, given.seed, given.per_street, sizes_hw, given.masks)


if __name__ == "__main__":
    main()
