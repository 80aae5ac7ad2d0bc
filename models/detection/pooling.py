"""RoIAlign over a feature pyramid (Mask R-CNN, arXiv:1703.06870, sec. 3; FPN, eq. 1), two ways.

Training: :meth:`PyramidRoIAlign.__call__` gathers weighted rows with ``embedding_bag``, which on a
CPU is several times quicker than torchvision's operator and as differentiable.

Export: :meth:`PyramidRoIAlign.atlas` packs all levels into one map and calls RoIAlign once. The
usual way (which boxes lie on this level? pool them, scatter them back) has data-dependent shapes.

Both equal torchvision's MultiScaleRoIAlign with ``aligned=False``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from models.boxes import area, at_least_float32

_LEVEL_EPS = 1e-6  # torchvision adds it to the level before rounding down
_MARGIN = 2  # rows and columns repeated after each level of the atlas


@dataclass(frozen=True)
class PyramidRoIAlign:
    """Pools ``output`` x ``output`` bins of ``sampling`` x ``sampling`` samples each."""

    strides: tuple[int, ...]
    """Pitch in pixels of the levels to pool from: the first ones of the pyramid, finest first."""
    canonical_pixels: float = 224.0
    canonical_level: int = 4
    """A box of canonical_pixels squared is pooled from stride 2 ** canonical_level."""
    output: int = 7
    sampling: int = 2

    def level(self, boxes: Tensor) -> Tensor:
        """(..., 4) -> (...) int64 index into ``strides`` (FPN, eq. 1)."""
        octaves = [s.bit_length() - 1 - self.canonical_level - _LEVEL_EPS for s in self.strides]
        least = [(self.canonical_pixels * 2.0**octave) ** 2 for octave in octaves]
        least[0] = 0.0  # the finest takes whatever is smaller
        return (area(boxes)[..., None] >= boxes.new_tensor(least)).sum(-1) - 1

    def __call__(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """features: levels (N, C, h, w); boxes (N, R, 4) -> (N * R, C, output, output).

        Differentiable in ``features``, not in ``boxes``.
        """
        maps = features[: len(self.strides)]
        batch, channels = maps[0].shape[:2]
        rows = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, channels) for m in maps])
        with torch.no_grad():
            index, weight = self._samples(boxes, [(m.shape[2], m.shape[3]) for m in maps])
        bins = F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight.to(rows.dtype))
        bins = bins.reshape(batch * boxes.shape[1], self.output, self.output, channels)
        return bins.permute(0, 3, 1, 2)

    def _samples(self, boxes: Tensor, maps_hw: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Row numbers and weights of the (2 * sampling)^2 cells behind each bin.

        The rows are those of all levels, one after the other, each (N, h, w).
        """
        batch, count = boxes.shape[:2]
        height, width = (boxes.new_tensor(side) for side in zip(*maps_hw, strict=True))
        cells = [batch * h * w for h, w in maps_hw]
        first = torch.tensor([0, *cells[:-1]], device=boxes.device).cumsum(0)
        level = self.level(boxes)
        on_map = boxes / boxes.new_tensor(self.strides)[level][..., None]
        x1, y1, x2, y2 = (side.reshape(-1) for side in on_map.unbind(-1))
        h, w = height[level].reshape(-1), width[level].reshape(-1)
        y_index, y_weight = self._axis(y1, y2, h)
        x_index, x_weight = self._axis(x1, x2, w)
        image = torch.arange(batch, device=boxes.device).repeat_interleave(count)
        start = first[level].reshape(-1) + image * (h * w).long()
        y_index = start[:, None, None] + y_index * w.long()[:, None, None]
        index = y_index[:, :, None, :, None] + x_index[:, None, :, None, :]
        weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        bins = batch * count * self.output**2
        return index.reshape(bins, -1), weight.reshape(bins, -1)

    def _axis(self, low: Tensor, high: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """One axis of all boxes, in cells: two neighbours of every sample, and their shares.

        low, high, length: (R,) -> index int64, weight: (R, output, 2 * sampling).
        """
        at = self._positions(low, high)
        inside = (at <= length[:, None]).to(at.dtype)
        last = length[:, None] - 1
        below = torch.minimum(at.floor(), last)
        fraction = torch.where(below < last, at - below, torch.zeros_like(at))
        index = torch.stack([below, torch.minimum(below + 1, last)], -1).long()
        weight = torch.stack([1 - fraction, fraction], -1) * (inside / self.sampling)[..., None]
        shape = (len(low), self.output, 2 * self.sampling)
        return index.reshape(shape), weight.reshape(shape)

    def _positions(self, low: Tensor, high: Tensor) -> Tensor:
        """Where the samples of an axis fall, in cells: (...) -> (..., output * sampling).

        A box narrower than one cell is pooled as one cell wide, which can carry it over the border;
        samples out there are zero. Boxes are clipped, so nothing falls below 0.
        """
        samples = self.output * self.sampling
        step = (torch.arange(samples, dtype=low.dtype, device=low.device) + 0.5) / samples
        return low[..., None] + (high - low).clamp(min=1.0)[..., None] * step

    def atlas(self, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """The same as :meth:`__call__`, by one RoIAlign over one map with static shapes.

        Also (N,) bool: every sample fell where the atlas holds what it stands for. It always does
        if the boxes are clipped to the image. Not differentiable.
        """
        maps = features[: len(self.strides)]
        sheet, origins = _atlas(maps)
        batch, count = boxes.shape[:2]
        table = [
            [*[1 / stride] * 4, x, y, x, y, x + m.shape[3], y + m.shape[2]]
            for stride, (x, y), m in zip(self.strides, origins, maps, strict=True)
        ]
        level = self.level(boxes).reshape(-1)
        of_level = F.embedding(level, boxes.new_tensor(table))  # exports as one Gather
        scale, origin, end = of_level.split([4, 4, 2], -1)
        placed = boxes.reshape(-1, 4) * scale + origin
        image = torch.arange(batch, device=boxes.device)[:, None].expand(batch, count).reshape(-1)
        # float32 even over half-precision maps: the operator wants one type for cells and boxes
        sheet = at_least_float32(sheet)
        bins = roi_align(sheet, placed, image, self.output, self.sampling)
        # See [Why the atlas needs a border mask] and [Why the distance is looked at twice]
        share, sound = self._share_inside(placed[:, :2], placed[:, 2:], end)
        mask = share[:, 1, None, :, None] * share[:, 0, None, None, :]
        return bins * mask, sound.reshape(batch, -1).all(1)

    def _share_inside(self, low: Tensor, high: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """The fraction of a bin's samples that lie on the level; and whether all lie close to it.

        (..., ) cells of an axis -> (..., output) and (...) bool.
        """
        beyond = self._positions(low, high) - end[..., None]
        inside = (beyond <= 0).to(low.dtype)
        share = inside.reshape(-1, self.output, self.sampling).mean(-1)
        return share.reshape(*low.shape, self.output), beyond[..., -1] <= 1


# [Why the atlas needs a border mask]
# RoIAlign reads beyond the last cell as that cell (up to its outer edge) and as zero from there on.
# Two repeated rows and columns after each level give the first part. The second would read the
# next level's cells, or a third repeated row, and only happens to boxes thinner than one cell at
# the right or lower border. All samples of such a row (column) of samples read the same cell, so
# scaling the bin by the share of samples inside equals zeroing the others.

# [Why the distance is looked at twice]
# That the samples are sound is worth a word in the certificate, but it also keeps them sharp. In
# bfloat16 mode OpenVINO leaves in float32 what outputs depend on with no convolution or matrix
# product in between. Boxes that only served to pool, on the way to such a product, would be
# rounded: by up to a quarter of a cell at cell 64. Which samples lie inside is on that way, and may
# be asked in bfloat16: rounding a distance leaves its sign.


@torch.library.custom_op("boxstream::roi_align", mutates_args=())
def roi_align(maps: Tensor, boxes: Tensor, image: Tensor, output: int, sampling: int) -> Tensor:
    """RoIAlign as ONNX takes it: boxes (R, 4) in cells, and apart from them image (R,) int64."""
    rois = torch.cat([image[:, None].to(boxes), boxes], 1)
    return torchvision.ops.roi_align(maps, rois, output, 1.0, sampling, False)


@roi_align.register_fake
def _(maps: Tensor, boxes: Tensor, image: Tensor, output: int, sampling: int) -> Tensor:
    return maps.new_empty(boxes.shape[0], maps.shape[1], output, output)


def _atlas(maps: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """One (N, C, H, W) holding the first level on top and the others side by side below.

    Also the origin ``x, y`` of each level there, in cells.
    """
    wider = [_with_margin(m, 3) for m in maps]
    if len(wider) == 1:
        return _with_margin(wider[0], 2), [(0, 0)]
    top, rest = wider[0], [_with_margin(m, 2) for m in wider[1:]]
    lower_height = max(m.shape[2] for m in rest)
    lower = torch.cat([F.pad(m, (0, 0, 0, lower_height - m.shape[2])) for m in rest], 3)
    width = max(top.shape[3], lower.shape[3])
    top, lower = (F.pad(m, (0, width - m.shape[3])) for m in (top, lower))
    # The margin of the top and the rest in one piece, because the top is large.
    sheet = torch.cat([*_and_margin(top, 2), lower], 2)
    origins, x, y = [(0, 0)], 0, top.shape[2] + _MARGIN
    for m in rest:
        origins.append((x, y))
        x += m.shape[3]
    return sheet, origins


def _with_margin(x: Tensor, axis: int) -> Tensor:
    """The last row or column, repeated. (Not F.pad: its "replicate" exports as a gather.)"""
    return torch.cat(_and_margin(x, axis), axis)


def _and_margin(x: Tensor, axis: int) -> list[Tensor]:
    last = x.narrow(axis, x.shape[axis] - 1, 1)
    return [x, *[last] * _MARGIN]
