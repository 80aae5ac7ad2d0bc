"""YOLO, You Only Look Once, two papers of Redmon et al.

v1 (CVPR 2016, arXiv:1506.02640). Changed since Faster R-CNN: no proposals and no anchors. The
    picture is a coarse grid; the cell in which an object's centre lies says its class and offers
    two boxes, and the one that fits better is responsible for it (sec. 2). All errors are squared
    (eq. 3).
v2 (CVPR 2017, arXiv:1612.08242, sec. 2). Changed: boxes start from priors, clustered from the
    training set's own; offsets within the cell are sigmoids, so a box cannot leave its cell; every
    prior has classes of its own; a finer map is brought in by a passthrough.

Deviations:
- The trunk is any of ours instead of Darknet. v1's fully connected layers are 1x1 convolutions, so
  that any frame size goes in (the grid is then H/32 x W/32, not 7 x 7). Neither needs frames of a
  multiple of 32.
- v2's head has no batch norm, which is the paper's first change; only what the trunk has is there
  (none in VGG-16). The head is narrower, too.
- v2's classes learn by cross-entropy, as in the published code; for the other weights see
  ``OBJECT``. That code also draws all boxes to their priors over the first 12,800 pictures.
- v2's priors are ``STREET_PRIORS`` whatever the training set, unless others are given. They are
  kept with the weights, so a training can begin with a set's own, of the ``entries`` that
  :func:`models.data.labelled.read_coco` reads:

    boxes = np.concatenate([e.boxes / np.tile(e.read().image.shape[1::-1], 2) for e in entries])
    priors = cluster_priors(torch.from_numpy(boxes[:, 2:] - boxes[:, :2]).float(), 5)
    torch.save({"head.priors": priors}, "priors.pt")

  and ``models.train yolo_v2 --weights priors.pt --trunk ...``. What is trained brings them along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.build import BACKBONES
from models.backbones.features import FeatureMaps
from models.boxes import SizeHW, at_least_float32, both_sides_at_least, clip
from models.data.batches import TrainingBatch
from models.detection.losses import Truth
from models.detection.roi import Candidates, keep_best
from models.detection.slots import best_pairs
from models.detection.yolo_cells import Cells, idle_boxes, paired_iou, shape_iou
from models.network import DETECTION_OUTPUTS, check_eval_mode, prepared_size
from models.pixels import Normalise

COORDINATES, NO_OBJECT = 5.0, 0.5
"""Weights of v1's loss (sec. 2.2): boxes count more, the many empty cells less."""
OBJECT = 5.0
"""v2's weight of what a responsible box says it sees; the paper gives none. The published code goes
down ``scale * (target - said)``, the gradient of squares with a half, by scales of 5 for this and 1
for boxes, for seeing nothing and for classes. Our squares are whole, so against classes this counts
10, boxes 2 and seeing nothing 1."""
IGNORE_IOU = 0.6
"""v2: a box that fits an object this well is not told that it sees nothing, even if another one is
responsible."""


class Offers(NamedTuple):
    """What a head says, P boxes in every cell, cells row by row."""

    boxes: Tensor
    """(N, cells, P, 4) ``x1, y1, x2, y2`` as shares of width and height."""
    confidence: Tensor
    """(N, cells, P): how well the box fits an object, 0 for no object; v1: any number."""
    classes: Tensor
    """(N, cells, P or 1, C): probability of each class if there is an object; v1: any number."""


