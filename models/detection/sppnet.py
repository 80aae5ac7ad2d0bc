"""SPPnet: spatial pyramid pooling in deep convolutional networks (He et al., ECCV 2014,
arXiv:1406.4729).

Changed since R-CNN: the picture goes through the convolutions once, not each of 2,000 crops; what a
region holds is pooled from its part of the map, into the same number of bins whatever its size
(sec. 2.2, 4.1). The stages are R-CNN's: fine-tuning, now of the fully connected layers only, SVMs,
ridge regressors.

Deviations:
- Multi-size training alternates between the sizes that windows are pooled near (180 and 224
  pixels). The paper alternates between the sizes of whole pictures (sec. 2.3), which it has because
  it trains the convolutions, on ImageNet.
- The pyramid is built from its finest level (region_pooling.py); its bins are the paper's.
- Fine-tuning draws 64 regions from each picture of the batch, as our R-CNN does.
- SVMs and regressors are fitted just as R-CNN's (stages.py). The paper drops an SVM's negative that
  overlaps another one by more than 70 % (sec. 4.1); here all stay. Its regressors learn from
  regions that overlap a true box by 0.5 (sec. 4.1), with a lambda of 4000 in the authors' code;
  here from 0.6 on, with 1000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.features import FeatureMaps, load_classifier
from models.boxes import SizeHW, area, at_least_float32, clip
from models.data.batches import TrainingBatch
from models.detection.losses import class_loss
from models.detection.region_pooling import (
    centred_windows,
    first_centre_of,
    max_over_windows,
    pyramid,
)
from models.detection.region_trunks import HiddenLayers, trunk_of
from models.detection.regions import REGION_SETTINGS, Sampling, best_slots, draw
from models.detection.roi import DetectionSettings
from models.detection.staged_heads import REGRESSION_WEIGHTS, Scores, StagedHeads
from models.network import DETECTION_OUTPUTS, Task, check_eval_mode, prepared_size
from models.pixels import Normalise

DETECTION_PYRAMID = (6, 3, 2, 1)
"""50 bins (sec. 4.1); the finest comes first, see :meth:`SPPNet.load_classifier`."""
SMALL_PYRAMID = (4, 2, 1)
"""21 bins (figure 3)."""
FIVE_SCALES = (480, 576, 688, 864, 1200)
"""Shorter sides of the picture in pixels (sec. 4.1)."""
WINDOW_PIXELS = 224
"""Side of the square that a region comes closest to, in area, at the scale chosen for it."""
HARD_BACKGROUND = Sampling(background=(0.1, 0.5))


class SPPNet(nn.Module):
    """The parts by name; see :class:`models.network.Network` for what it promises."""

    task: Task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer: str | None = "selective_search_fast"

    def __init__(
        self,
        backbone: FeatureMaps,
        pool: PyramidPool,
        hidden: HiddenLayers,
        heads: StagedHeads,
        *,
        regions: int,
        scales: Sequence[int] = FIVE_SCALES,
        training_windows: Sequence[int] = (WINDOW_PIXELS,),
        settings: DetectionSettings = REGION_SETTINGS,
        sampling: Sampling = HARD_BACKGROUND,
    ) -> None:
        """training_windows: one for single-size training, (180, 224) for multi-size."""
        super().__init__()
        # Frozen, as in the paper, where no gradient can reach them through the pooling in time.
        self.backbone = backbone.requires_grad_(False)
        self.pool = pool
        self.hidden = hidden
        self.heads = heads
        self.num_classes = heads.num_classes
        self.regions = regions
        self.scales, self.training_windows = tuple(scales), tuple(training_windows)
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

    def pool5(self, frames: Tensor, regions: Tensor, window_pixels: int = WINDOW_PIXELS) -> Tensor:
        """Windows of the maps of the whole picture, as pyramids (figure 5): (N, R, D)."""
        images = scaled(self.normalise(frames), self.scales)
        maps = [features for image in images for features in self.backbone(image).values()]
        sizes = [(image.shape[2], image.shape[3]) for image in images]
        return self.pool(maps, regions, (frames.shape[1], frames.shape[2]), sizes, window_pixels)

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Of fine-tuning the fully connected layers (sec. 4.1); each step draws a training size.

        What follows it: :func:`models.detection.stages.fit_svms`, ``fit_box_regressors``.
        """
        drawn = draw(batch, self.sampling, REGRESSION_WEIGHTS)
        size = self.training_windows[int(torch.randint(len(self.training_windows), ()))]
        with torch.no_grad():
            pooled = self.pool5(batch.frames, drawn.boxes, size)
        logits = self.heads.cls_score(self.hidden(pooled))
        logits, labels = at_least_float32(logits).flatten(0, 1), drawn.labels.flatten()
        return {"class": class_loss(logits, labels)}

    def train(self, mode: bool = True) -> SPPNet:
        """Training mode is for the layers that learn; the trunk does not, whoever unfroze it."""
        super().train(mode)
        self.backbone.eval().requires_grad_(False)
        return self

    def prepare(self, frame_hw: SizeHW) -> SPPNet:
        """Fix the size of the frames."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's classifier of the trunk's name.

        AlexNet's pool5 on its own 13x13 map has the very bins of the pyramid's 6x6 level, so its
        fc6 fits that level, and the coarser ones begin without weight.
        """
        load_classifier(self.backbone, state)
        self.hidden.load_classifier(state, same_pool5=self.pool.continues_classifier)


