"""From a window of a feature map, whatever its size, to a fixed number of bins: SPPnet's pyramid
(He et al., arXiv:1406.4729, sec. 2.2, appendix A) and Fast R-CNN's RoI pooling (Girshick,
arXiv:1504.08083, sec. 2.1), by one operation of static shapes that every engine runs.

The maximum of a rectangle is the maximum of four overlapping rectangles whose sides are powers of
two, so tables of those (few and cheap: each is the maximum of two shifted copies of another) turn
pooling into one gather and one maximum. ONNX's own MaxRoiPool is unknown to TensorRT, and ONNX
Runtime needs 1.5 to 6 times as long for it; see [What pooling by tables costs].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from models.boxes import SizeHW, at_least_float32

# [What pooling by tables costs]
# Milliseconds on one core for 7x7 bins of 300 | 2000 regions on a 38x50 map (2026-11-21, shared
# machine): 96 channels: ONNX Runtime 7 | 46, OpenVINO 7 | 39, against MaxRoiPool's 44 | 70 and
# 11 | 14; 512 channels: 41 | 405 and 53 | 478 against 57 | 1913 and 9 | 269. The layers behind it
# need a hundred times as long in the second case.


def rounded_windows(boxes: Tensor, stride: float) -> Tensor:
    """Fast R-CNN's windows: corners rounded to the nearest cell, both ends included.

    boxes: (N, R, 4) float32 in pixels of the image -> (N, R, 4) int64 cells ``x1, y1, x2, y2``,
    the ends not included; at least one cell wide and high. Half a cell is rounded up.
    """
    corners = torch.floor(boxes * (1.0 / stride) + 0.5).long()
    low, high = corners[..., :2], corners[..., 2:] + 1
    return torch.cat([low, torch.maximum(high, low + 1)], -1)


@dataclass(frozen=True)
class RoIMaxPool:
    """Fast R-CNN's pooling (sec. 2.1): the maximum in each bin of a region's window.

    It has the face of :class:`models.detection.pooling.PyramidRoIAlign`.
    """

    stride: int
    """Of the one map, in pixels."""
    output: int = 7
    """Bins along a side."""

    def __call__(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """features: one (N, C, h, w); boxes (N, R, 4) -> (N * R, C, output, output).

        By an operator that knows its gradient (not that of ``boxes``), but has no export.
        """
        (cells,) = features
        bins: Tensor = torchvision.ops.roi_pool(
            at_least_float32(cells), list(boxes), self.output, 1 / self.stride
        )
        return bins

    def atlas(self, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The same numbers by static shapes; and (N,) bool, always true: no box is too large."""
        (cells,) = features
        windows = rounded_windows(boxes, self.stride)
        bins = max_over_windows([cells], torch.zeros_like(windows[..., 0]), windows, self.output)
        return bins, torch.ones_like(boxes[:, 0, 0], dtype=torch.bool)


def centred_windows(boxes: Tensor, stride: float, first_centre: float, maps_wh: Tensor) -> Tensor:
    """SPPnet's windows: the cells whose receptive fields have their middle inside the box.

    (Its appendix A says floor(x / S) + 1 and ceil(x / S) - 1, for layers that pad half their
    filter; others have an offset, here ``first_centre``.) A box that holds no such middle gets the
    cell nearest to its own.

    Args:
        boxes: (N, R, 4) float32 in pixels of the image.
        first_centre: where in the image the middle of cell 0 lies, see :func:`first_centre_of`.
        maps_wh: int64, (2,) or (N, R, 2): cells in x and y of the map that a box is pooled from.

    Returns:
        (N, R, 4) int64 cells on the map, ``x1, y1, x2, y2``, the ends not included.
    """
    at = (boxes - first_centre) * (1.0 / stride)
    first, last = torch.floor(at[..., :2]).long() + 1, torch.ceil(at[..., 2:]).long() - 1
    middle = torch.floor((at[..., :2] + at[..., 2:]) * 0.5 + 0.5).long()
    empty = last < first
    first = torch.minimum(torch.where(empty, middle, first).clamp(min=0), maps_wh - 1)
    last = torch.minimum(torch.where(empty, middle, last).clamp(min=0), maps_wh - 1)
    return torch.cat([first, torch.maximum(first, last) + 1], -1)


def first_centre_of(layers: nn.Module, stride: int) -> float:
    """Where, in pixels from the left edge, the middle of what cell 0 sees lies.

    Raises:
        ValueError: the layers are no chain whose strides multiply to ``stride``.
    """
    centre, pitch = 0.5, 1
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, step, padding = (
                _one(x) for x in (layer.kernel_size, layer.stride, layer.padding)
            )
            centre += pitch * ((kernel - 1) / 2 - padding)
            pitch *= step
    if pitch != stride:
        raise ValueError(f"layers in a chain have a stride of {pitch} pixels, expected {stride}")
    return centre


def _one(side: int | str | tuple[int, ...]) -> int:
    """Of a square kernel, ``(3, 3)`` or ``3``."""
    return int(side[0]) if isinstance(side, tuple) else int(side)


