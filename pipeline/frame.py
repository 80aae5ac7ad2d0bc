"""What travels down the line: a frame, a batch of them, and what was found.

Boxes are ``x1, y1, x2, y2`` with continuous edges: a box that covers the whole picture is
``0, 0, width, height``. See `Detections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from threading import Lock

import av
import cv2
import numpy as np
import numpy.typing as npt

from pipeline.gpu.images import Images
from pipeline.gpu.pictures import in_memory, is_on_gpu
from pipeline.placement import SQUARE, Placement

Boxes = npt.NDArray[np.float32]
RGB = tuple[int, int, int]
Classes = npt.NDArray[np.uint8]
"""(h, w) uint8: a class id for each pixel."""

_COPYING = Lock()


@dataclass(frozen=True, eq=False)
class Truth:
    """What is really there; known for synthetic sources only.

    Attributes:
        boxes: (T, 4) float32 xyxy in pixels of the frame.
        class_ids: (T,) int64, index into `class_names`.
        ignored: (I, 4) float32 boxes that count neither as hits nor as misses.
        class_names: What the ids mean.
    """

    boxes: Boxes
    class_ids: npt.NDArray[np.int64]
    ignored: Boxes
    class_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded picture, still in the decoder's own pixel format.

    Attributes:
        picture: The decoder's buffer, upright; it may lie on a GPU (`pipeline.gpu.pictures`). The
            decoder may still need it: never write to it.
        source: Name of the source it came from.
        index: 0-based count of frames that this source delivered.
        pts: Presentation time in units of `time_base`; rises strictly within a source.
        time_base: Seconds per unit of `pts`.
        arrival: `time.monotonic()` when the decoder handed it over.
        generation: Which connection of the source it came from (0 for a recording).
        file: The picture's file name, for a folder of images.
        truth: The true boxes, for a synthetic source.
        painted: `time.monotonic()` when a clock was painted in it; None if none was read.
        pixel_hw: How high and wide a pixel is meant to be shown, as the smallest whole numbers;
            analogue cameras have others than 1 and 1. All else counts pixels as they are stored.
    """

    picture: av.VideoFrame
    source: str
    index: int
    pts: int
    time_base: Fraction
    arrival: float
    generation: int = 0
    file: str | None = None
    truth: Truth | None = None
    painted: float | None = None
    pixel_hw: tuple[int, int] = SQUARE

    @property
    def in_memory(self) -> av.VideoFrame:
        """`picture`, or a copy in main memory if it lies on a GPU, made when first asked for."""
        if not is_on_gpu(self.picture):
            return self.picture
        with _COPYING:  # sinks may ask at once
            return self._copy

    @cached_property
    def _copy(self) -> av.VideoFrame:
        return in_memory(self.picture)

    @property
    def pts_seconds(self) -> float:
        """Presentation time in seconds on the source's own clock."""
        return float(self.pts * self.time_base)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.picture.height, self.picture.width


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames of one or several sources, made ready for one call of the engine.

    Attributes:
        frames: N frames, in order of arrival.
        images: (N, H, W, 3) uint8 RGB, contiguous, at the model's input size; on a GPU if all
            pictures lie there.
        placements: N placements; ``placements[i]`` maps boxes of ``images[i]`` home.
        regions: (N, R, 4) float32 xyxy in pixels of `images`, for a model that finds objects only
            where it is told to look; rows without area are empty slots. None for all others.
        beside: The same frames, made ready for a second model; None without one.
    """

    frames: tuple[Frame, ...]
    images: Images
    placements: tuple[Placement, ...]
    regions: npt.NDArray[np.float32] | None = None
    beside: Batch | None = None

    def __post_init__(self) -> None:
        n = len(self.frames)
        if self.images.ndim != 4 or self.images.shape[0] != n or self.images.shape[3] != 3:
            raise ValueError(f"images must be ({n}, H, W, 3), got {self.images.shape}")
        if self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8, got {self.images.dtype}")
        if len(self.placements) != n:
            raise ValueError(f"{n} frames need {n} placements, got {len(self.placements)}")
        if self.regions is not None and self.regions.shape[::2] != (n, 4):
            raise ValueError(f"regions must be ({n}, R, 4), got {self.regions.shape}")


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one frame; every array has the same length N.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels of the original frame; x1 <= x2, y1 <= y2.
        scores: (N,) float32 in [0, 1].
        class_ids: (N,) int64 index into the model's class names.
        masks: (N, h, w) float32 in [0, 1], each stretched over its box; None from a model that
            finds boxes only.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int64]
    masks: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4):
            raise ValueError(f"boxes must be (N, 4), got {self.boxes.shape}")
        if self.scores.shape != (n,) or self.class_ids.shape != (n,):
            raise ValueError(
                f"scores and class_ids must be ({n},), "
                f"got {self.scores.shape} and {self.class_ids.shape}"
            )
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != n):
            raise ValueError(f"masks must be ({n}, h, w), got {self.masks.shape}")

    @classmethod
    def none(cls) -> Detections:
        """Nothing found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Detections:
        masks = None if self.masks is None else self.masks[keep]
        return Detections(self.boxes[keep], self.scores[keep], self.class_ids[keep], masks)