class PyramidPool:
    """For each region the scale that suits it, its window there, and the window's pyramid."""

    def __init__(
        self, backbone: FeatureMaps, grids: Sequence[int], continues_classifier: bool = False
    ) -> None:
        """
        Args:
            backbone: a chain of layers with one map.
            grids: bins along a side, level by level.
            continues_classifier: the first level is what the trunk's classifier has as pool5.
        """
        ((self.stride, channels),) = backbone.channels.items()
        self.first_centre = first_centre_of(backbone.body, self.stride)
        self.grids = tuple(grids)
        self.length = channels * sum(n * n for n in grids)
        self.continues_classifier = continues_classifier

    def __call__(
        self,
        maps: Sequence[Tensor],
        regions: Tensor,
        frame_hw: SizeHW,
        sizes: Sequence[SizeHW],
        window_pixels: int,
    ) -> Tensor:
        """maps: (N, C, h, w), one for each of ``sizes``; regions (N, R, 4) -> (N, R, length)."""
        factors = regions.new_tensor([[w / frame_hw[1], h / frame_hw[0]] for h, w in sizes])
        scale = closest_scale(regions, factors, window_pixels)
        own = F.embedding(scale, factors)
        boxes = regions * torch.cat([own, own], -1)
        sides = torch.tensor([(m.shape[3], m.shape[2]) for m in maps], device=regions.device)
        windows = centred_windows(boxes, self.stride, self.first_centre, F.embedding(scale, sides))
        bins = max_over_windows(maps, scale, windows, max(self.grids))
        return pyramid(bins, self.grids).reshape(-1, regions.shape[1], self.length)


def closest_scale(regions: Tensor, factors: Tensor, window_pixels: int) -> Tensor:
    """At which scale a region's area is closest to a square of ``window_pixels``.

    regions (N, R, 4) in pixels of the frame; factors (S, 2) from there to each scale, x and y.
    Returns (N, R) int64.
    """
    areas = area(regions)[..., None] * factors.prod(-1)
    return (areas - float(window_pixels**2)).abs().argmin(-1)


def scaled(images: Tensor, shorter_sides: Sequence[int]) -> list[Tensor]:
    """(N, 3, H, W) in each scale, its aspect kept."""
    height, width = images.shape[2:]
    ratios = [side / min(height, width) for side in shorter_sides]
    sizes = [(round(height * ratio), round(width * ratio)) for ratio in ratios]
    return [
        images
        if size == (height, width)
        else F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        for size in sizes
    ]


def sppnet(
    backbone: str = "alexnet",
    num_classes: int = 20,
    *,
    regions: int = 2000,
    scores: Scores = "softmax",
    grids: Sequence[int] = DETECTION_PYRAMID,
    scales: Sequence[int] = FIVE_SCALES,
    training_windows: Sequence[int] = (WINDOW_PIXELS,),
    stride: int = 16,
) -> SPPNet:
    """An SPPnet with random weights, in training mode.

    Args:
        backbone: "alexnet", "vgg16" or "mobilenet_v2".
        num_classes: without the background.
        regions: slots a frame; a graph computes all of them, empty or not.
        scores: "softmax", or "svm" once those are fitted.
        grids: of the pyramid.
        scales: shorter sides in pixels; (688,) is the paper's single scale.
        training_windows: in pixels; (180, 224) is multi-size training.
        stride: of the map that is pooled. 16 is the last one of AlexNet and VGG-16; MobileNetV2's,
            which knows most of ImageNet's classes, has 32.
    """
    trunk = trunk_of(backbone)
    convolutions = trunk.build((stride,))
    continues = trunk.hidden_names is not None and grids[0] == trunk.grid
    pool = PyramidPool(convolutions, grids, continues)
    return SPPNet(
        convolutions,
        pool,
        HiddenLayers(pool.length, trunk.hidden, trunk.hidden_names),
        StagedHeads(pool.length, trunk.hidden, num_classes, scores),
        regions=regions,
        scales=scales,
        training_windows=training_windows,
    )
