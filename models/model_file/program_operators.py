"""Our operator ``boxstream::roi_align`` in operators that every torch has, for torch programs.

[Why rows are gathered with weights]
Of the ways to say RoIAlign without torchvision, whose operator no compiler looks into, this one is
the quickest: ``embedding_bag`` reads whole cells, which lie together when channels come last.
Milliseconds for 100 boxes on a 63x76 atlas of 128 channels, the least of 15 on two cores of a busy
machine (2026-11-29): this 0.7 and 0.5 compiled, torchvision's operator 25, ``grid_sample`` 45 and
52, a gather and a weighted sum 163 and 80. It is as exact: at most 4e-5 from torchvision's, where
the features are of unit deviation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align_by_rows(
    maps: Tensor, boxes: Tensor, image: Tensor, output: int, sampling: int
) -> Tensor:
    """See :func:`models.detection.pooling.roi_align`; not differentiable in the boxes.

    maps (N, C, H, W); boxes (R, 4) in cells; image (R,) int64 -> (R, C, output, output).
    """
    _, channels, height, width = maps.shape
    y_index, y_weight = _axis(boxes[:, 1], boxes[:, 3], height, output, sampling)
    x_index, x_weight = _axis(boxes[:, 0], boxes[:, 2], width, output, sampling)
    y_index = (image * height)[:, None, None] + y_index
    index = (y_index * width)[:, :, None, :, None] + x_index[:, None, :, None, :]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    cells = (2 * sampling) ** 2
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    bins = F.embedding_bag(
        index.reshape(-1, cells), rows, mode="sum", per_sample_weights=weight.reshape(-1, cells)
    )
    return bins.reshape(-1, output, output, channels).permute(0, 3, 1, 2)


def _axis(
    low: Tensor, high: Tensor, length: int, output: int, sampling: int
) -> tuple[Tensor, Tensor]:
    """One axis of all boxes: two neighbours of every sample, and their shares.

    low, high: (R,) cells -> index int64, weight: (R, output, 2 * sampling). As torchvision's
    operator has it, a sample up to one cell outside of the map reads its border, and one further
    away zero.
    """
    samples = output * sampling
    step = (torch.arange(samples, dtype=low.dtype, device=low.device) + 0.5) / samples
    at = low[:, None] + (high - low).clamp(min=1.0)[:, None] * step
    inside = ((at >= -1.0) & (at <= length)).to(at.dtype)
    at = at.clamp(min=0.0, max=length - 1)
    below = at.floor()
    fraction = at - below
    index = torch.stack([below, (below + 1).clamp(max=length - 1)], -1).long()
    weight = torch.stack([1 - fraction, fraction], -1) * (inside / sampling)[..., None]
    shape = (low.shape[0], output, 2 * sampling)
    return index.reshape(shape), weight.reshape(shape)
