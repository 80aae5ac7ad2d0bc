"""What a training is judged by while it runs: one row of figures for each validation set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from models.data.masks import read_masks
from models.evaluate import evaluate
from models.judging.network_judges import NetworkSegmenter, network_detector
from models.judging.segmentation_scores import evaluate_segmentation

Row = dict[str, Any]
Regions = Mapping[str, np.ndarray] | None
"""Proposals of a set by file name; None has a region network's proposer run picture by picture."""


def validate_detection(
    network: nn.Module,
    class_names: Sequence[str],
    size_hw: tuple[int, int],
    sets: Sequence[str],
    regions: Sequence[Regions],
) -> Iterator[Row]:
    """AP at IoU 0.5, over all and by class; sets: ``ANNOTATIONS:IMAGES``, each with its regions."""
    if not sets:
        return
    judge = network_detector(network, class_names, size_hw)
    for words, own in zip(sets, regions, strict=True):
        annotations, _, images = words.partition(":")
        figures = evaluate(judge, Path(annotations), Path(images), regions=own)
        per_class = {n: round(c["AP50"], 4) for n, c in figures["classes"].items()}
        yield {"set": annotations, "AP50": round(figures["AP50"], 4), "classes": per_class}


def validate_semantic(
    network: nn.Module, class_names: Sequence[str], sets: Sequence[str]
) -> Iterator[Row]:
    """mIoU and pixel accuracy at the full size of the pictures; sets as for ``read_masks``."""
    judge = NetworkSegmenter(network, class_names)
    for words in sets:
        figures = evaluate_segmentation(judge, read_masks(words, class_names).entries)
        per_class = {n: round(c["IoU"], 4) for n, c in figures["classes"].items()}
        main = {n: round(figures[n], 4) for n in ("mIoU", "pixel_accuracy")}
        yield {"set": words, **main, "classes": per_class}
