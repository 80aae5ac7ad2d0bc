"""An engine that computes nothing, for measuring all the rest."""

from __future__ import annotations

from typing import Self

import numpy as np

from pipeline.engines.contract import Answered, Images, Outputs, Pending, Regions
from pipeline.model_file.reading import ModelFile

OBJECTS = 10


class FixedAnswer:
    """An engine without a network: the same ten objects in every picture, at once.

    Has what `pipeline.engines.Engine` promises.
    """

    name, precision, reason = "none", "f32", "nothing is computed"
    batch, in_flight, load_seconds, busy_seconds, calls = 1, 2, 0.0, 0.0, 0

    def __init__(self, model: ModelFile) -> None:
        self.model, self.sizes_hw = model, (model.input_size_hw,)
        height, width = model.input_size_hw
        left = np.linspace(0, 0.8 * width, OBJECTS)
        top = np.linspace(0, 0.7 * height, OBJECTS)
        boxes = np.stack([left, top, left + 0.15 * width, top + 0.25 * height], 1)
        self._answer = {
            "boxes": boxes[None].astype(np.float32),
            "scores": np.linspace(0.95, 0.6, OBJECTS, dtype=np.float32)[None],
            "labels": (np.arange(OBJECTS) % len(model.class_names))[None],
        }

    def submit(self, images: Images, regions: Regions | None = None) -> Pending:
        """Answered before it is asked."""
        return Answered(self._answer)

    def infer(self, images: Images, regions: Regions | None = None) -> Outputs:
        """The same without waiting for it."""
        return self._answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        """There is nothing to let go of."""
