"""Semantic model files as something to try on pictures of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from models.boxes import SizeHW
from models.data.pictures import DataError
from models.judging.detectors import fit, open_model
from models.judging.runners import Runner
from models.judging.segmentation_scores import Segmenter
from models.model_file.reading import model_path
from models.network import IGNORED


class SemanticFile:
    """A semantic model file of ours (metadata entry ``boxstream``) behind ``segment``.

    Args:
        run: the loaded network: (1, H, W, 3) uint8 in, the outputs in the file's order out.
        about: the metadata.
    """

    def __init__(self, run: Runner, about: dict[str, Any]) -> None:
        self.run, self.about = run, about
        self.class_names: Sequence[str] = about["class_names"]

    def segment(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size -> (H, W) uint8 class of each pixel."""
        fitted, scale_xy, shift_xy = fit(image, self.about["input_size_hw"], self.about["fit"])
        named = dict(zip(self.about["outputs"], self.run(fitted[None]), strict=True))
        left, top = (round(float(v)) for v in shift_xy)
        height, width = image.shape[:2]
        right, bottom = left + round(width * scale_xy[0]), top + round(height * scale_xy[1])
        inside = named["classes"][0][top:bottom, left:right].astype(np.uint8)
        return cv2.resize(inside, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


class InWordsOf:
    """A segmenter whose answers are told in the classes of another set.

    Args:
        class_names: of the set.
        merge: name in the set -> the segmenter's classes that are meant by it. Classes that are
            not mentioned keep their name; what the set does not know is told as ``IGNORED``.

    Raises:
        ValueError: a name that the set, or a class that the segmenter does not have.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        class_names: Sequence[str],
        merge: Mapping[str, Sequence[str]],
    ) -> None:
        own = list(segmenter.class_names)
        meant = {one: name for name, several in merge.items() for one in several}
        if unknown := sorted(set(meant) - set(own) | set(merge) - set(class_names)):
            raise DataError(
                f"no class {unknown[0]!r}; the model has {', '.join(own)}, the set "
                f"{', '.join(class_names)}"
            )
        names = [meant.get(one, one) for one in own]
        self.segmenter, self.class_names = segmenter, class_names
        self.table = np.full(256, IGNORED, np.uint8)
        for number, name in enumerate(names):
            if name in class_names:
                self.table[number] = class_names.index(name)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 class of each pixel, in the set's numbers."""
        return self.table[self.segmenter.segment(image)]


def load_segmenter(
    name_or_file: str,
    engine: str = "onnxruntime",
    precision: str = "f32",
    input_hw: SizeHW | None = None,
) -> SemanticFile:
    """A semantic model file, or a bundled one by name.

    Args:
        input_hw: which of the sizes that the file has; None: the usual one.

    Raises:
        FileNotFoundError: neither a bundled name nor a file.
        DataError: no ONNX file, one of another kind, or one without that size.
    """
    file = model_path(name_or_file)
    run, about, _ = open_model(file, engine, precision, input_hw)
    if about.get("task") != "semantic":
        raise DataError(f"{file} is no semantic model file; --masks judges no other")
    return SemanticFile(run, about)
