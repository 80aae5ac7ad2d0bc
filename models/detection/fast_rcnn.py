"""Fast R-CNN (Girshick, ICCV 2015, arXiv:1504.08083).

Changed since SPPnet: the pyramid has one level (sec. 2.1), through which gradients reach the
convolutions (sec. 2.3), since the regions of a step come from two pictures that share their maps;
and class and box are learned together, by one loss (eq. 1), so that nothing is fitted afterwards
and nothing is kept on disk.

Deviations:
- Targets are divided by fixed deviations, 0.1 of a centre and 0.2 of a size, as in all later
  releases; sec. 2.3 measures them on the training set.
- Where too few regions overlap an object by 0.1, the rest of the background is drawn below it.
- MobileNetV2 is ours; the paper has CaffeNet, VGG_CNN_M_1024 and VGG-16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.features import FeatureMaps, load_classifier
from models.boxes import SizeHW, at_least_float32, clip
from models.data.batches import TrainingBatch
from models.detection.frame_size import Resize
from models.detection.losses import NEITHER, RoiSample, class_loss, smooth_l1
from models.detection.region_pooling import RoIMaxPool
from models.detection.region_trunks import HiddenLayers, truncated, trunk_of
from models.detection.regions import REGION_SETTINGS, Sampling, best_slots, draw
from models.detection.roi import PROPOSAL_WEIGHTS, BoxPredictor, DetectionSettings
from models.network import DETECTION_OUTPUTS, Task, check_eval_mode, prepared_size
from models.pixels import Normalise

HARD_BACKGROUND = Sampling(background=(0.1, 0.5))
SINGLE_SCALE = Resize(600, 1000)
"""Sides of the picture in pixels (sec. 4)."""
STRIDE = 16
"""Of the map that regions are pooled from, in pixels: the last one of the paper's networks."""
BOX_LOSS_SHARE = 1.0
"""Lambda of eq. 1."""


