"""A picture to draw on, plane by plane: luma at full size, chroma at half.

What is drawn is the same on every canvas; how a pixel is written is each one's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np

from pipeline.blur import pixelate
from pipeline.frame import RGB, Boxes, Detections, Frame, PixelClasses, SegmentationMap
from pipeline.gpu.pictures import is_on_gpu
from pipeline.outline import outline
from pipeline.overlay import YUV, Tables, lay_masks_over, lay_over
from pipeline.polygon import Point
from pipeline.settings import OverlaySettings
from pipeline.text import Mask, plate, rasterise
from pipeline.yuv import Colours, own_yuv420p, planes

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
        """Replace what is in the boxes by blocks of its mean colour; see `pixelate`."""

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


class PlaneCanvas(Canvas):
    """Draws at once, in main memory, on a copy in yuv420p.

    Args:
        picture: In any pixel format; it is not written to.
    """

    def __init__(self, picture: av.VideoFrame) -> None:
        self._picture = own_yuv420p(picture)
        self._planes = planes(self._picture)
        super().__init__(self._picture.width, self._picture.height, Colours.of(self._picture))

    def picture(self) -> av.VideoFrame:
        return self._picture

    def fill(self, area: Rect, colour: YUV) -> None:
        x1, y1, x2, y2 = area
        luma, u, v = self._planes
        luma[y1:y2, x1:x2] = colour[0]
        half = slice(y1 // 2, (y2 + 1) // 2), slice(x1 // 2, (x2 + 1) // 2)
        u[half] = colour[1]
        v[half] = colour[2]

    def frame(self, box: Rect, line: int, colour: YUV) -> None:
        x1, y1, x2, y2 = box
        across, down = min(line, x2 - x1), min(line, y2 - y1)
        self._shade_around(box)
        self._shade_around(Rect(x1 + across + 1, y1 + down + 1, x2 - across - 1, y2 - down - 1))
        self.fill(Rect(x1, y1, x2, y1 + down), colour)
        self.fill(Rect(x1, y2 - down, x2, y2), colour)
        self.fill(Rect(x1, y1, x1 + across, y2), colour)
        self.fill(Rect(x2 - across, y1, x2, y2), colour)

    def polygon(self, corners: tuple[Point, ...], line: int, colour: YUV) -> None:
        pixels, (luma, u, v) = outline(corners, (self.height, self.width), line), self._planes
        luma[pixels.halo] >>= 1
        ground = luma[pixels.line] * (255 - pixels.cover)
        luma[pixels.line] = (ground + colour[0] * pixels.cover + 127) // 255
        u[pixels.chroma], v[pixels.chroma] = colour[1], colour[2]

    def classes(self, segmentation: SegmentationMap, settings: OverlaySettings) -> None:
        tables = tables_of(segmentation.meaning, self._colours)
        lay_over(self._planes, segmentation, tables, settings)

    def masks(
        self, detections: Detections, colours: dict[int, RGB], settings: OverlaySettings
    ) -> None:
        as_yuv = {i: self.colour(rgb) for i, rgb in colours.items()}
        lay_masks_over(self._planes, detections, as_yuv, settings)

    def conceal(self, boxes: Boxes) -> None:
        pixelate(self._planes, boxes)

    def _dim(self, area: Rect) -> None:
        x1, y1, x2, y2 = area
        luma, u, v = self._planes
        half = slice(y1 // 2, y2 // 2), slice(x1 // 2, x2 // 2)
        parts = luma[y1:y2, x1:x2], u[half], v[half]
        for part, black in zip(parts, self._colours.black, strict=True):
            np.right_shift(part, 2, out=part)
            part += black * 3 // 4

    def _write(self, text: str, letters: int, area: Rect, paper: int, ink: int) -> None:
        x1, y1, x2, y2 = area
        ground = self._planes[0][y1:y2, x1:x2]  # may be wider than its text
        written = plate(text, letters, paper, ink)[: ground.shape[0], : ground.shape[1]]
        ground[: written.shape[0], : written.shape[1]] = written

    def _blend(self, cover: Mask, left: int, top: int, ink: int) -> None:
        ground = self._planes[0][top : top + cover.shape[0], left : left + cover.shape[1]]
        weight = cover[: ground.shape[0], : ground.shape[1]].astype(np.uint16)
        ground[:] = (ground * (255 - weight) + ink * weight + 127) // 255

    def _shade_around(self, box: Rect) -> None:
        """Halve the light of the pixels just outside a rectangle."""
        x1, y1 = max(0, box.x1 - 1), max(0, box.y1 - 1)
        x2, y2 = min(self.width, box.x2 + 1), min(self.height, box.y2 + 1)
        if x1 + 2 > x2 or y1 + 2 > y2:
            return
        luma = self._planes[0]
        for edge in (luma[y1, x1:x2], luma[y2 - 1, x1:x2], luma[y1:y2, x1], luma[y1:y2, x2 - 1]):
            np.right_shift(edge, 1, out=edge)


def canvas_for(frame: Frame, stays: Callable[[str], bool]) -> Canvas:
    """A copy of the frame's picture: on its GPU if it lies there, else in main memory.

    Args:
        stays: Asked, with the name of the source, for pictures on a GPU only: whether this one
            may stay there.
    """
    if is_on_gpu(frame.picture) and stays(frame.source):
        from pipeline.gpu.canvas import GpuCanvas
        from pipeline.gpu.trial import can_be_drawn_on

        if can_be_drawn_on(frame.picture):
            return GpuCanvas(frame.picture)
    return PlaneCanvas(frame.in_memory)


@lru_cache(maxsize=16)
def tables_of(meaning: PixelClasses, colours: Colours) -> Tables:
    """What the classes become in pictures of those colours."""
    return Tables.of(meaning, colours)


@lru_cache(maxsize=256)
def _yuv(colours: Colours, rgb: RGB) -> YUV:
    return colours.yuv(rgb)
