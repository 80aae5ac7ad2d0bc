"""A picture in main memory, to draw on with numpy."""

from __future__ import annotations

import av
import numpy as np

from pipeline.drawing.blur import pixelate
from pipeline.drawing.canvas import Canvas, Rect, tables_of
from pipeline.drawing.outline import outline
from pipeline.drawing.overlay import YUV, lay_masks_over, lay_over
from pipeline.drawing.text import Mask, plate
from pipeline.frame import RGB, Boxes, Detections, SegmentationMap
from pipeline.polygon import Point
from pipeline.settings import OverlaySettings
from pipeline.yuv import Colours, own_yuv420p, planes


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
