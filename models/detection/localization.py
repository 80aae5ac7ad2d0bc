"""Localisation of a single object: what it is and where, by one network with two heads.

The step between classification and detection (as in AlexNet's localisation at ILSVRC 2012 and in
OverFeat, arXiv:1312.6229, sec. 4): the picture is taken to show one object, and beside its class
four numbers are learned, ``x, y, w, h``, from the same features and at the same time:

    L = L_cls + alpha * L_box

Changed since a classifier: the second head, and that the last map is not averaged over the
picture before the heads see it, which would forget where things are.

Where we go on from there: "nothing" is a class, too, because a stream has empty pictures; of
several objects the largest is meant; and ``x, y`` are the centre, all four in units of the
picture's sides, so that L_box (their squared error) has no pixels in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.build import backbone as trunk
from models.backbones.features import FeatureMaps
from models.boxes import SizeHW, area, at_least_float32, clip
from models.data.batches import TrainingBatch
from models.detection.losses import Truth
from models.network import DETECTION_OUTPUTS, Task, check_eval_mode, prepared_size
from models.pixels import Normalise


class Targets(NamedTuple):
    """What N pictures should give."""

    labels: Tensor
    """(N,) int64: 0 nothing, class id + 1 an object, -1 nobody knows."""
    boxes: Tensor
    """(N, 4) ``x, y, w, h`` in units of the picture's sides; meaningless without an object."""


class Localization(nn.Module):
    """A trunk, a layer that sees all of its map, and two heads. See :class:`Network`."""

    task: Task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer: str | None = None
    regions = 0

    def __init__(
        self,
        backbone: FeatureMaps,
        *,
        num_classes: int,
        image_hw: SizeHW,
        hidden: int = 512,
        alpha: float = 5.0,
    ) -> None:
        """
        Args:
            backbone: with one map.
            image_hw: frames are stretched to this size.
            alpha: weight of the box's loss.
        """
        super().__init__()
        with torch.no_grad():
            (features,) = backbone.eval()(torch.zeros(1, 3, *image_hw)).values()
        backbone.train()
        self.backbone = backbone
        self.shared = nn.Sequential(
            nn.Flatten(), nn.Linear(features.numel(), hidden), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Linear(hidden, num_classes + 1)
        self.regressor = nn.Linear(hidden, 4)
        self.num_classes = num_classes
        self.image_hw = image_hw
        self.alpha = alpha
        self.normalise = Normalise()
        self.frame_hw: SizeHW | None = None
        nn.init.normal_(self.regressor.weight, std=0.01)
        with torch.no_grad():  # before it has learned: half the picture, in its middle
            self.regressor.bias.fill_(0.5)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> one slot per frame.

        The score is the probability of the best class, however likely "nothing" is.
        """
        frame_hw = prepared_size(frames, self.frame_hw)
        logits, boxes = self.look(frames)
        scores, labels = F.softmax(logits, 1)[:, 1:].max(1, keepdim=True)
        return in_frame(boxes, frame_hw)[:, None], scores, labels, scores[:, 0] >= 0

    def look(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of any size -> logits (N, classes + 1), "nothing" first, and boxes (N, 4)."""
        images = self.normalise(frames)
        if images.shape[-2:] != self.image_hw:
            images = F.interpolate(images, size=self.image_hw, mode="bilinear", align_corners=False)
        (features,) = self.backbone(images).values()
        shared = self.shared(features)
        return at_least_float32(self.classifier(shared)), at_least_float32(self.regressor(shared))

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """L_cls, and alpha times L_box over the pictures with an object."""
        height, width = batch.frames.shape[1:3]
        logits, boxes = self.look(batch.frames)
        labels, wanted = (x.to(logits.device) for x in targets(batch.truths, (height, width)))
        known, objects = labels >= 0, labels > 0
        entropy = F.cross_entropy(logits[known], labels[known], reduction="sum")
        error = (boxes[objects] - wanted[objects]).square().sum()
        box = self.alpha * error / objects.sum().clamp(min=1)
        return {"class": entropy / known.sum().clamp(min=1), "box": box}

    def prepare(self, frame_hw: SizeHW) -> Localization:
        """Fix the size of the frames. Raises ValueError in training mode."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self


def targets(truths: Sequence[Truth], frame_hw: SizeHW) -> Targets:
    """The largest object of each picture.

    A picture of which parts are unknown and which shows nothing else teaches nothing: what is
    meant might be there.
    """
    labels = torch.zeros(len(truths), dtype=torch.int64)
    boxes = torch.full((len(truths), 4), 0.5)
    size = torch.tensor([frame_hw[1], frame_hw[0]], dtype=torch.float32)
    for i, truth in enumerate(truths):
        if len(truth.boxes):
            largest = int(area(truth.boxes).argmax())
            corner, other = truth.boxes[largest].cpu().split(2)
            labels[i] = truth.class_ids[largest] + 1
            boxes[i] = torch.cat([(corner + other) / 2 / size, (other - corner) / size])
        elif len(truth.ignored):
            labels[i] = -1
    return Targets(labels, boxes)


def in_frame(boxes: Tensor, frame_hw: SizeHW) -> Tensor:
    """(N, 4) ``x, y, w, h`` in units of the picture's sides -> ``x1, y1, x2, y2`` in pixels.

    Clipped to the frame; a negative side becomes one of no length.
    """
    height, width = frame_hw
    centre, half = boxes[:, :2], boxes[:, 2:].clamp(min=0) / 2
    corners = torch.cat([centre - half, centre + half], 1)
    return clip((corners * corners.new_tensor([width, height] * 2))[:, None], frame_hw)[:, 0]


def localization(backbone: str, num_classes: int, *, image_hw: SizeHW = (224, 224)) -> Localization:
    """A localiser with random weights, in training mode; on the trunk's map of stride 32.

    Raises ValueError if there is no such backbone.
    """
    return Localization(trunk(backbone, (32,)), num_classes=num_classes, image_hw=image_hw)
