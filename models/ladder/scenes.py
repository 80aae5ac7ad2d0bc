"""Coloured blocks on grey ground, to climb the ladder in minutes: labels by construction."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = {"car": (200, 40, 40), "bus": (40, 200, 40)}
"""Name -> red, green and blue of its blocks."""
GROUND = 90


def write_scenes(folder: Path, pictures: int, size_hw: tuple[int, int], seed: int) -> None:
    """A set in both forms: ``instances.json`` of COCO, and masks (see ``models.data.masks``).

    Nothing is written where a whole set lies already. The same seed gives the same pictures.
    """
    done = folder / "instances.json"  # written last
    if done.is_file():
        return
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    names = ("ground", *CLASSES)
    listed = [{"id": i, "name": name} for i, name in enumerate(names)]
    (folder / "classes.json").write_text(json.dumps({"classes": listed}))
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number in range(1, pictures + 1):
        image, labels, objects = scene(size_hw, rng)
        name = f"{number:03}.png"
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
        cv2.imwrite(str(folder / "labels" / name), labels)
        size = {"height": size_hw[0], "width": size_hw[1]}
        images.append({"id": number, "file_name": name, **size})
        for class_id, (x, y, width, height) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": class_id,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    content = {"images": images, "annotations": annotations, "categories": listed[1:]}
    done.write_text(json.dumps(content))


def scene(
    size_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, tuple[int, int, int, int]]]]:
    """One picture (H, W, 3) uint8 RGB, its classes (H, W) uint8, 0 the ground, and its blocks.

    Blocks are (class, (x, y, width, height)), from 1; one stands in each half, so none hides
    another.
    """
    height, width = size_hw
    image = rng.normal(GROUND, 8, (height, width, 3)).clip(0, 255).astype(np.uint8)
    labels = np.zeros(size_hw, np.uint8)
    objects = []
    for half in (0, 1):
        class_id = int(rng.integers(1, len(CLASSES) + 1))
        block_w, block_h = (int(rng.integers(side // 4, side // 2)) for side in (width, height))
        x = half * (width // 2) + int(rng.integers(0, width // 2 - block_w + 1))
        y = int(rng.integers(0, height - block_h + 1))
        colour = list(CLASSES.values())[class_id - 1]
        image[y : y + block_h, x : x + block_w] = colour
        labels[y : y + block_h, x : x + block_w] = class_id
        objects.append((class_id, (x, y, block_w, block_h)))
    return image, labels, objects
