"""A picture to draw on, plane by plane: luma at full size, chroma at half.

What is drawn is the same on every canvas; how a pixel is written is each one's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import av

from pipeline.drawing.overlay import YUV, Tables
from pipeline.drawing.text import Mask, rasterise
from pipeline.frame import RGB, Boxes, Detections, PixelClasses, SegmentationMap
from pipeline.polygon import Point
from pipeline.settings import OverlaySettings
from pipeline.yuv import Colours

INK = (18, 18, 20)
PAPER = (245, 245, 245)
DARK = 110  # luma of a plate below which letters are light


class Rect(NamedTuple):
    """Whole pixels of a picture; `x2` and `y2` are the first ones outside."""

    x1: int
    y1: int
    x2: int
    y2: int

    def overlaps(self, other: Rect) -> bool:
        """Tell whether the two share a pixel."""
        return (
            self.x1 < other.x2 and other.x1 < self.x2 and self.y1 < other.y2 and other.y1 < self.y2
        )


class Label(NamedTuple):
    """A line of text on a plate, and where it goes."""

    text: str
    place: Rect


class Canvas(ABC):
    """A copy of a picture, to draw on: what all canvases can do, made of what each has.

    Colours are Y, U, V of the picture, from `colour`.

    Attributes:
        width, height: Of the picture in pixels, both even.
    """

    def __init__(self, width: int, height: int, colours: Colours) -> None:
        self.width, self.height = width, height
        self._colours = colours

    @abstractmethod
    def picture(self) -> av.VideoFrame:
        """The picture with all that was drawn; nothing can be drawn afterwards."""

    @abstractmethod
    def fill(self, area: Rect, colour: YUV) -> None:
        """Fill the rectangle; an edge on an odd pixel colours its whole neighbour."""

    @abstractmethod
    def frame(self, box: Rect, line: int, colour: YUV) -> None:
        """Outline a box, with a soft dark edge on both sides that parts it from any ground."""

    @abstractmethod
    def polygon(self, corners: tuple[Point, ...], line: int, colour: YUV) -> None:
        """Outline an area whose corners are shares of width and height, with soft dark edges."""

    @abstractmethod
    def classes(self, segmentation: SegmentationMap, settings: OverlaySettings) -> None:
        """Tint every pixel in the colour of its class."""

    @abstractmethod
    def masks(
        self, detections: Detections, colours: dict[int, RGB], settings: OverlaySettings
    ) -> None:
        """Tint the pixels of objects in their colours, by their numbers; the last is on top."""

    @abstractmethod
    def conceal(self, boxes: Boxes) -> None:
        """Replace what is in the boxes by blocks of its mean colour, as `pixelate` does."""

    @abstractmethod
    def _dim(self, area: Rect) -> None:
        """Leave a quarter of the light and the colour of a rectangle on even pixels."""

    @abstractmethod
    def _write(self, text: str, letters: int, area: Rect, paper: int, ink: int) -> None:
        """Letters in luma `ink` where all is `paper`, from the corner of the area to its edges."""

    @abstractmethod
    def _blend(self, cover: Mask, left: int, top: int, ink: int) -> None:
        """Letters in luma `ink` on any ground; what reaches over the picture is cut off."""

    def colour(self, rgb: RGB) -> YUV:
        """The colour as Y, U, V of this picture."""
        return _yuv(self._colours, rgb)

    def label(self, label: Label, letters: int, colour: YUV) -> None:
        """Put letters on a plate in the colour of the box, dark ones unless that is dark."""
        self.fill(label.place, colour)
        ink = INK if colour[0] >= DARK else PAPER
        self._write(label.text, letters, label.place, colour[0], self.colour(ink)[0])

    def hud(self, lines: Sequence[str], letters: int) -> None:
        """Put light letters in the top left corner, on a ground that lets the picture through."""
        masks = [rasterise(line, letters) for line in lines]
        edge = 2 * (letters // 4)
        bottom = min(self.height, edge + sum(mask.shape[0] for mask in masks))
        right = min(self.width, edge + max(mask.shape[1] for mask in masks))
        self._dim(Rect(min(edge, right), min(edge, bottom), right, bottom))
        white, y = self.colour((250, 250, 250))[0], edge
        for mask in masks:
            self._blend(mask, edge, y, white)
            y += mask.shape[0]


@lru_cache(maxsize=16)
def tables_of(meaning: PixelClasses, colours: Colours) -> Tables:
    """What the classes become in pictures of those colours."""
    return Tables.of(meaning, colours)


@lru_cache(maxsize=256)
def _yuv(colours: Colours, rgb: RGB) -> YUV:
    return colours.yuv(rgb)