class GridHead(Protocol):
    """What v1 and v2 differ in."""

    def __call__(self, maps: dict[int, Tensor]) -> Offers: ...

    def losses(self, maps: dict[int, Tensor], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """Truths have boxes as shares of width and height."""
        ...


class YOLO(nn.Module):
    """Trunk, one head, and nothing else."""

    task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer = None
    regions = 0

    def __init__(
        self,
        backbone: FeatureMaps,
        head: nn.Module,
        num_classes: int,
        *,
        min_score: float = 0.005,
        slots: int = 300,
    ) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.backbone = backbone
        self.head = head
        self.num_classes = num_classes
        self.min_score, self.slots = min_score, slots
        self.frame_hw: SizeHW | None = None

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> ``outputs``."""
        frame_hw = prepared_size(frames, self.frame_hw)
        offers = self.head(self.backbone(self.normalise(frames)))
        # Pr(class | object) * Pr(object) * IoU (v1, eq. 1)
        scores = (offers.confidence[..., None] * offers.classes).clamp(0, 1).flatten(1, 2)
        best = best_pairs(scores, self.min_score, self.slots)
        height, width = frame_hw
        pixels = offers.boxes.flatten(1, 2) * offers.boxes.new_tensor([width, height] * 2)
        boxes = pixels.gather(1, best.places[..., None].expand(-1, -1, 4))
        boxes = clip(boxes, frame_hw)
        good = (best.scores > self.min_score) & both_sides_at_least(boxes, 1e-2)
        found = keep_best(Candidates(boxes, best.scores, best.labels), good, good.shape[1])
        return found.boxes, found.scores, found.labels, best.exact

    def prepare(self, frame_hw: SizeHW) -> YOLO:
        """Fixes the frame size; returns the model itself. Raises ValueError in training mode."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """``box``, ``object``, ``no_object`` and ``class``, per picture."""
        height, width = batch.frames.shape[1:3]
        share = 1 / torch.tensor([width, height] * 2, device=batch.frames.device)
        truths = [Truth(t.boxes * share, t.class_ids, t.ignored * share) for t in batch.truths]
        head = cast(GridHead, self.head)
        return head.losses(self.backbone(self.normalise(batch.frames)), truths)


class SquaredHead(nn.Module):
    """v1: P boxes and one set of classes a cell, all of them plain numbers."""

    def __init__(self, channels: int, num_classes: int, boxes: int = 2, width: int = 512) -> None:
        super().__init__()
        self.boxes, self.num_classes = boxes, num_classes
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, boxes * 5 + num_classes, 1),
        )

    def forward(self, maps: dict[int, Tensor]) -> Offers:
        """Offers; the network says the square roots of width and height (sec. 2.2)."""
        rows, cells = self._rows(maps)
        per_box = rows[..., : self.boxes * 5].unflatten(-1, (self.boxes, 5))
        centre = cells.place(per_box[..., :2])
        half = per_box[..., 2:4].square() / 2
        boxes = torch.cat([centre - half, centre + half], -1)
        return Offers(boxes, per_box[..., 4], rows[..., None, self.boxes * 5 :])

    def losses(self, maps: dict[int, Tensor], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """Eq. 3, divided by the number of pictures."""
        rows, cells = self._rows(maps)
        offers = self(maps)
        per_box = rows[..., : self.boxes * 5].unflatten(-1, (self.boxes, 5))
        terms = []
        for i, truth in enumerate(truths):
            cell, within = cells.of(truth.boxes)
            overlap = paired_iou(offers.boxes[i][cell].detach(), truth.boxes[:, None])
            fit, responsible = overlap.max(1)
            said = per_box[i][cell, responsible]
            size = (truth.boxes[:, 2:] - truth.boxes[:, :2]).sqrt()
            box = (said[:, :4] - torch.cat([within, size], 1)).square().sum()
            sees = (said[:, 4] - fit).square().sum()
            idle = idle_boxes(offers.boxes[i].detach(), truth, (cell, responsible))
            nothing = per_box[i][..., 4][idle].square().sum()
            wanted = F.one_hot(truth.class_ids, self.num_classes).to(said)
            kind = (rows[i][cell][:, self.boxes * 5 :] - wanted).square().sum()
            terms.append(torch.stack([COORDINATES * box, sees, NO_OBJECT * nothing, kind]))
        return dict(zip(LOSSES, torch.stack(terms).mean(0), strict=True))

    def _rows(self, maps: dict[int, Tensor]) -> tuple[Tensor, Cells]:
        x = at_least_float32(self.layers(maps[max(maps)]))
        return x.permute(0, 2, 3, 1).flatten(1, 2), Cells((x.shape[2], x.shape[3]))


class PriorHead(nn.Module):
    """v2: each of P priors has its own sigmoid offsets, objectness and classes."""

    priors: Tensor

    def __init__(
        self,
        channels: dict[int, int],
        num_classes: int,
        priors: Sequence[tuple[float, float]],
        width: int = 256,
    ) -> None:
        """priors: width and height as shares of the frame's."""
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("priors", torch.tensor(priors))
        coarse, fine = channels[32], channels[16]
        self.coarse = nn.Sequential(nn.Conv2d(coarse, width, 3, padding=1), nn.LeakyReLU(0.1))
        self.passthrough = nn.Sequential(nn.Conv2d(fine, 64, 1), nn.LeakyReLU(0.1))
        self.layers = nn.Sequential(
            nn.Conv2d(width + 4 * 64, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, len(priors) * (5 + num_classes), 1),
        )

    def forward(self, maps: dict[int, Tensor]) -> Offers:
        """Offers (sec. 2, "Direct location prediction")."""
        return self._offers(*self._rows(maps))

    def losses(self, maps: dict[int, Tensor], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """The prior of the most similar shape is responsible; see the module's deviations."""
        rows, cells = self._rows(maps)
        offers = self._offers(rows, cells)
        terms = []
        for i, truth in enumerate(truths):
            cell, within = cells.of(truth.boxes)
            size = truth.boxes[:, 2:] - truth.boxes[:, :2]
            responsible = shape_iou(size, self.priors).argmax(1)
            said = rows[i][cell, responsible]
            scale = torch.log(size / self.priors[responsible])
            at = torch.cat([said[:, :2].sigmoid() - within, said[:, 2:4] - scale], 1)
            # Small boxes count more: an error of a pixel is more to them.
            weight = 2 - size.prod(1, keepdim=True)
            fit = paired_iou(offers.boxes[i][cell, responsible].detach(), truth.boxes)
            sees = (said[:, 4].sigmoid() - fit).square().sum()
            idle = idle_boxes(offers.boxes[i].detach(), truth, (cell, responsible), IGNORE_IOU)
            nothing = offers.confidence[i][idle].square().sum()
            kind = F.cross_entropy(said[:, 5:], truth.class_ids, reduction="sum")
            box = (weight * at.square()).sum()
            terms.append(torch.stack([box, OBJECT * sees, NO_OBJECT * nothing, kind]))
        return dict(zip(LOSSES, torch.stack(terms).mean(0), strict=True))

    def _rows(self, maps: dict[int, Tensor]) -> tuple[Tensor, Cells]:
        """(N, cells, P, 5 + C) as the last layer says them."""
        coarse = self.coarse(maps[32])
        fine = F.pixel_unshuffle(_even(self.passthrough(maps[16]), coarse), 2)
        x = at_least_float32(self.layers(torch.cat([coarse, fine], 1)))
        rows = x.permute(0, 2, 3, 1).flatten(1, 2).unflatten(-1, (len(self.priors), -1))
        return rows, Cells((x.shape[2], x.shape[3]))

    def _offers(self, rows: Tensor, cells: Cells) -> Offers:
        centre = cells.place(rows[..., :2].sigmoid())
        half = rows[..., 2:4].clamp(max=8).exp() * self.priors / 2
        boxes = torch.cat([centre - half, centre + half], -1)
        return Offers(boxes, rows[..., 4].sigmoid(), rows[..., 5:].softmax(-1))


LOSSES = ("box", "object", "no_object", "class")


def _even(x: Tensor, like: Tensor) -> Tensor:
    """Twice the size of ``like``: an odd map of stride 16 lacks a row or column."""
    height, width = like.shape[2] * 2 - x.shape[2], like.shape[3] * 2 - x.shape[3]
    return F.pad(x, (0, width, 0, height)) if height or width else x


STREET_PRIORS = ((0.02, 0.04), (0.05, 0.08), (0.08, 0.2), (0.15, 0.15), (0.35, 0.4))


def yolo_v1(backbone: str = "mobilenet_v2", num_classes: int = 6, *, width: int = 512) -> YOLO:
    """v1 on one of our trunks, random weights, in training mode."""
    trunk = BACKBONES[backbone]((32,))
    return YOLO(trunk, SquaredHead(trunk.channels[32], num_classes, width=width), num_classes)


def yolo_v2(
    backbone: str = "mobilenet_v2",
    num_classes: int = 6,
    *,
    priors: Sequence[tuple[float, float]] = STREET_PRIORS,
    width: int = 256,
) -> YOLO:
    """v2 on one of our trunks, random weights, in training mode.

    priors: width and height as shares of the frame's, such as
        :func:`models.detection.yolo_cells.cluster_priors` finds.
    """
    trunk = BACKBONES[backbone]((16, 32))
    return YOLO(trunk, PriorHead(trunk.channels, num_classes, priors, width), num_classes)
