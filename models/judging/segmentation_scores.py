"""How well classes of pixels are found: pixel accuracy, IoU of each class and their mean (mIoU).

Everything follows from one table of how many pixels of each true class were given each class, over
all pictures together at their full size (Long et al., arXiv:1411.4038, sec. 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from models.data.masks import MaskEntry


class Segmenter(Protocol):
    """What can be judged."""

    class_names: Sequence[str]

    def segment(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 class of each pixel."""
        ...


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class (row) and found class (column).

    Pixels whose truth is no class are left out; a found value that is no class counts in a last
    column of its own.

    Returns:
        (classes, classes + 1) int64.
    """
    counted = truth < classes
    rows = truth[counted].astype(np.int64)
    columns = np.minimum(found[counted].astype(np.int64), classes)
    flat = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def figures_of(table: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Scores from a table of :func:`confusion`.

    Returns:
        ``mIoU`` over the classes that occur in the truth or were found, ``pixel_accuracy``,
        ``mean_accuracy``, ``confusion`` as lists, and ``classes``: name -> IoU, accuracy and
        pixels; -1 where a class neither occurs nor was found.
    """
    count = len(class_names)
    right = table.diagonal()[:count].astype(np.float64)
    true, found = table.sum(1), table[:, :count].sum(0)
    union = true + found - right
    iou = np.divide(right, union, out=np.full(count, -1.0), where=union > 0)
    accuracy = np.divide(right, true, out=np.full(count, -1.0), where=true > 0)
    return {
        "mIoU": mean_of_known(iou),
        "pixel_accuracy": float(right.sum() / max(table.sum(), 1)),
        "mean_accuracy": mean_of_known(accuracy),
        "classes": {
            name: {"IoU": float(i), "accuracy": float(a), "pixels": int(pixels)}
            for name, i, a, pixels in zip(class_names, iou, accuracy, true, strict=True)
        },
        "confusion": table.tolist(),
    }


def miou_of_labelled(figures: Mapping[str, Any]) -> float:
    """The mean over the classes that occur in the truth alone, from :func:`figures_of`.

    For comparing two models: where one of them puts a single pixel into a class that a set does
    not label, that class counts as 0 in its mIoU, and not at all in the other's.
    """
    labelled = [one["IoU"] for one in figures["classes"].values() if one["pixels"]]
    return sum(labelled) / len(labelled) if labelled else 0.0


def mean_of_known(values: np.ndarray) -> float:
    """Mean of what is not -1; 0 if nothing is."""
    return float(values[values >= 0].mean()) if (values >= 0).any() else 0.0


def evaluate_segmentation(segmenter: Segmenter, entries: Iterable[MaskEntry]) -> dict[str, Any]:
    """Run a segmenter over pictures whose labels count as its classes do; see :func:`figures_of`.

    Raises:
        DataError: a picture or its labels cannot be read.
    """
    count = len(segmenter.class_names)
    table = np.zeros((count, count + 1), np.int64)
    for entry in entries:
        image, labels = entry.read()
        table += confusion(labels, segmenter.segment(image), count)
    return figures_of(table, segmenter.class_names)
