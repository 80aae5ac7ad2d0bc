"""A page of the pictures with the largest errors, to look at: one HTML file, pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.data.pictures import read_picture
from models.judging.detection_errors import Judged
from models.network import IGNORED

RIGHT, CONFUSED, MISSED, INVENTED = (60, 200, 60), (250, 160, 0), (255, 230, 0), (230, 30, 30)
LEGEND = "green: found; orange: found as another class; yellow: missed; red: not there"
STYLE = (
    "body{font:14px sans-serif;margin:1em;background:#fff;color:#111}"
    "figure{margin:0 0 1.5em}img{max-width:100%}"
)


@dataclass(frozen=True)
class Case:
    """One picture of the page."""

    caption: str
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""


def write_page(file: Path, title: str, note: str, cases: Iterable[Case]) -> None:
    """Write the page; it needs no other file and no network."""
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>"
    ]
    for case in cases:
        coded, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(case.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85]
        )
        assert coded  # any picture can be
        data = base64.b64encode(jpeg.tobytes()).decode()
        parts.append(
            f"<figure><figcaption>{html.escape(case.caption)}</figcaption>"
            f'<img src="data:image/jpeg;base64,{data}" alt=""></figure>'
        )
    file.write_text("\n".join(parts))


def detection_cases(
    truth: dict[str, Any], judged: Sequence[Judged], images: Path, most: int = 24
) -> list[Case]:
    """The pictures with the most mistakes, boxes drawn; pictures without one are left out.

    Raises:
        DataError: a picture cannot be read.
    """
    names = {c["id"]: c["name"] for c in truth["categories"]}
    files = {i["id"]: i["file_name"] for i in truth["images"]}
    worst = sorted((j for j in judged if j.mistakes), key=lambda j: -j.mistakes)[:most]
    cases = []
    for one in worst:
        image = read_picture(images / files[one.image_id])
        confused = sum(a["category_id"] != d["category_id"] for a, d in one.pairs)
        caption = (
            f"{files[one.image_id]}: {len(one.missed)} missed, {len(one.invented)} not there, "
            f"{confused} of another class, {len(one.pairs) - confused} right"
        )
        cases.append(Case(caption, drawn(image, one, names)))
    return cases


def drawn(image: np.ndarray, judged: Judged, names: dict[int, str]) -> np.ndarray:
    """A copy of the picture with what was found, confused, missed and invented."""
    image = image.copy()
    for a, d in judged.pairs:
        same = a["category_id"] == d["category_id"]
        draw_box(image, d, names, RIGHT if same else CONFUSED)
    for a in judged.missed:
        draw_box(image, a, names, MISSED)
    for d in judged.invented:
        draw_box(image, d, names, INVENTED)
    return image


def draw_box(
    image: np.ndarray, record: dict[str, Any], names: dict[int, str], colour: tuple[int, int, int]
) -> None:
    """A box, its class and its score, in place."""
    x, y, width, height = record["bbox"]
    corner, other = (round(x), round(y)), (round(x + width), round(y + height))
    cv2.rectangle(image, corner, other, colour, 2)
    text = names[record["category_id"]]
    if "score" in record:
        text += f" {record['score']:.2f}"
    at = (corner[0], max(corner[1] - 4, 10))
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def palette(classes: int) -> np.ndarray:
    """(256, 3) uint8 RGB: evenly spread hues, two brightnesses; black where unknown."""
    hues = (np.arange(classes) * 180 // max(classes, 1)).astype(np.uint8)
    value = np.where(np.arange(classes) % 2, 170, 240).astype(np.uint8)
    hsv = np.stack([hues, np.full(classes, 190, np.uint8), value], 1)[None]
    colours = np.zeros((256, 3), np.uint8)
    if classes:
        colours[:classes] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    return colours


def semantic_case(
    name: str, image: np.ndarray, labels: np.ndarray, found: np.ndarray, classes: int
) -> Case:
    """Picture, truth, what was found, and where it is wrong (white), side by side."""
    colours = palette(classes)
    wrong = (labels != found) & (labels != IGNORED)
    marked = np.repeat((wrong * 255).astype(np.uint8)[..., None], 3, 2)
    row = np.concatenate([image, colours[labels], colours[found], marked], 1)
    share = wrong.sum() / max((labels != IGNORED).sum(), 1)
    return Case(f"{name}: {100 * share:.1f} % of the known pixels wrong", row)
