"""A picture to draw on, plane by plane: luma at full size, chroma at half."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np

from pipeline.frame import RGB, Detections, PixelClasses, SegmentationMap
from pipeline.outline import outline
from pipeline.overlay import Tables, lay_masks_over, lay_over
from pipeline.polygon import Point
from pipeline.settings import OverlaySettings
from pipeline.text import plate, rasterise
from pipeline.yuv import Colours, planes

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


class Canvas:
    """A picture of our own, to draw on.

    Args:
        picture: yuv420p of even size.
    """

    def __init__(self, picture: av.VideoFrame) -> None:
        self._planes = planes(picture)
        self._colours = Colours.of(picture)
        self.width, self.height = picture.width, picture.height

    def colour(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        """The colour as Y, U, V of this picture."""
        return _yuv(self._colours, rgb)

    def fill(self, area: Rect, colour: tuple[int, int, int]) -> None:
        """Fill the rectangle; an edge on an odd pixel colours its whole neighbour."""
        x1, y1, x2, y2 = area
        luma, u, v = self._planes
        luma[y1:y2, x1:x2] = colour[0]
        half = slice(y1 // 2, (y2 + 1) // 2), slice(x1 // 2, (x2 + 1) // 2)
        u[half] = colour[1]
        v[half] = colour[2]

    def frame(self, box: Rect, line: int, colour: tuple[int, int, int]) -> None:
        """Outline a box, with a soft dark edge on both sides that parts it from any ground."""
        x1, y1, x2, y2 = box
        across, down = min(line, x2 - x1), min(line, y2 - y1)
        self._shade_around(box)
        self._shade_around(Rect(x1 + across + 1, y1 + down + 1, x2 - across - 1, y2 - down - 1))
        self.fill(Rect(x1, y1, x2, y1 + down), colour)
        self.fill(Rect(x1, y2 - down, x2, y2), colour)
        self.fill(Rect(x1, y1, x1 + across, y2), colour)
        self.fill(Rect(x2 - across, y1, x2, y2), colour)

    def polygon(self, corners: tuple[Point, ...], line: int, colour: tuple[int, int, int]) -> None:
        """Outline an area whose corners are shares of width and height, with soft dark edges."""
        pixels, (luma, u, v) = outline(corners, (self.height, self.width), line), self._planes
        luma[pixels.halo] >>= 1
        ground = luma[pixels.line] * (255 - pixels.cover)
        luma[pixels.line] = (ground + colour[0] * pixels.cover + 127) // 255
        u[pixels.chroma], v[pixels.chroma] = colour[1], colour[2]

    def label(self, label: Label, letters: int, colour: tuple[int, int, int]) -> None:
        """Put letters on a plate in the colour of the box, dark ones unless that is dark."""
        x1, y1, x2, y2 = label.place
        self.fill(label.place, colour)
        ink = INK if colour[0] >= DARK else PAPER
        text = plate(label.text, letters, colour[0], self.colour(ink)[0])
        paper = self._planes[0][y1:y2, x1:x2]  # may be wider than its text
        text = text[: paper.shape[0], : paper.shape[1]]
        paper[: text.shape[0], : text.shape[1]] = text

    def classes(self, segmentation: SegmentationMap, settings: OverlaySettings) -> None:
        """Tint every pixel in the colour of its class."""
        tables = _tables(segmentation.meaning, self._colours)
        lay_over(self._planes, segmentation, tables, settings)

    def masks(
        self, detections: Detections, colours: dict[int, RGB], settings: OverlaySettings
    ) -> None:
        """Tint the pixels of objects in their colours, by their numbers; the last is on top."""
        as_yuv = {i: self.colour(rgb) for i, rgb in colours.items()}
        lay_masks_over(self._planes, detections, as_yuv, settings)

    def hud(self, lines: Sequence[str], letters: int) -> None:
        """Put light letters in the top left corner, on a ground that lets the picture through."""
        masks = [rasterise(line, letters) for line in lines]
        edge = 2 * (letters // 4)
        bottom = min(self.height, edge + sum(mask.shape[0] for mask in masks))
        right = min(self.width, edge + max(mask.shape[1] for mask in masks))
        self._dim(Rect(min(edge, right), min(edge, bottom), right, bottom))
        white, y = self.colour((250, 250, 250))[0], edge
        for mask in masks:
            part = self._planes[0][y : y + mask.shape[0], edge : edge + mask.shape[1]]
            cover = mask[: part.shape[0], : part.shape[1]].astype(np.uint16)
            part[:] = (part * (255 - cover) + white * cover + 127) // 255
            y += mask.shape[0]

    def _dim(self, area: Rect) -> None:
        """Leave a quarter of the light and the colour of a rectangle on even pixels."""
        x1, y1, x2, y2 = area
        luma, u, v = self._planes
        half = slice(y1 // 2, y2 // 2), slice(x1 // 2, x2 // 2)
        parts = luma[y1:y2, x1:x2], u[half], v[half]
        for part, black in zip(parts, self._colours.black, strict=True):
            np.right_shift(part, 2, out=part)
            part += black * 3 // 4

    def _shade_around(self, box: Rect) -> None:
        """Halve the light of the pixels just outside a rectangle."""
        x1, y1 = max(0, box.x1 - 1), max(0, box.y1 - 1)
        x2, y2 = min(self.width, box.x2 + 1), min(self.height, box.y2 + 1)
        if x1 + 2 > x2 or y1 + 2 > y2:
            return
        luma = self._planes[0]
        for edge in (luma[y1, x1:x2], luma[y2 - 1, x1:x2], luma[y1:y2, x1], luma[y1:y2, x2 - 1]):
            np.right_shift(edge, 1, out=edge)


@lru_cache(maxsize=16)
def _tables(meaning: PixelClasses, colours: Colours) -> Tables:
    return Tables.of(meaning, colours)


@lru_cache(maxsize=256)
def _yuv(colours: Colours, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    return colours.yuv(rgb)
