"""Who looks at each frame: one model, or one that finds objects and one that knows every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from typing import NamedTuple

from pipeline.engines import Engine
from pipeline.engines.contract import Size
from pipeline.errors import ConfigError
from pipeline.frame import Batch, Frame, PixelClasses
from pipeline.model_file.reading import ModelFile
from pipeline.preprocess import preprocess
from pipeline.propose import Propose
from pipeline.segment import SegmentationMaps, pixel_classes


class Named(NamedTuple):
    """A model, and what the user called it."""

    name: str
    model: ModelFile


def in_order(asked: Sequence[Named]) -> tuple[Named, ...]:
    """One model, or two with the one that finds objects first.

    Raises:
        ConfigError: It is another number, or two of a kind, whose answers nobody could tell apart.
    """
    if not 1 <= len(asked) <= 2:
        raise ConfigError(f"model: one or two can run together, {len(asked)} are asked for")
    if len(asked) == 2 and asked[0].model.is_semantic == asked[1].model.is_semantic:
        what = "say the class of every pixel" if asked[0].model.is_semantic else "find objects"
        raise ConfigError(
            f"model: {asked[0].name} and {asked[1].name} both {what}; "
            "one of each kind can run together"
        )
    return tuple(sorted(asked, key=lambda one: one.model.is_semantic))


def pixels_of(models: Iterable[ModelFile]) -> PixelClasses | None:
    """The classes of pixels that one of the models knows; None where none does."""
    return next((pixel_classes(model) for model in models if model.is_semantic), None)


@dataclass(frozen=True)
class Crew:
    """Models and the engines that run them.

    Two engines share all cores. With half of them each, the same frames cost as much processor
    time (13.8 s instead of 13.5), and the model that is done first leaves its half idle.

    Attributes:
        model, engine: What finds the objects; the only one where there is one.
        beside, beside_engine: What knows the pixels as well.
        proposer: Tells `model` where to look; None where it looks for itself.
    """

    model: ModelFile
    engine: Engine
    beside: ModelFile | None = None
    beside_engine: Engine | None = None
    proposer: Propose | None = None

    @classmethod
    def of(
        cls, models: Sequence[ModelFile], engines: Sequence[Engine], proposer: Propose | None
    ) -> Crew:
        """One or two models, `in_order`, with an engine for each."""
        if len(models) == 1:
            return cls(models[0], engines[0], proposer=proposer)
        return cls(models[0], engines[0], models[1], engines[1], proposer)

    @property
    def batch(self) -> int:
        """Frames per call that suit all of them."""
        return min(engine.batch for engine in self.engines)

    @property
    def in_flight(self) -> int:
        """Calls that keep the cores busy when they are under way at once."""
        return max(engine.in_flight for engine in self.engines)

    @property
    def engines(self) -> list[Engine]:
        """One or two."""
        return [self.engine, *([self.beside_engine] if self.beside_engine else [])]

    @property
    def takes_pictures_on_gpu(self) -> bool:
        """Whether all that look at the images of a batch are engines on the GPU."""
        return self.proposer is None and all(engine.on_gpu for engine in self.engines)

    @property
    def maps(self) -> SegmentationMaps | None:
        """Takes the class of every pixel out of the answers, where they hold it."""
        if self.beside is not None:
            return SegmentationMaps(self.beside, beside=True)
        return SegmentationMaps(self.model) if self.model.is_semantic else None

    def prepare(
        self, groups: Iterable[list[Frame]], other_hw: Callable[[], Size | None] = lambda: None
    ) -> Iterator[Batch]:
        """Turn groups of frames into batches at the size of the model, or of both.

        other_hw: Asked before each batch: the size for `model` instead of its usual one, if any.
        """
        model, beside = self.model, self.beside
        if beside is None:
            return preprocess(groups, model.input_size_hw, model.fit, other_hw)
        one, other = tee(groups)
        batches = preprocess(one, model.input_size_hw, model.fit, other_hw)
        also = preprocess(other, beside.input_size_hw, beside.fit)
        return (replace(batch, beside=b) for batch, b in zip(batches, also, strict=True))
