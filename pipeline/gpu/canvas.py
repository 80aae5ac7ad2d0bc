"""A picture to draw on that lies in a GPU's memory: it gets the pixels that the CPU would write.

What is drawn is written down, and done when the picture is asked for: by one kernel, and by one
more for what has to be known first, classes of pixels and what is blurred. All of it, and the copy
that is drawn on, is work for FFmpeg's stream, so that it lies between the decoder's and NVENC's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import av
import cv2
import numpy as np
import numpy.typing as npt

from pipeline.drawing.blur import Mosaic, cuts, mosaics
from pipeline.drawing.canvas import Canvas, Rect, tables_of
from pipeline.drawing.outline import outline
from pipeline.drawing.overlay import YUV, even_patch, outline_of
from pipeline.drawing.text import Mask, rasterise
from pipeline.errors import EngineError
from pipeline.frame import RGB, Boxes, Detections, PixelClasses, SegmentationMap
from pipeline.gpu.memory import Device, Own, Tensor, ffmpegs_stream, on_device
from pipeline.gpu.orders import BLEND, DIM, FILL, FRAME, POLYGON, TINT, Orders
from pipeline.gpu.painting import kernels
from pipeline.gpu.pictures import planes_on_gpu
from pipeline.placement import Placement
from pipeline.polygon import Point
from pipeline.settings import OverlaySettings
from pipeline.yuv import Colours

TILE = (16, 64)  # rows and columns of luma for each program: as many as it has registers for
BLOCK = (16, 64)  # the same for the mean of a block


class GpuCanvas(Canvas):
    """Draws on a copy in NV12; see `Canvas`.

    Args:
        picture: NV12 of even size in a GPU's memory; it is not written to.
        tile, block: Rows and columns that a program of a kernel has at once; powers of two.
    """

    def __init__(
        self,
        picture: av.VideoFrame,
        tile: tuple[int, int] = TILE,
        block: tuple[int, int] = BLOCK,
    ) -> None:
        super().__init__(picture.width, picture.height, Colours.of(picture))
        self._source, self._tile, self._block = picture, tile, block
        self._planes = planes_on_gpu(picture)
        self._device = self._planes[0].device
        self._orders = Orders()
        self._steps: list[Callable[[Own], None]] = []

    def picture(self) -> av.VideoFrame:
        """See `Canvas`; `EngineError` if the GPU fails."""
        self._close_orders()
        try:
            with ffmpegs_stream(self._device):
                own = Own.copy_of(*self._planes)
                for step in self._steps:
                    step(own)
                return own.picture(self._source, self._colours)
        except (RuntimeError, av.FFmpegError) as error:
            why = str(error).strip().partition("\n")[0]
            raise EngineError(
                f"drawing on the GPU failed in mid-run ({why}); `video.encoder: libx264` has "
                "pictures drawn on and encoded by the CPU"
            ) from error

    def fill(self, area: Rect, colour: YUV) -> None:
        self._orders.add(FILL, area, colour)

    def frame(self, box: Rect, line: int, colour: YUV) -> None:
        self._orders.add(FRAME, box, colour, line)

    def polygon(self, corners: tuple[Point, ...], line: int, colour: YUV) -> None:
        area, cover = _cover(corners, (self.height, self.width), line, self._device)
        self._orders.add_kept(POLYGON, area, colour, cover)

    def masks(
        self, detections: Detections, colours: dict[int, RGB], settings: OverlaySettings
    ) -> None:
        mixtures = _mixtures(settings.alpha, self._device)
        for i, rgb in colours.items():
            found = even_patch(detections, i, (self.height, self.width))
            if found is None:
                continue
            top, left, inside = found
            stamp = inside // 255
            if settings.edges:
                stamp += outline_of(inside) // 255
            area = self._from(left, top, stamp)
            self._orders.add_stamp(TINT, area, self.colour(rgb), stamp, mixtures)

    def classes(self, segmentation: SegmentationMap, settings: OverlaySettings) -> None:
        self._close_orders()
        self._steps.append(partial(self._tint, segmentation, settings))

    def conceal(self, boxes: Boxes) -> None:
        self._close_orders()
        self._steps.append(partial(self._blur, mosaics(boxes, (self.height, self.width))))

    def _dim(self, area: Rect) -> None:
        y, u, v = (black * 3 // 4 for black in self._colours.black)
        self._orders.add(DIM, area, (y, u, v))

    def _write(self, text: str, letters: int, area: Rect, paper: int, ink: int) -> None:
        self._blend(rasterise(text, letters), area.x1, area.y1, ink, area)

    def _blend(
        self, cover: Mask, left: int, top: int, ink: int, limits: Rect | None = None
    ) -> None:
        area = self._from(left, top, cover)
        if limits is not None:
            area = Rect(left, top, min(area.x2, limits.x2), min(area.y2, limits.y2))
        if area.x1 < area.x2 and area.y1 < area.y2:
            self._orders.add_stamp(BLEND, area, (ink, 0, 0), cover)

    def _from(self, left: int, top: int, stamp: Mask) -> Rect:
        """Where a stamp lies in the picture."""
        rows, columns = stamp.shape
        return Rect(left, top, min(self.width, left + columns), min(self.height, top + rows))

    def _close_orders(self) -> None:
        """Have what was written down so far done before what follows."""
        if self._orders:
            self._steps.append(partial(self._draw, self._orders))
            self._orders = Orders()

    @property
    def _grid(self) -> tuple[int, int]:
        rows, columns = self._tile
        return -(-self.height // rows), -(-self.width // columns)

    def _draw(self, orders: Orders, own: Own) -> None:
        sent = orders.send(self._device)
        kernels().draw[self._grid](
            own.memory, own.pitch, self.height, self.width, sent.table, sent.rows, *self._tile
        )

    def _tint(self, segmentation: SegmentationMap, settings: OverlaySettings, own: Own) -> None:
        ids = np.ascontiguousarray(segmentation.of_frame)
        rows, columns = _nearest(segmentation.placement, (self.height, self.width), self._device)
        kernels().classes[self._grid](
            *(own.memory, own.pitch, self.height, self.width),
            *(on_device(ids, self._device), ids.shape[1], rows, columns),
            _tables(segmentation.meaning, self._colours, self._device),
            *(_mixtures(settings.alpha, self._device), settings.edges, *self._tile),
        )

    def _blur(self, areas: list[Mosaic], own: Own) -> None:
        """What overlaps is blurred one after the other, all else at once."""
        for together in _apart(areas):
            blocks = np.concatenate([_blocks(area, own) for area in together])
            kernels().mosaic[(len(blocks),)](
                own.memory, own.pitch, on_device(blocks, self._device), *self._block
            )


def _apart(areas: list[Mosaic]) -> list[list[Mosaic]]:
    """The areas in groups of which no two overlap; of two that do, the first comes first."""
    groups = list[list[Mosaic]]()
    for area in areas:
        box = Rect(*area[:4])
        beneath = (n for n, group in enumerate(groups) if _overlaps_any(box, group))
        level = max(beneath, default=-1) + 1
        if level == len(groups):
            groups.append([])
        groups[level].append(area)
    return groups


def _overlaps_any(box: Rect, group: list[Mosaic]) -> bool:
    return any(box.overlaps(Rect(*other[:4])) for other in group)


def _blocks(area: Mosaic, own: Own) -> npt.NDArray[np.int32]:
    """(B, 4) begin, rows, columns and step of every block of an area on all three planes."""
    blocks = list[npt.NDArray[np.int64]]()
    for plane, (divisor, step) in enumerate(((1, 1), (2, 2), (2, 2))):
        begin = 0 if plane == 0 else own.height * own.pitch + plane - 1
        rows = area.top // divisor + cuts((area.bottom - area.top) // divisor, area.down)
        columns = area.left // divisor + cuts((area.right - area.left) // divisor, area.across)
        begins = begin + rows[:-1, None] * own.pitch + columns[:-1] * step
        sides = np.diff(rows)[:, None], np.diff(columns)[None, :], np.array([[step]])
        blocks.append(np.stack(np.broadcast_arrays(begins, *sides), axis=-1).reshape(-1, 4))
    return np.concatenate(blocks).astype(np.int32)


@lru_cache(maxsize=32)
def _cover(
    corners: tuple[Point, ...], size_hw: tuple[int, int], line: int, device: Device
) -> tuple[Rect, Tensor]:
    """How much of each pixel an outline covers, on the device, and where that lies."""
    pixels = outline(corners, size_hw, line)
    whole = np.zeros(size_hw, np.uint8)
    whole[pixels.line] = pixels.cover
    rows, columns = (np.concatenate(both) for both in zip(pixels.line, pixels.halo, strict=True))
    top, left = int(rows.min()) // 2 * 2, int(columns.min()) // 2 * 2
    bottom, right = int(rows.max()) // 2 * 2 + 2, int(columns.max()) // 2 * 2 + 2
    area = Rect(left, top, right, bottom)
    return area, on_device(whole[top:bottom, left:right], device)


@lru_cache(maxsize=16)
def _nearest(
    placement: Placement, size_hw: tuple[int, int], device: Device
) -> tuple[Tensor, Tensor]:
    """Which row and which column of a map each row and column of a picture has."""
    found = list[Tensor]()
    for scaled, frame, side in zip(placement.scaled_hw, placement.frame_hw, size_hw, strict=True):
        ramp = np.arange(scaled, dtype=np.uint16)[None]
        nearest = cv2.resize(ramp, (frame, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0]
        nearest = np.pad(nearest, (0, side - frame), mode="edge")
        found.append(on_device(nearest.astype(np.int32), device))
    return found[0], found[1]


@lru_cache(maxsize=16)
def _tables(meaning: PixelClasses, colours: Colours, device: Device) -> Tensor:
    """(1024,) uint8 on the device: Y, U, V and whether it is laid over, for each class."""
    tables = tables_of(meaning, colours)
    return on_device(np.concatenate([*tables.planes, tables.tinted]), device)


@lru_cache(maxsize=4)
def _mixtures(alpha: float, device: Device) -> Tensor:
    """(256, 256) uint8 on the device: any colour laid over any ground, as the CPU does it."""
    every = np.arange(256, dtype=np.uint8)
    colour, ground = np.repeat(every, 256).reshape(256, 256), np.tile(every, (256, 1))
    return on_device(np.array(cv2.addWeighted(colour, alpha, ground, 1 - alpha, 0)), device)