@dataclass(frozen=True)
class PixelClasses:
    """What the numbers of a `SegmentationMap` mean.

    Attributes:
        names: Of every class that a pixel may have.
        colours: In which each is drawn; one for each name.
    """

    names: tuple[str, ...]
    colours: tuple[RGB, ...]

    def __post_init__(self) -> None:
        if len(self.colours) != len(self.names):
            raise ValueError(f"{len(self.names)} classes, but {len(self.colours)} colours")


@dataclass(frozen=True, eq=False)
class SegmentationMap:
    """The class of every pixel of one frame, as finely as the model says it.

    Attributes:
        classes: (H, W) uint8 class ids at the model's input size, bars of the letterbox included.
        placement: Where the frame lies in it.
        meaning: The classes' names and colours.
    """

    classes: Classes
    placement: Placement
    meaning: PixelClasses

    def __post_init__(self) -> None:
        if self.classes.shape != self.placement.input_hw or self.classes.dtype != np.uint8:
            raise ValueError(
                f"classes must be uint8 {self.placement.input_hw}, "
                f"got {self.classes.dtype} {self.classes.shape}"
            )

    @property
    def of_frame(self) -> Classes:
        """(h, w) the part of `classes` that is the frame, without bars; a view."""
        (top, left), (height, width) = self.placement.top_left, self.placement.scaled_hw
        return self.classes[top : top + height, left : left + width]

    def at_frame(self) -> Classes:
        """(H, W) class ids of the frame's own pixels, each that of the nearest pixel here."""
        height, width = self.placement.frame_hw
        nearest = cv2.resize(self.of_frame, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return nearest.astype(np.uint8, copy=False)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """(C,) pixels of `of_frame` by class id."""
        histogram = cv2.calcHist([self.of_frame], [0], None, [256], [0, 256])
        return histogram.ravel()[: len(self.meaning.names)].astype(np.int64)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the frame's pixels by class name, for the classes that are there."""
        total = self.of_frame.size
        present = np.flatnonzero(self.counts).tolist()
        return {self.meaning.names[i]: int(self.counts[i]) / total for i in present}


@dataclass(frozen=True, eq=False)
class Result:
    """A frame and what was found in it.

    Attributes:
        frame: The frame as decoded.
        detections: What was found, in pixels of the frame.
        annotated: The picture with the detections drawn on it, or None when nothing was drawn.
        private: (P, 4) float32 boxes that no picture may show, in pixels of the frame; they may
            reach over its edges, and are more than those of `detections`. None: nobody asked.
        zones: Objects by zone and class, such as ``{"crossing": {"person": 2}}``; None where no
            zones are configured.
        segmentation: The class of every pixel; None without a model that says so.
    """

    frame: Frame
    detections: Detections
    annotated: av.VideoFrame | None = None
    private: Boxes | None = None
    zones: Mapping[str, Mapping[str, int]] | None = None
    segmentation: SegmentationMap | None = None

    def with_annotated(self, picture: av.VideoFrame) -> Result:
        """The same result with its drawing."""
        return replace(self, annotated=picture)