class FastRCNN(nn.Module):
    """The parts by name; see :class:`models.network.Network` for what it promises."""

    task: Task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer: str | None = "selective_search_fast"

    def __init__(
        self,
        backbone: FeatureMaps,
        pool: RoIMaxPool,
        hidden: HiddenLayers,
        predictor: BoxPredictor,
        *,
        num_classes: int,
        regions: int,
        resize: Resize | None = SINGLE_SCALE,
        settings: DetectionSettings = REGION_SETTINGS,
        sampling: Sampling = HARD_BACKGROUND,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.hidden = hidden
        self.predictor = predictor
        self.num_classes = num_classes
        self.regions = regions
        self.resize = resize
        self.settings = settings
        self.sampling = sampling
        self.frame_hw: SizeHW | None = None
        self.normalise = Normalise()

    def forward(self, frames: Tensor, regions: Tensor) -> tuple[Tensor, ...]:
        """frames (N, H, W, 3) uint8 RGB, regions (N, R, 4) in its pixels -> slots, best first."""
        frame_hw = prepared_size(frames, self.frame_hw)
        regions = clip(regions, frame_hw)
        features = self.features(frames)
        bins, _ = self.pool.atlas([features], self.to_image(regions, frame_hw))
        logits, deltas = self.predict(bins, regions.shape[1])
        scores = F.softmax(logits, -1)[..., 1:]
        deltas = deltas[..., 1:, :]  # the background has a box, too, never used
        return best_slots(scores, deltas, regions, frame_hw, PROPOSAL_WEIGHTS, self.settings)

    def features(self, frames: Tensor) -> Tensor:
        """The map of the whole picture, enlarged or reduced to the scale chosen: (N, C, h, w)."""
        images = self.normalise(frames)
        size = self.image_hw((frames.shape[1], frames.shape[2]))
        if size != tuple(images.shape[2:]):
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        (features,) = self.backbone(images).values()
        return features

    def predict(self, bins: Tensor, regions: int) -> tuple[Tensor, Tensor]:
        """(N * R, channels, n, n) -> float32 logits (N, R, C + 1), deltas (N, R, C + 1, 4).

        regions: R.
        """
        pooled = bins.reshape(-1, regions, bins.shape[1:].numel())
        logits, deltas = self.predictor(self.hidden(pooled))
        deltas = deltas.unflatten(-1, (self.num_classes + 1, 4))
        return at_least_float32(logits), at_least_float32(deltas)

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Both terms of the multi-task loss (eq. 1), from all layers at once."""
        drawn = draw(batch, self.sampling, PROPOSAL_WEIGHTS)
        features = self.features(batch.frames)
        boxes = self.to_image(drawn.boxes, (batch.frames.shape[1], batch.frames.shape[2]))
        logits, deltas = self.predict(self.pool([features], boxes), boxes.shape[1])
        return multi_task_losses(logits, deltas, drawn)

    def image_hw(self, frame_hw: SizeHW) -> SizeHW:
        """Size of the network's picture for a frame."""
        return frame_hw if self.resize is None else self.resize(frame_hw)

    def to_image(self, regions: Tensor, frame_hw: SizeHW) -> Tensor:
        """(N, R, 4) in pixels of the frame -> pixels of the network's picture."""
        height, width = self.image_hw(frame_hw)
        factor = [width / frame_hw[1], height / frame_hw[0]] * 2
        return regions * regions.new_tensor(factor)

    def prepare(self, frame_hw: SizeHW) -> FastRCNN:
        """Fix the size of the frames."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's classifier of the trunk's name (sec. 2.2)."""
        load_classifier(self.backbone, state)
        self.hidden.load_classifier(state)


def multi_task_losses(logits: Tensor, deltas: Tensor, drawn: RoiSample) -> dict[str, Tensor]:
    """Eq. 1 to 3: cross-entropy, and for objects smooth L1 on the box of their own class.

    logits (N, R, C + 1), background first; deltas (N, R, C + 1, 4). Means over all drawn regions.
    """
    labels = drawn.labels.flatten()
    objects = (labels > 0).nonzero()[:, 0]
    own = deltas.flatten(0, 1)[objects, labels[objects]]
    box = smooth_l1(own, drawn.targets.flatten(0, 1)[objects], beta=1.0)
    used = (labels != NEITHER).sum().clamp(min=1)
    return {
        "class": class_loss(logits.flatten(0, 1), labels),
        "box": BOX_LOSS_SHARE * box / used,
    }


def compress(network: FastRCNN, fc6_rank: int = 1024, fc7_rank: int = 256) -> FastRCNN:
    """Make the hidden layers of a trained network thinner by truncated SVD (sec. 3.1, 4.4).

    In place. With VGG-16 the paper keeps 1024 and 256 singular values: 0.3 points of mAP less, 30 %
    faster.
    """
    for name, rank in (("fc6", fc6_rank), ("fc7", fc7_rank)):
        layer = network.hidden.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is compressed already")
        setattr(network.hidden, name, truncated(layer, rank))
    return network


def fast_rcnn(
    backbone: str = "vgg16",
    num_classes: int = 20,
    *,
    regions: int = 2000,
    resize: Resize | None = SINGLE_SCALE,
) -> FastRCNN:
    """A Fast R-CNN with random weights, in training mode.

    Args:
        backbone: "alexnet", "vgg16" or "mobilenet_v2".
        num_classes: without the background.
        regions: slots a frame; a graph computes all of them, empty or not.
        resize: of the frames; None takes them as they are.
    """
    trunk = trunk_of(backbone)
    convolutions = trunk.build((STRIDE,))
    pooled = convolutions.channels[STRIDE] * trunk.grid**2
    predictor = BoxPredictor(trunk.hidden, num_classes)
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    for layer in (predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.bias)
    return FastRCNN(
        convolutions,
        RoIMaxPool(STRIDE, trunk.grid),
        HiddenLayers(pooled, trunk.hidden, trunk.hidden_names),
        predictor,
        num_classes=num_classes,
        regions=regions,
        resize=resize,
    )