def max_over_windows(maps: Sequence[Tensor], level: Tensor, windows: Tensor, grid: int) -> Tensor:
    """The largest value of each of grid x grid bins of every window, channel by channel.

    Bin i of a window of n cells reaches from floor(i n / grid) to ceil((i + 1) n / grid), so
    neighbours share cells when n is no multiple. What sticks out of the map is cut off; an empty
    bin is 0.

    Args:
        maps: (N, C, h, w) each; C is the same for all.
        level: (N, R) int64, which map a window lies on.
        windows: (N, R, 4) int64 cells ``x1, y1, x2, y2``, the ends not included; at most two cells
            wider or higher than their map.

    Returns:
        (N * R, C, grid, grid). Gradients reach the maps, though torchvision's operator is quicker
        at them: see :class:`RoIMaxPool`.
    """
    batch, channels = maps[0].shape[:2]
    tables = [_Table((m.shape[2], m.shape[3]), grid) for m in maps]
    starts = [sum(t.rows for t in tables[:i]) for i in range(len(tables))]
    facts = windows.new_tensor([[*t.facts, s] for t, s in zip(tables, starts, strict=True)])
    width, height, columns, first_row = F.embedding(level, facts).unbind(-1)

    sides = torch.stack([width, height], -1)
    low, high = _bins(windows, grid, sides)
    octave, span = _octaves(high - low, max(max(t.octaves) for t in tables))
    a = torch.minimum(low, sides[..., None] - 1)
    b = (high - span).clamp(min=0)  # of an empty bin, anything that lies on the map

    table_xy = octave[..., 1, :, None] * columns[..., None, None] + octave[..., 0, None, :]
    image = torch.arange(batch, device=windows.device)[:, None]
    start = image * sum(t.rows for t in tables) + first_row
    start = start[..., None, None] + table_xy * (width * height)[..., None, None]
    corners = [
        start + y[..., 1, :, None] * width[..., None, None] + x[..., 0, None, :]
        for y in (a, b)
        for x in (a, b)
    ]
    rows = torch.cat([t.fill(m) for t, m in zip(tables, maps, strict=True)], 1)
    index = torch.stack(corners, -1).reshape(-1, 4)
    bins = F.embedding(index, rows.reshape(-1, channels)).amax(1)
    empty = (high <= low)[..., 1, :, None] | (high <= low)[..., 0, None, :]
    bins = torch.where(empty.reshape(-1, 1), torch.zeros_like(bins), bins)
    return bins.reshape(-1, grid * grid, channels).transpose(1, 2).reshape(-1, channels, grid, grid)


def _bins(windows: Tensor, grid: int, sides: Tensor) -> tuple[Tensor, Tensor]:
    """First cell and end of every bin along x and y: two (N, R, 2, grid)."""
    start, length = windows[..., :2, None], (windows[..., 2:] - windows[..., :2])[..., None]
    step = torch.arange(grid, device=windows.device)
    # In whole numbers: 7 * (3 / 7) in float32 need not be 3.
    low = start + torch.div(step * length, grid, rounding_mode="floor")
    high = start + torch.div((step + 1) * length + grid - 1, grid, rounding_mode="floor")
    ends = sides[..., None]
    return torch.minimum(low.clamp(min=0), ends), torch.minimum(high.clamp(min=0), ends)


def _octaves(length: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The exponent of the largest power of two that fits into a length, and the power; int64."""
    octave, power = torch.zeros_like(length), torch.ones_like(length)
    for exponent in range(1, count):
        fits = (length >= 2**exponent).long()
        octave, power = octave + fits, power + fits * 2 ** (exponent - 1)
    return octave, power


class _Table:
    """Maxima of all rectangles of 2^i x 2^j cells of a map, for bins of ``grid`` x ``grid``."""

    def __init__(self, map_hw: SizeHW, grid: int) -> None:
        self.height, self.width = map_hw
        longest = [min(side, math.ceil((side + 2) / grid) + 1) for side in map_hw]
        self.octaves = tuple(n.bit_length() for n in longest)  # along y, along x
        self.rows = self.octaves[0] * self.octaves[1] * self.height * self.width
        self.facts = (self.width, self.height, self.octaves[1])

    def fill(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, rows, C): by octave of height, octave of width, y, x."""
        # Channels last, so that a row is one piece of memory to gather.
        tall, parts = features.permute(0, 2, 3, 1), []
        for i in range(self.octaves[0]):
            tall = tall if i == 0 else _doubled(tall, 1, 2 ** (i - 1))
            wide = tall
            for j in range(self.octaves[1]):
                wide = wide if j == 0 else _doubled(wide, 2, 2 ** (j - 1))
                parts.append(wide.flatten(1, 2))
        return torch.cat(parts, 1)


def _doubled(rows: Tensor, axis: int, by: int) -> Tensor:
    """The maximum of every cell and the one ``by`` further; past the end stands what is unread."""
    length = rows.shape[axis]
    shifted = torch.cat([rows.narrow(axis, by, length - by), rows.narrow(axis, 0, by)], axis)
    return torch.maximum(rows, shifted)


def pyramid(bins: Tensor, grids: Sequence[int]) -> Tensor:
    """Spatial pyramid pooling from its finest level alone: (R, C, g, g) -> (R, C * sum of n^2).

    With floors at the left and ceilings at the right, a coarse bin is just the union of the fine
    ones in it, as long as every n divides g, as in {1, 2, 3, 6} and {1, 2, 4}.

    grids: bins along a side, level by level; the order of the output.
    """
    finest = bins.shape[-1]
    if any(finest % n for n in grids):
        raise ValueError(f"every level must divide the finest, got {tuple(grids)} of {finest}")
    return torch.cat([F.max_pool2d(bins, finest // n).flatten(1) for n in grids], 1)
