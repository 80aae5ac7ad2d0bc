"""Region proposal network (Ren et al., NeurIPS 2015, arXiv:1506.01497, sec. 3.1) on a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.pyramid import conv
from models.boxes import SizeHW, at_least_float32, both_sides_at_least, clip, decode
from models.detection.suppression import Suppress, greedy_nms

ANCHOR_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""Of the box coder between anchors and proposals."""


@dataclass(frozen=True)
class ProposalSettings:
    """How many boxes leave the network at test time, and which."""

    pre_nms: int = 1000
    """Per level, the best of them go into NMS ..."""
    post_nms: int = 1000
    """... and over all levels, this many come out."""
    iou: float = 0.7
    min_score: float = 0.0
    min_side_pixels: float = 1e-3


class Proposals(NamedTuple):
    """R slots per image, best first."""

    boxes: Tensor
    """(N, R, 4) float32 in pixels of the padded image, clipped to the image; any box in a slot that
    is not valid."""
    valid: Tensor
    """(N, R) bool."""
    exact: Tensor
    """(N,) bool: whether NMS came to its end (see suppression.py)."""


class RPNHead(nn.Module):
    """3x3 convolutions, then objectness and box of every anchor by 1x1s; shared by all levels."""

    def __init__(self, channels: int, anchors_per_cell: int, depth: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(conv(channels, channels, 3, None, relu=True) for _ in range(depth))
        )
        self.cls_logits = nn.Conv2d(channels, anchors_per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, anchors_per_cell * 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level: logits (N, A, h, w) and deltas (N, A * 4, h, w)."""
        hidden = [self.conv(level) for level in features]
        return [self.cls_logits(x) for x in hidden], [self.bbox_pred(x) for x in hidden]


class RegionProposalNetwork(nn.Module):
    """Head, and the way from its maps to a fixed number of proposals."""

    def __init__(self, head: RPNHead, settings: ProposalSettings) -> None:
        super().__init__()
        self.head = head
        self.settings = settings

    def forward(
        self, features: Sequence[Tensor], anchors: Sequence[Tensor], image_hw: SizeHW, nms: Suppress
    ) -> Proposals:
        """At test time. anchors: per level (n_l, 4); image_hw: without the padding."""
        logits, deltas = self.flatten(*self.head(features))
        return select_proposals(logits, deltas, anchors, image_hw, self.settings, nms)

    @staticmethod
    def flatten(logits: list[Tensor], deltas: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The head's maps in the anchors' order, per level: (N, n_l) and (N, n_l, 4)."""
        flat_logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        flat_deltas = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for x in deltas]
        return flat_logits, flat_deltas

    @torch.no_grad()
    def propose(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: SizeHW | Tensor,
        pre_nms: int,
        post_nms: int,
        iou: float,
    ) -> tuple[Tensor, Tensor]:
        """For training: boxes (N, R, 4) and valid (N, R), without a gradient.

        logits, deltas: as from :meth:`flatten`; image_sizes: (height, width), or (N, 2) of them.
        """
        settings = ProposalSettings(pre_nms, post_nms, iou)
        return select_proposals(logits, deltas, anchors, image_sizes, settings, greedy_nms)[:2]


def select_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_hw: SizeHW | Tensor,
    settings: ProposalSettings,
    nms: Suppress,
) -> Proposals:
    """The best anchors of each level, decoded, clipped and thinned out level by level."""
    pre_nms = min(settings.pre_nms, max(level.shape[1] for level in logits))
    best = [_best_of_level(*level, pre_nms) for level in zip(logits, deltas, anchors, strict=True)]
    level_logits, level_deltas, level_anchors, real = (
        torch.cat(x, 1) for x in zip(*best, strict=True)
    )
    boxes = clip(decode(level_deltas, level_anchors, ANCHOR_WEIGHTS), image_hw)
    scores = torch.sigmoid(at_least_float32(level_logits))
    valid = real & both_sides_at_least(boxes, settings.min_side_pixels)
    if settings.min_score > 0:
        valid = valid & (scores >= settings.min_score)

    grouped = (-1, pre_nms)  # every level of every image is a group of its own
    keep, exact = nms(boxes.reshape(*grouped, 4), valid.reshape(grouped), None, 1, settings.iou)
    keep = keep.reshape(valid.shape)
    top = min(settings.post_nms, keep.shape[1])
    scores, slots = torch.where(keep, scores, -1.0).topk(top, 1)
    boxes = boxes.gather(1, slots[..., None].expand(-1, -1, 4))
    return Proposals(boxes, scores >= 0, exact.reshape(-1, len(logits)).all(1))


def _best_of_level(
    logits: Tensor, deltas: Tensor, anchors: Tensor, slots: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, deltas, anchors and real, (N, K) or (N, K, 4), of the K = ``slots`` best anchors.

    A level with fewer anchors fills up with slots that are not real.
    """
    count = min(slots, logits.shape[1])
    best, index = logits.topk(count, 1)
    deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4))
    chosen = F.embedding(index, anchors)
    real = torch.ones_like(best, dtype=torch.bool)
    if missing := slots - count:
        best, real = F.pad(best, (0, missing)), F.pad(real, (0, missing))
        deltas, chosen = F.pad(deltas, (0, 0, 0, missing)), F.pad(chosen, (0, 0, 0, missing))
    return best, deltas, chosen, real
