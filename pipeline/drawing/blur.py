"""Make people, number plates or whatever is chosen unreadable in every picture that goes out.

A missed object is worse than a blurred post. So objects are blurred down to a lower score than
they are shown, their boxes are grown, and the boxes of the last few frames are blurred as well,
which bridges what the detector misses now and then.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.detect import Shown, thresholds_by_class
from pipeline.errors import ConfigError
from pipeline.frame import Boxes, Frame, Result
from pipeline.model_file.reading import ModelFile
from pipeline.nms import MOST_BOXES
from pipeline.settings import DetectionSettings, RenderSettings
from pipeline.yuv import Plane

EVERYTHING = "all"
GROWTH = 0.1  # of a box's width and height, on each side
BLOCKS = 8  # along the longer side of a box: a face is one or two of them
SMALLEST_BLOCK_PIXELS = 8
LAYERS = 16  # into which the frames are divided whose boxes are remembered
MOST_WASTE = 0.2  # share of a box around two that neither of them covers
FORGOTTEN_SECONDS = 60.0  # after which a source that sends nothing needs no memory


def detect_also_blurred(
    detection: DetectionSettings, render: RenderSettings, model: ModelFile
) -> DetectionSettings:
    """The same settings, so wide that all is found that is to be blurred.

    Thresholds are low; nobody goes unfound because there are more than may be shown, or because
    something of another class, such as a bicycle, lies over him. See `pipeline.detect` for how
    that is cut down again to what is shown.

    Raises:
        ConfigError: `render.blur` names a class that the model does not know.
    """
    blurred = blurred_classes(render, model)
    lowest = np.minimum(thresholds_by_class(model, detection), render.blur_threshold)
    lowered = {model.object_names[i]: float(lowest[i]) for i in np.flatnonzero(blurred).tolist()}
    if not lowered:
        return detection
    return replace(
        detection,
        class_thresholds={**detection.class_thresholds, **lowered},
        nms="class_aware" if detection.nms == "class_agnostic" else detection.nms,
        max_detections=max(MOST_BOXES, detection.max_detections),
    )


def blurred_classes(render: RenderSettings, model: ModelFile) -> npt.NDArray[np.bool_]:
    """(C,) which classes are blurred; `ConfigError` for one that the model does not know."""
    if render.blur and not model.object_names:
        raise ConfigError(
            f"render.blur: {model.path.name} finds no objects that could be blurred; "
            "run a detector beside it (--model street --model ...)"
        )
    for name in render.blur:
        if name != EVERYTHING and name not in model.object_names:
            near = get_close_matches(name, model.object_names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            known = ", ".join((EVERYTHING, *model.object_names))
            raise ConfigError(f"render.blur: unknown class {name!r}; {hint}known are {known}")
    wanted = [bool({name, EVERYTHING} & {*render.blur}) for name in model.object_names]
    return np.array(wanted, np.bool_)


def conceal(
    results: Iterable[Result], model: ModelFile, shown: Shown, render: RenderSettings
) -> Iterator[Result]:
    """Add to every result the boxes that `render` is to blur; without any wish, pass it through.

    Args:
        results: From `detect` with the settings of `detect_also_blurred`.
        model: What the classes are called.
        shown: From which score objects are shown; what is shown is blurred too, whatever
            `render.blur_threshold` says.
        render: What to blur, and for how many frames.

    Raises:
        ConfigError: As in `blurred_classes`; raised at the call.
    """
    blurred = blurred_classes(render, model)
    return _conceal(results, blurred, shown, render) if blurred.any() else iter(results)


def _conceal(
    results: Iterable[Result],
    blurred: npt.NDArray[np.bool_],
    shown: Shown,
    render: RenderSettings,
) -> Iterator[Result]:
    memory = _Memory(render.blur_frames)
    for result in results:
        found = result.detections
        visible = shown.thresholds_for(result.frame.source)
        lowest = np.minimum(visible, np.float32(render.blur_threshold))
        private = blurred[found.class_ids] & (found.scores >= lowest[found.class_ids])
        boxes = memory.with_recent(result.frame, found.boxes[private])
        yield replace(result, private=boxes)


@dataclass
class _Recent:
    """Boxes of the last frames of one connection of a source, in layers.

    Attributes:
        of: Connection and size.
        layers: The newest last.
        frames: How many have been put into them.
        arrival: Of the last frame.
    """

    of: tuple[int, tuple[int, int]]
    layers: deque[Boxes]
    frames: int
    arrival: float


class _Memory:
    """The boxes of the last frames of each source, until the picture becomes another.

    Where many frames are remembered, a layer holds the boxes of several, united where they nearly
    fill the box around them, as those of a walker do. So there are some layers of some boxes to be
    pixelated, however many frames are asked for. A layer is forgotten as a whole: a box is hidden
    for at least as many frames as asked for, and an eighth more at most.

    Args:
        frames: How many frames a box is remembered.
    """

    def __init__(self, frames: int) -> None:
        self._frames_per_layer = max(1, math.ceil(frames / LAYERS))
        # The newest may have but one frame in it.
        self._layers = 1 + math.ceil((frames - 1) / self._frames_per_layer)
        self._sources: dict[str, _Recent] = {}

    def with_recent(self, frame: Frame, boxes: Boxes) -> Boxes:
        """(P, 4) `boxes` grown, and those of the frames before that they do not cover."""
        recent = self._recent(frame)
        grown = grow(boxes)
        for earlier in reversed(recent.layers):
            left = earlier[~covered(earlier, grown)]
            grown = np.concatenate([grown, grow(left)])
        if recent.frames % self._frames_per_layer == 0:
            recent.layers.append(boxes)
        elif recent.layers:
            recent.layers[-1] = united(recent.layers[-1], boxes)
        recent.frames += 1
        recent.arrival = frame.arrival
        return grown

    def _recent(self, frame: Frame) -> _Recent:
        of = (frame.generation, frame.size_hw)
        recent = self._sources.get(frame.source)
        if recent is None:
            self._forget(before=frame.arrival - FORGOTTEN_SECONDS)
        if recent is None or recent.of != of:
            recent = _Recent(of, deque(maxlen=self._layers), 0, frame.arrival)
            self._sources[frame.source] = recent
        return recent

    def _forget(self, before: float) -> None:
        self._sources = {k: v for k, v in self._sources.items() if v.arrival >= before}


def grow(boxes: Boxes) -> Boxes:
    """(N, 4) the boxes with `GROWTH` on each side; they may reach over the picture's edge."""
    margins = (boxes[:, 2:] - boxes[:, :2]) * np.float32(GROWTH)
    return np.concatenate([boxes[:, :2] - margins, boxes[:, 2:] + margins], axis=1)


