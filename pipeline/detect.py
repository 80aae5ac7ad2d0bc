"""Turn the engine's arrays into detections: threshold, map home, suppress, cap.

Suppression is a stage of the line and not of the graph, so that thresholds can be changed
without another model file.

*Found wide, shown narrow.* More is found than is shown where an average precision is taken or
thresholds may be changed while the line runs (`low_threshold`), and where faint objects are blurred
(`detect_also_blurred` of `pipeline.drawing.blur`): `detect` is given settings that are wider than
the user's. Then `conceal` there picks what is to be blurred out of all that was found, and `Shown`
cuts the rest down to what the user's own settings would have left: by thresholds, by suppression
across classes, and last by number, as what is hidden must not take anybody's place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.engines import Outputs, Pending
from pipeline.errors import ConfigError, ModelMismatch
from pipeline.frame import Batch, Detections, Frame, Result
from pipeline.instances import onto_clipped
from pipeline.model_file.reading import ModelFile
from pipeline.nms import MOST_BOXES, class_agnostic, class_aware, greedy_merge, soft
from pipeline.placement import Placement
from pipeline.segment import SegmentationMaps
from pipeline.settings import DetectionSettings, Suppression

Suppress = Callable[[Detections, float, int], Detections]
Thresholds = npt.NDArray[np.float32]

SUPPRESS: dict[Suppression, Suppress] = {
    "class_aware": class_aware,
    "class_agnostic": class_agnostic,
    "soft": soft,
    "merge": greedy_merge,
}
LOW = 0.01  # detections below this score change no average precision worth reporting


def detect(
    answers: Iterable[tuple[Batch, Pending]],
    model: ModelFile,
    settings: DetectionSettings,
    on_inexact: Callable[[Frame], None] | None = None,
    maps: SegmentationMaps | None = None,
) -> Iterator[Result]:
    """Wait for each batch's answer and yield one result a frame, in order.

    Args:
        answers: Batches and what the engine will say about them.
        model: Class names, output form and recommended thresholds.
        settings: What the user wants instead.
        on_inexact: Called with each frame for which the graph could not certify its own
            shortcuts (its output ``exact`` is false); its detections are yielded all the same.
        maps: Takes the class of every pixel out of the answers, if a model says it.

    Raises:
        ConfigError: A threshold is given for a class that the model does not know; raised at
            the call, not with the first frame.
    """
    thresholds = thresholds_by_class(model, settings)
    return _detect(answers, model, settings, thresholds, on_inexact, maps)


def low_threshold(settings: DetectionSettings, recommended: float = LOW) -> DetectionSettings:
    """The same settings with a score threshold so low that an average precision can be taken.

    `Shown` then gives what `detect` would have given with the settings themselves, but for three
    cases: a class-agnostic suppression by a box that its own class's threshold hides; merging, in
    which boxes below the threshold then have a say; and a frame in which more boxes reach the low
    threshold than suppression looks at (`MOST_BOXES`).

    Args:
        recommended: The model's own threshold, where the settings name none.
    """
    common = recommended if settings.threshold is None else settings.threshold
    return replace(
        settings,
        threshold=min(*settings.class_thresholds.values(), common, LOW),
        class_thresholds={},
        max_detections=max(MOST_BOXES, settings.max_detections),
    )


class OwnThresholds(NamedTuple):
    """What one source has instead of the thresholds of the line; None: those of the line."""

    threshold: float | None = None
    class_thresholds: Mapping[str, float] | None = None


class Shown:
    """The scores from which detections are shown; they may be changed while the line runs.

    Each source may have thresholds of its own. A change is in force from the next frame on.

    Args:
        model: The classes, and what the file recommends.
        settings: What the user wants instead.

    Raises:
        ConfigError: A threshold is given for a class that the model does not know.
    """

    def __init__(self, model: ModelFile, settings: DetectionSettings) -> None:
        self._model, self._settings = model, settings
        self.thresholds = thresholds_by_class(model, settings)
        self._own: dict[str, OwnThresholds] = {}
        self._thresholds_of: dict[str, Thresholds] = {}
        self._changing = threading.Lock()

    @property
    def threshold(self) -> float:
        """Lowest score of the classes without one of their own."""
        wanted = self._settings.threshold
        return self._model.score_threshold if wanted is None else wanted

    @property
    def class_thresholds(self) -> Mapping[str, float]:
        """Lowest scores of single classes."""
        return self._settings.class_thresholds

    def change(self, threshold: float | None, class_thresholds: Mapping[str, float]) -> None:
        """Set other thresholds of the line; `ConfigError` as in the constructor."""
        with self._changing:
            changed = replace(
                self._settings, threshold=threshold, class_thresholds=dict(class_thresholds)
            )
            self.thresholds = thresholds_by_class(self._model, changed)
            self._settings = changed
            self._thresholds_of = {name: self._with(own) for name, own in self._own.items()}

    def own(self, source: str) -> OwnThresholds:
        """What a source has instead of the thresholds of the line."""
        return self._own.get(source, OwnThresholds())

    def change_of(self, source: str, own: OwnThresholds, present: Collection[str]) -> None:
        """Give a source thresholds of its own, or take them back; `ConfigError` as above.

        Args:
            source: Its name.
            own: What it is to have.
            present: Names of the sources that are there; of others nothing is kept.
        """
        with self._changing:
            changed = self._with(own)
            kept = {name: self._own[name] for name in self._own if name in present}
            kept.pop(source, None)
            after = {name: self._thresholds_of[name] for name in kept}
            if own != OwnThresholds():
                kept[source], after[source] = own, changed
            self._own, self._thresholds_of = kept, after

    def thresholds_for(self, source: str) -> Thresholds:
        """(C,) lowest score of each class in the frames of a source."""
        return self._thresholds_of.get(source, self.thresholds)

    def filter(self, results: Iterable[Result]) -> Iterator[Result]:
        """Keep of each result what reaches the thresholds, and no more than the settings want."""
        for result in results:
            found = result.detections
            keep = found.scores >= self.thresholds_for(result.frame.source)[found.class_ids]
            shown = self._few(found if keep.all() else found[keep])
            yield result if shown is found else replace(result, detections=shown)

    def _few(self, found: Detections) -> Detections:
        """What the settings leave, of more that was found."""
        limit = self._settings.max_detections
        if self._settings.nms == "class_agnostic" and self._model.output_form == "candidates":
            return class_agnostic(found, nms_iou(self._model, self._settings), limit)
        return found[:limit] if len(found) > limit else found

    def _with(self, own: OwnThresholds) -> Thresholds:
        """The thresholds of the line with those of a source laid over them."""
        settings = self._settings
        if own.threshold is not None:
            settings = replace(settings, threshold=own.threshold)
        if own.class_thresholds is not None:
            settings = replace(settings, class_thresholds=dict(own.class_thresholds))
        return thresholds_by_class(self._model, settings)


def thresholds_by_class(model: ModelFile, settings: DetectionSettings) -> Thresholds:
    """(C,) lowest score of each class; `ConfigError` for a class the model does not know."""
    common = model.score_threshold if settings.threshold is None else settings.threshold
    thresholds = np.full(len(model.object_names), common, np.float32)
    for name, threshold in settings.class_thresholds.items():
        if name not in model.object_names:
            raise ConfigError(_unknown_class(name, model))
        thresholds[model.object_names.index(name)] = threshold
    return thresholds


def nms_iou(model: ModelFile, settings: DetectionSettings) -> float:
    """The overlap from which suppression drops a box."""
    return model.nms_iou if settings.nms_iou is None else settings.nms_iou


def _unknown_class(name: str, model: ModelFile) -> str:
    near = get_close_matches(name, model.object_names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(model.object_names) or "no objects, only the classes of pixels"
    return (
        f"unknown class {name!r} in detection.class_thresholds; {hint}"
        f"{model.path.name} knows {known}"
    )


def _detect(
    answers: Iterable[tuple[Batch, Pending]],
    model: ModelFile,
    settings: DetectionSettings,
    thresholds: Thresholds,
    on_inexact: Callable[[Frame], None] | None,
    maps: SegmentationMaps | None,
) -> Iterator[Result]:
    for batch, pending in answers:
        outputs = pending.result()
        if model.is_semantic:
            results = (Result(frame, Detections.none()) for frame in batch.frames)
        else:
            results = _objects(batch, outputs, model, settings, thresholds, on_inexact)
        yield from maps.added(results, batch, outputs) if maps else results


def _objects(
    batch: Batch,
    outputs: Outputs,
    model: ModelFile,
    settings: DetectionSettings,
    thresholds: Thresholds,
    on_inexact: Callable[[Frame], None] | None,
) -> Generator[Result, None, None]:
    iou = nms_iou(model, settings)
    suppress, limit = SUPPRESS[settings.nms], settings.max_detections
    if on_inexact and "exact" in outputs and not outputs["exact"].all():
        for frame, exact in zip(batch.frames, outputs["exact"], strict=True):
            if not exact:
                on_inexact(frame)
    for row, (frame, placement) in enumerate(zip(batch.frames, batch.placements, strict=True)):
        found = _at_home(_above(outputs, row, thresholds, model), placement)
        if model.output_form == "candidates":
            found = suppress(found, iou, limit)
        if settings.nms == "soft":  # it lowers scores
            found = found[found.scores >= thresholds[found.class_ids]]
        yield Result(frame, found[:limit])


def _above(outputs: Outputs, row: int, thresholds: Thresholds, model: ModelFile) -> Detections:
    """What reaches its class's threshold, in pixels of the input; empty slots have score 0."""
    count = int(outputs["count"][row]) if "count" in outputs else None
    boxes, scores, labels = (outputs[name][row][:count] for name in ("boxes", "scores", "labels"))
    likely = np.flatnonzero((scores >= thresholds.min()) & (scores > 0))  # few of many
    keep = likely[np.isfinite(boxes[likely]).all(axis=1)]
    boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
    masks = outputs["masks"][row][:count][keep] if model.task == "instance" else None
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(thresholds):
        raise ModelMismatch(
            f"{model.path} says class {labels.max()}, but names {len(thresholds)} classes; "
            "export it again"
        )
    keep = scores >= thresholds[labels]
    return Detections(boxes, scores, labels.astype(np.int64, copy=False), masks)[keep]


def _at_home(detections: Detections, placement: Placement) -> Detections:
    """The same boxes in pixels of the frame, clipped to it; what lies outside is left out."""
    boxes = placement.to_frame(detections.boxes)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    home = Detections(boxes, detections.scores, detections.class_ids, detections.masks)[inside]
    return home if home.masks is None else onto_clipped(home, detections.boxes[inside], placement)
