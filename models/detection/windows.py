"""What a network learns that slides over a picture: which object belongs to which window.

OverFeat (Sermanet et al., ICLR 2014, arXiv:1312.6229, sec. 4.2 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.boxes import SizeHW, area
from models.detection.losses import NEITHER, Truth, share_inside


@dataclass(frozen=True)
class WindowRule:
    """When an object belongs to a window."""

    inside: float = 0.5
    """Least share of its box in the window: of what is mostly outside, another window knows more
    (sec. 4.2)."""
    smallest: float = 0.35
    """Least length of its longer side, in sides of the window ..."""
    largest: float = 1.0
    """... and the most. The paper trains on pictures with one object of the right size; among
    many objects of all sizes each scale has to know which are its own."""
    margin: float = 1.4
    """So far beyond these limits, or half as far inside, a window is neither."""


class Contents(NamedTuple):
    """What W windows hold."""

    verdict: Tensor
    """(W,) int64: 1 an object, 0 background, -1 neither."""
    class_ids: Tensor
    """(W,) int64 of the object; meaningless without one, as are its edges."""
    edges: Tensor
    """(W, 4) its box, seen from the window: 0 and 1 are the window's own edges."""

    @classmethod
    def joined(cls, parts: Sequence[Contents]) -> Contents:
        """Those of several scales, one after the other."""
        return cls(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def contents(windows: Tensor, truth: Truth, rule: WindowRule) -> Contents:
    """Look at windows (W, 4); truth is in pixels of the same image.

    The object of a window is, of those that belong to it, the nearest to its centre.
    """
    verdict = torch.zeros(len(windows), dtype=torch.int64, device=windows.device)
    class_ids, boxes = torch.zeros_like(verdict), windows
    if len(truth.boxes):
        own, near = _belonging(windows, truth.boxes, rule)
        verdict[near.any(1)] = NEITHER
        verdict[own.any(1)] = 1
        distance = torch.cdist(_centres(windows), _centres(truth.boxes))
        index = torch.where(own, distance, torch.inf).argmin(1)
        class_ids, boxes = truth.class_ids[index], truth.boxes[index]
    unknown = share_inside(windows, truth.ignored) > 0.5
    verdict[unknown & (verdict == 0)] = NEITHER
    return Contents(verdict, class_ids, edges_in(windows, boxes))


def _belonging(windows: Tensor, objects: Tensor, rule: WindowRule) -> tuple[Tensor, Tensor]:
    """Two (W, G) bool: the object belongs to the window; it does, or almost."""
    inside = _share_of_object(windows, objects)
    side = windows[:, None, 2] - windows[:, None, 0]
    length = (objects[:, 2:] - objects[:, :2]).amax(1) / side
    own = (inside >= rule.inside) & (length >= rule.smallest) & (length <= rule.largest)
    near = inside >= rule.inside / 2
    near &= (length * rule.margin >= rule.smallest) & (length <= rule.largest * rule.margin)
    return own, near


class Lesson(NamedTuple):
    """Windows drawn from one picture."""

    windows: Tensor
    """(K,) int64, which."""
    labels: Tensor
    """(K,) int64: 0 background, class id + 1 an object."""
    edges: Tensor
    """(K, 4) of the object; meaningless for background."""


@torch.no_grad()
def draw(found: Contents, logits: Tensor, most: int) -> Lesson:
    """At most ``most`` windows: up to half of them objects, and about as many of the background.

    Half of the background are the worst mistakes of ``logits`` (W, classes + 1), the rest is
    chance (sec. 5). A picture without objects teaches a quarter of ``most``.
    """
    objects, background = ((found.verdict == kind).nonzero()[:, 0] for kind in (1, 0))
    objects = objects[torch.randperm(len(objects), device=objects.device)[: most // 2]]
    wanted = max(len(objects), most // 4)
    mistaken = F.log_softmax(logits[background].float(), -1)[:, 0].argsort()
    worst, rest = mistaken[: wanted // 2], mistaken[wanted // 2 :]
    rest = rest[torch.randperm(len(rest), device=rest.device)[: wanted - len(worst)]]
    windows = torch.cat([objects, background[torch.cat([worst, rest])]])
    labels = torch.where(found.verdict == 1, found.class_ids + 1, 0)
    return Lesson(windows, labels[windows], found.edges[windows])


def lesson(
    logits: Tensor,
    truth: Truth,
    frame_hw: SizeHW,
    scales: Sequence[tuple[SizeHW, Tensor]],
    rule: WindowRule,
    most: int,
) -> Lesson:
    """What one picture teaches: some of its windows, over several scales, and what is in them.

    Args:
        logits: (W, classes + 1) of all windows, which find the worst mistakes.
        truth: in pixels of the frame.
        scales: size of the picture, and its windows (W_i, 4).
        most: windows drawn.
    """
    parts = [
        contents(windows, scaled_truth(truth, frame_hw, size_hw, logits.device), rule)
        for size_hw, windows in scales
    ]
    return draw(Contents.joined(parts), logits, most)


def window_losses(
    logits: Tensor, edges: Tensor, lessons: Sequence[Lesson]
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the windows drawn, and the mean over those with an object of the
    squared error of its four edges (sec. 4.2).

    Args:
        logits: (N, W, classes + 1).
        edges: (N, W, classes * 4), four for each class.
    """
    said = torch.cat([row[lesson.windows] for row, lesson in zip(logits, lessons, strict=True)])
    boxes = torch.cat([row[lesson.windows] for row, lesson in zip(edges, lessons, strict=True)])
    labels = torch.cat([lesson.labels for lesson in lessons])
    entropy = F.cross_entropy(said, labels, reduction="sum") / max(len(labels), 1)
    objects = labels.nonzero()[:, 0]
    own = boxes.unflatten(1, (-1, 4))[objects, labels[objects] - 1]
    wanted = torch.cat([lesson.edges for lesson in lessons])[objects]
    return entropy, (own - wanted).square().sum() / max(len(objects), 1)


def edges_in(windows: Tensor, boxes: Tensor) -> Tensor:
    """Boxes (K, 4) seen from windows (K, 4): 0 and 1 are the window's own edges."""
    corner, side = windows[:, :2].repeat(1, 2), windows[:, 2:3] - windows[:, :1]
    return (boxes - corner) / side


def scaled_truth(truth: Truth, frame_hw: SizeHW, image_hw: SizeHW, device: torch.device) -> Truth:
    """The truth of a frame in pixels of the same picture at another size."""
    scale = torch.tensor([image_hw[1] / frame_hw[1], image_hw[0] / frame_hw[0]]).repeat(2)
    boxes, ignored = (x.to(device) * scale.to(device) for x in (truth.boxes, truth.ignored))
    return Truth(boxes, truth.class_ids.to(device), ignored)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _share_of_object(windows: Tensor, objects: Tensor) -> Tensor:
    """(W, G) share of each object's area that lies in each window."""
    low = torch.maximum(windows[:, None, :2], objects[None, :, :2])
    high = torch.minimum(windows[:, None, 2:], objects[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    return shared / area(objects).clamp(min=torch.finfo(shared.dtype).tiny)