def covered(boxes: Boxes, others: Boxes) -> npt.NDArray[np.bool_]:
    """(N,) whether each of the boxes (N, 4) lies within one of the others (M, 4)."""
    low = others[None, :, :2] <= boxes[:, None, :2]
    high = others[None, :, 2:] >= boxes[:, None, 2:]
    within: npt.NDArray[np.bool_] = np.any(np.all(low & high, axis=2), axis=1)
    return within


def united(boxes: Boxes, others: Boxes) -> Boxes:
    """(U, 4) boxes that cover all of `boxes` (N, 4) and `others` (M, 4), and little besides.

    Each of the others is united with the one box of all that it fits best, if with any.
    """
    for other in others:
        if len(boxes):
            around = np.concatenate(
                [np.minimum(boxes[:, :2], other[:2]), np.maximum(boxes[:, 2:], other[2:])], axis=1
            )
            shared = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
            filled = _areas(boxes) + _areas(other) - np.prod(np.maximum(shared, 0), axis=1)
            waste = _areas(around) - filled
            best = int(np.argmin(waste))
            if waste[best] <= MOST_WASTE * _areas(around[best]):
                boxes = boxes.copy()
                boxes[best] = around[best]
                continue
        boxes = np.concatenate([boxes, other[None]])
    return boxes


def _areas(boxes: Boxes) -> npt.NDArray[np.float32]:
    areas: npt.NDArray[np.float32] = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return areas


def pixelate(planes: Sequence[Plane], boxes: Boxes) -> None:
    """Replace what is in the boxes by blocks of its mean colour, in place.

    Args:
        planes: Y, U, V of a yuv420p picture of even size that may be written to.
        boxes: (P, 4) xyxy in its pixels. A block is at least 8 pixels wide and high, and an
            eighth of the longer side of its box.
    """
    for area in mosaics(boxes, (planes[0].shape[0], planes[0].shape[1])):
        for plane, step in zip(planes, (1, 2, 2), strict=True):
            rows = slice(area.top // step, area.bottom // step)
            _mosaic(plane[rows, area.left // step : area.right // step], area)


class Mosaic(NamedTuple):
    """A part of a picture on even pixels, and the blocks it falls into on each of its planes.

    Attributes:
        left, top, right, bottom: The last two are the first pixels outside.
        across, down: How many blocks lie side by side, and how many one above the other.
    """

    left: int
    top: int
    right: int
    bottom: int
    across: int
    down: int


def mosaics(boxes: Boxes, size_hw: tuple[int, int]) -> list[Mosaic]:
    """What becomes of each box that lies in a picture of that size, in their order."""
    height, width = size_hw
    limits = np.array([width, height, width, height], np.float32)
    with np.errstate(invalid="ignore"):
        inside = np.clip(np.nan_to_num(boxes, nan=0.0), 0, limits)
    found = list[Mosaic]()
    for x1, y1, x2, y2 in inside.tolist():
        if x1 < x2 and y1 < y2:
            left, top = int(x1) // 2 * 2, int(y1) // 2 * 2
            right, bottom = math.ceil(x2 / 2) * 2, math.ceil(y2 / 2) * 2
            found.append(Mosaic(left, top, right, bottom, *_blocks(right - left, bottom - top)))
    return found


def cuts(side: int, blocks: int) -> npt.NDArray[np.int64]:
    """(blocks + 1,) where blocks begin and end along that many pixels of a plane."""
    return np.arange(blocks + 1) * side // blocks


def _blocks(width: int, height: int) -> tuple[int, int]:
    """How many blocks lie side by side, and how many one above the other."""
    block = max(SMALLEST_BLOCK_PIXELS, max(width, height) / BLOCKS)
    return max(1, int(width / block)), max(1, int(height / block))


def _mosaic(area: Plane, of: Mosaic) -> None:
    """Replace an area of one plane by so many blocks across and down."""
    rows, columns = cuts(area.shape[0], of.down), cuts(area.shape[1], of.across)
    heights, widths = np.diff(rows), np.diff(columns)
    corners = cv2.integral(area)[np.ix_(rows, columns)]  # sums of all above and left of them
    sizes = heights[:, None] * widths
    means = (np.diff(np.diff(corners, axis=0), axis=1) + sizes // 2) // sizes
    area[:] = means.astype(np.uint8).repeat(heights, axis=0).repeat(widths, axis=1)
