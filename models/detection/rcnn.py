"""R-CNN: Regions with CNN features (Girshick et al., CVPR 2014, arXiv:1311.2524).

Changed since OverFeat: the classifier does not slide over the picture; it is shown some 2,000
regions that a segmentation found likely (sec. 2.1), each warped to the size it was trained on, and
so it may be deep and slow. What an object is, is learned in stages (sec. 2.3): fine-tuning with a
softmax, linear SVMs on the hidden features, ridge regressors for the boxes.

Deviations:
- Crops are cut in the graph, at fractions of a pixel; the release rounds to whole ones (warp.py).
- Where the paper draws 128 windows from all pictures, we draw 64 from each of the batch.
- Boxes are regressed before suppression, which in this pipeline comes last; the paper does it
  after. Scores of the SVMs go through a sigmoid (staged_heads.py).
- VGG-16 gets crops of its own 224 pixels; MobileNetV2, which is ours, of 112.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.backbones.features import FeatureMaps, load_classifier
from models.boxes import SizeHW, at_least_float32, clip
from models.data.batches import TrainingBatch
from models.detection.losses import class_loss
from models.detection.region_trunks import HiddenLayers, trunk_of
from models.detection.regions import REGION_SETTINGS, Sampling, best_slots, draw
from models.detection.roi import DetectionSettings
from models.detection.staged_heads import REGRESSION_WEIGHTS, Scores, StagedHeads
from models.detection.warp import Warp
from models.network import DETECTION_OUTPUTS, Task, check_eval_mode, prepared_size
from models.pixels import Normalise


class RCNN(nn.Module):
    """The parts by name; see :class:`models.network.Network` for what it promises."""

    task: Task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer: str | None = "selective_search_fast"

    def __init__(
        self,
        warp: Warp,
        backbone: FeatureMaps,
        hidden: HiddenLayers,
        heads: StagedHeads,
        *,
        regions: int,
        crops_at_once: int,
        settings: DetectionSettings = REGION_SETTINGS,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__()
        self.warp = warp
        self.backbone = backbone
        self.hidden = hidden
        self.heads = heads
        self.num_classes = heads.num_classes
        self.regions = regions
        self.crops_at_once = crops_at_once
        self.settings = settings
        self.sampling = sampling
        self.frame_hw: SizeHW | None = None
        self.normalise = Normalise()

    def forward(self, frames: Tensor, regions: Tensor) -> tuple[Tensor, ...]:
        """frames (N, H, W, 3) uint8 RGB, regions (N, R, 4) in its pixels -> slots, best first."""
        frame_hw = prepared_size(frames, self.frame_hw)
        regions = clip(regions, frame_hw)
        pooled = self.pool5(frames, regions)
        scores, deltas = self.heads(pooled, self.hidden(pooled))
        return best_slots(scores, deltas, regions, frame_hw, REGRESSION_WEIGHTS, self.settings)

    def pool5(self, frames: Tensor, regions: Tensor) -> Tensor:
        """What the convolutions say of every region, one by one (figure 1): (N, R, D)."""
        images, count = self.normalise(frames), regions.shape[1]
        passes = []
        for some in regions.split(min(self.crops_at_once, count), 1):  # bounds the memory
            crops = self.warp(images, some)
            (features,) = self.backbone(crops).values()
            passes.append(features.flatten(1).reshape(-1, some.shape[1], self.heads.pooled))
        return torch.cat(passes, 1)

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Of fine-tuning (sec. 2.3): every region is an object of a class, or background.

        What follows it: :func:`models.detection.stages.fit_svms`, ``fit_box_regressors``.
        """
        drawn = draw(batch, self.sampling, REGRESSION_WEIGHTS)
        logits = self.heads.cls_score(self.hidden(self.pool5(batch.frames, drawn.boxes)))
        logits, labels = at_least_float32(logits).flatten(0, 1), drawn.labels.flatten()
        return {"class": class_loss(logits, labels)}

    def prepare(self, frame_hw: SizeHW) -> RCNN:
        """Fix the size of the frames."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's classifier of the trunk's name (supervised pre-training)."""
        load_classifier(self.backbone, state)
        self.hidden.load_classifier(state)


def rcnn(
    backbone: str = "alexnet",
    num_classes: int = 20,
    *,
    regions: int = 2000,
    scores: Scores = "softmax",
    context_pixels: int = 16,
) -> RCNN:
    """An R-CNN with random weights, in training mode.

    Args:
        backbone: "alexnet", "vgg16" or "mobilenet_v2".
        num_classes: without the background.
        regions: slots a frame; a graph computes all of them, empty or not.
        scores: "softmax", or "svm" once those are fitted.
        context_pixels: of a crop, around the region.
    """
    trunk = trunk_of(backbone)
    convolutions = trunk.build((trunk.crop_stride,))
    pooled = convolutions.channels[trunk.crop_stride] * trunk.grid**2
    # A crop a quarter as large skips more pixels of a large region.
    samples = 1 if trunk.crop > 200 else 2
    return RCNN(
        Warp(trunk.crop, context_pixels, samples),
        convolutions,
        HiddenLayers(pooled, trunk.hidden, trunk.hidden_names),
        StagedHeads(pooled, trunk.hidden, num_classes, scores),
        regions=regions,
        crops_at_once=trunk.crops_at_once,
    )
