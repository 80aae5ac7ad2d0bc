"""Take the class of every pixel out of the engine's answers."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.engines import Outputs
from pipeline.errors import ModelMismatch
from pipeline.frame import RGB, Batch, PixelClasses, Result, SegmentationMap
from pipeline.model_file.reading import ModelFile

_GOLDEN = (5**0.5 - 1) / 2  # of the circle of hues: the next colour is far from all before


class SegmentationMaps:
    """Gives each frame of an answered batch its map.

    Args:
        model: A semantic model.
        beside: Its frames were made ready as the second ones of a batch.

    Attributes:
        meaning: What its classes are called, and in which colours they are drawn.
    """

    def __init__(self, model: ModelFile, *, beside: bool = False) -> None:
        self._model, self._beside = model, beside
        self.meaning = pixel_classes(model)

    def added(self, results: Iterable[Result], batch: Batch, outputs: Outputs) -> Iterator[Result]:
        """The results of a batch's frames, each with its map.

        Raises:
            ModelMismatch: A pixel has a class without a name.
        """
        own = batch.beside if self._beside and batch.beside is not None else batch
        maps = zip(results, outputs["classes"], own.placements, strict=True)
        for result, classes, placement in maps:
            found = SegmentationMap(classes, placement, self.meaning)
            if found.counts.sum() != found.of_frame.size:
                raise ModelMismatch(
                    f"{self._model.path} says class {found.of_frame.max()}, but names "
                    f"{len(self.meaning.names)} classes; export it again"
                )
            yield replace(result, segmentation=found)


def pixel_classes(model: ModelFile) -> PixelClasses:
    """Names and colours of a semantic model's classes; colours of our own where it has none."""
    names = model.class_names
    return PixelClasses(names, model.palette or tuple(map(hue, range(len(names)))))


def hue(number: int) -> RGB:
    """A strong colour for each number, far from those of the numbers before it."""
    red, green, blue = colorsys.hsv_to_rgb((0.6 + number * _GOLDEN) % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
