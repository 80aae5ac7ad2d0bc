"""What is to be drawn on a picture, written down for a kernel that does all of it at once.

A launch for each rectangle would cost the host about as much as drawing it. So it becomes a row of
numbers, letters and masks become bytes behind the rows, and all of it goes to the GPU in one copy.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.drawing.canvas import Rect
from pipeline.drawing.overlay import YUV

FILL, FRAME, DIM, BLEND, POLYGON, TINT = range(6)
"""Kinds of orders; see `pipeline.gpu.painting` for what they do."""

FIELDS = 12
"""Numbers of a row: kind, x1, y1, x2, y2, Y, U, V, line, address of the stamp, bytes from one row
of it to the next, address of the table of mixtures."""
_ADDRESS = 9
_ALIGNED = 64  # bytes: stamps begin on a line of the GPU's memory

Stamp = npt.NDArray[np.uint8]
"""(h, w): a number for each pixel of an order's rectangle."""
Tensor = Any


class Sent(NamedTuple):
    """Orders on the device.

    Attributes:
        table: (n, 12) int64.
        rows: n.
        keeps: What must live until they have been carried out.
    """

    table: Tensor
    rows: int
    keeps: tuple[Tensor, ...]


class Orders:
    """A list of orders, in the order in which they were given."""

    def __init__(self) -> None:
        self._table = array("q")
        self._stamps: list[tuple[int, Stamp]] = []  # with the number of their order
        self._keeps: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._table) // FIELDS

    def add(self, kind: int, area: Rect, colour: YUV = (0, 0, 0), line: int = 0) -> None:
        """Something that needs no stamp."""
        self._table.extend((kind, *area, *colour, line, 0, 0, 0))

    def add_stamp(
        self,
        kind: int,
        area: Rect,
        colour: YUV,
        stamp: Stamp,
        mixtures: Tensor | None = None,
    ) -> None:
        """Something with a stamp for its rectangle, which may be smaller than the stamp.

        Args:
            mixtures: (256, 256) uint8 on the device, for `TINT`.
        """
        mixed = 0
        if mixtures is not None:
            self._keeps.append(mixtures)
            mixed = mixtures.data_ptr()
        self._stamps.append((len(self), stamp))
        self._table.extend((kind, *area, *colour, 0, 0, stamp.shape[1], mixed))

    def add_kept(self, kind: int, area: Rect, colour: YUV, stamp: Tensor) -> None:
        """The same with a stamp (h, w) that lies on the device already."""
        self._keeps.append(stamp)
        self._table.extend((kind, *area, *colour, 0, stamp.data_ptr(), stamp.shape[1], 0))

    def send(self, device: Any) -> Sent:
        """Copy all to the device, in the current stream."""
        import torch

        table = np.array(self._table, np.int64).reshape(-1, FIELDS)
        offsets, size = _places((stamp.size for _, stamp in self._stamps), table.nbytes)
        there = torch.empty(size, dtype=torch.uint8, device=device)
        is_gpu = there.is_cuda
        here = torch.empty(size, dtype=torch.uint8, pin_memory=is_gpu) if is_gpu else there
        room = here.numpy()
        for (row, stamp), offset in zip(self._stamps, offsets, strict=True):
            table[row, _ADDRESS] = there.data_ptr() + offset
            room[offset : offset + stamp.size].reshape(stamp.shape)[:] = stamp
        room[: table.nbytes] = table.view(np.uint8).ravel()
        if is_gpu:  # pinned memory is not given to others before the copy has been made
            there.copy_(here, non_blocking=True)
        rows = there[: table.nbytes].view(torch.int64)
        return Sent(rows, len(table), (there, *self._keeps))


def _places(sizes: Iterable[int], start: int) -> tuple[list[int], int]:
    """Where stamps of those sizes begin, behind what takes `start` bytes; and where all ends."""
    offsets, end = list[int](), start
    for size in sizes:
        begin = -(-end // _ALIGNED) * _ALIGNED
        offsets.append(begin)
        end = begin + size
    return offsets, end
