"""Figures as tables in the terminal, and as a folder to keep: JSON, confusion, worst cases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from models.data.masks import MaskEntry
from models.judging.confusion_picture import draw_confusion
from models.judging.detection_errors import detection_confusion, judge
from models.judging.segmentation_scores import Segmenter, confusion, figures_of
from models.judging.worst_cases import LEGEND, Case, detection_cases, semantic_case, write_page

FIGURES, CONFUSION, WORST = "figures.json", "confusion.png", "worst.html"
MOST_CASES = 24


def show_detection(figures: dict[str, Any]) -> None:
    """Print a table, one row per class and one for all."""
    table = Table("class", "boxes", "AP", "AP50", "AP75", "VOC 11 points", "VOC all points")
    total = {"boxes": sum(c["boxes"] for c in figures["classes"].values()), **figures}
    voc = figures["VOC"]
    for name, row in [*figures["classes"].items(), ("all", total)]:
        own = voc if name == "all" and row is total else voc["classes"][name]
        by_voc = (f"{own[k]:.3f}" for k in ("11 points", "all points"))
        coco = (f"{row[k]:.3f}" for k in ("AP", "AP50", "AP75"))
        table.add_row(name, str(row["boxes"]), *coco, *by_voc)
    Console().print(table)


def show_segmentation(figures: dict[str, Any]) -> None:
    """Print a table, one row per class and one for all."""
    table = Table("class", "pixels", "IoU", "accuracy")
    for name, row in figures["classes"].items():
        table.add_row(name, str(row["pixels"]), f"{row['IoU']:.3f}", f"{row['accuracy']:.3f}")
    pixels = sum(row["pixels"] for row in figures["classes"].values())
    table.add_row("all", str(pixels), f"{figures['mIoU']:.3f}", f"{figures['mean_accuracy']:.3f}")
    Console().print(table, f"pixel accuracy {figures['pixel_accuracy']:.3f}")


def report_detection(
    folder: Path,
    figures: dict[str, Any],
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    images: Path,
    score_threshold: float,
) -> None:
    """Write figures, confusion and worst cases of a detector.

    Args:
        truth: COCO annotations; detections: COCO results of the same categories.
        images: folder of the pictures.
        score_threshold: detections below it are in neither confusion nor worst cases.

    Raises:
        DataError: a picture cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judged = judge(truth, detections, score_threshold)
    table = detection_confusion(judged, truth["categories"])
    names = [*(c["name"] for c in truth["categories"]), "background"]
    (folder / FIGURES).write_text(json.dumps({**figures, "confusion": table.tolist()}, indent=1))
    draw_confusion(table, names, names, folder / CONFUSION)
    cases = detection_cases(truth, judged, images, MOST_CASES)
    note = f"{LEGEND}. Boxes from score {score_threshold}, at IoU 0.5."
    write_page(folder / WORST, "Pictures with the most mistakes", note, cases)


def report_segmentation(
    folder: Path | None, segmenter: Segmenter, entries: Iterable[MaskEntry]
) -> dict[str, Any]:
    """Run a segmenter over pictures; returns its figures, and writes them where there is a folder.

    Raises:
        DataError: a picture or its labels cannot be read.
    """
    count = len(segmenter.class_names)
    table = np.zeros((count, count + 1), np.int64)
    worst: list[tuple[float, Case]] = []
    for entry in entries:
        image, labels = entry.read()
        found = segmenter.segment(image)
        own = confusion(labels, found, count)
        table += own
        if folder is not None:
            wrong = 1 - own.diagonal().sum() / max(own.sum(), 1)
            case = semantic_case(entry.file.name, image, labels, found, count)
            worst = sorted([*worst, (wrong, case)], key=lambda pair: -pair[0])[:MOST_CASES]
    figures = figures_of(table, segmenter.class_names)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FIGURES).write_text(json.dumps(figures, indent=1))
        names = list(segmenter.class_names)
        draw_confusion(table[:, :count], names, names, folder / CONFUSION)
        note = "Picture, truth, what was found, and in white what is wrong of what is known."
        cases = [case for _, case in worst]
        write_page(folder / WORST, "Pictures with the largest errors", note, cases)
    return figures
