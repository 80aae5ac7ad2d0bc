"""OverFeat (Sermanet et al., ICLR 2014, arXiv:1312.6229): integrated recognition, localization
and detection using convolutional networks.

Changed since single-object localisation: the same classifier and regressor look through every
window of the picture, at six scales. Written as convolutions (a fully connected layer is one as
large as its input, the next are 1x1) they share the work of overlapping windows (sec. 3.5), and
one network classifies, localises and detects.

Where we deviate, and why:

- Pooling with offsets (sec. 3.3, fig. 3) is written as pooling with stride 1, and the layer behind
  it is dilated: the same numbers, already in their places, for pictures of any size.
- The edges of a box are in units of the window (0 and 1 are the window's own edges).
- Detection: an object belongs to the windows that it fills well (windows.WindowRule), since our
  pictures hold many objects of many sizes; each scale learns its own. A training step draws a few
  of the scales, and half of its background windows are the worst mistakes (sec. 5).
- Features, classifier and regressor learn together; the paper adds the regressor afterwards.
- The merge (sec. 4.3) stands outside the graph and no description of a model file names it: the
  line, and ``models.evaluate --model``, suppress what an exported OverFeat finds, at its own
  ``merge_iou``. ``models.evaluate --network`` and the validation of a training merge.
- A trunk that pads everywhere (``overfeat("mobilenet_v2", ...)``) sees beyond the window's border,
  so there "window" says what an output is responsible for, not all that it knows. Table 3's own
  zero padding does the same on a small scale.

The paper trains for classification on crops of 221 pixels, in batches of 128, by SGD with momentum
0.6, weight decay 1e-5 and a rate of 0.05 that is halved after 30, 50, 60, 70 and 80 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.build import BACKBONES
from models.backbones.features import FeatureMaps
from models.backbones.overfeat import ACCURATE, FAST, overfeat_trunk
from models.boxes import SizeHW, at_least_float32, both_sides_at_least, clip
from models.data.batches import TrainingBatch
from models.detection.greedy_merge import greedy_merge
from models.detection.roi import Candidates, keep_best
from models.detection.sliding import Windows, dense_head, offset_max_pool, pyramid
from models.detection.slots import best_pairs
from models.detection.windows import WindowRule, lesson, window_losses
from models.judging.found import Found
from models.network import DETECTION_OUTPUTS, Task, check_eval_mode, prepared_size
from models.pixels import Normalise

PAPER_SCALES = (245, 281, 317, 389, 425, 461)
"""Shorter sides of table 5 in pixels; every side there is 245 and a multiple of 36."""
STREET_SCALES = (112, 160, 224, 320, 448, 640)
"""Farther apart, for objects from about a twentieth of the picture to all of it."""


@dataclass(frozen=True)
class OverFeatSettings:
    """How often a picture is looked at, and what is learned from it."""

    short_sides: tuple[int, ...] = STREET_SCALES
    """Of the picture at each scale, in pixels, about; rising."""
    rule: WindowRule = field(default_factory=WindowRule)
    scales_per_step: int = 3
    """Drawn for each training step."""
    windows_per_picture: int = 64
    """That teach the classifier, over those scales; at most half of them objects."""
    box_weight: float = 5.0
    """Of the squared error of four edges in sides of the window."""
    min_score: float = 0.05
    candidates: int = 1000
    """Slots for (window, class) pairs."""
    merge_iou: float = 0.3
    """See :func:`models.detection.greedy_merge.greedy_merge`."""


class OverFeat(nn.Module):
    """A trunk, and a classifier and a regressor that share its map. See :class:`Network`."""

    task: Task = "detection"
    outputs = DETECTION_OUTPUTS
    proposer: str | None = None
    regions = 0

    corners: Tensor
    sides: Tensor

    def __init__(
        self,
        backbone: FeatureMaps,
        classifier: nn.Module,
        regressor: nn.Sequential,
        *,
        windows: Windows,
        pool: int,
        num_classes: int,
        settings: OverFeatSettings,
    ) -> None:
        """
        Args:
            backbone: with one map.
            classifier: pooled map -> background and classes, a map of one cell for each window.
            regressor: likewise, four edges for each class (without the background).
            pool: of the last pooling, the one with offsets.
        """
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.regressor = regressor
        self.windows = windows
        self.pool = pool
        self.num_classes = num_classes
        self.settings = settings
        self.normalise = Normalise()
        self.frame_hw: SizeHW | None = None
        with torch.no_grad():  # before it has learned, the box of a window is the window
            start = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(num_classes)
            self.regressor[-1].bias.copy_(start)  # type: ignore[operator]  # a layer

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB of the size given to :meth:`prepare` -> fixed slots per frame."""
        logits, edges = (torch.cat(maps, 1) for maps in zip(*self.views(frames), strict=True))
        least, slots = self.settings.min_score, self.settings.candidates
        best = best_pairs(F.softmax(logits, -1)[..., 1:], least, slots)
        boxes = self._boxes(edges, best.pairs, best.places)
        good = (best.scores > least) & both_sides_at_least(boxes, 1e-2)
        found = Candidates(boxes, best.scores, best.labels)
        return *keep_best(found, good, good.shape[1]), best.exact

    def views(self, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What :meth:`look` says at each scale, finest last."""
        frame_hw = prepared_size(frames, self.frame_hw)
        sizes = self.sizes(frame_hw)
        return [self.look(images) for images in pyramid(self.normalise(frames), sizes)]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Through all windows of images (N, 3, h, w), row by row.

        Returns:
            logits (N, W, classes + 1), background first, and edges (N, W, classes * 4) float32.
        """
        (features,) = self.backbone(images).values()
        pooled = offset_max_pool(features, self.pool)
        return _rows(self.classifier(pooled)), _rows(self.regressor(pooled))

    def classify(self, frames: Tensor) -> Tensor:
        """First task: (N, classes) probability that a picture shows each class.

        The best window of each scale, and the mean of the scales (sec. 3.3).
        """
        best = [F.softmax(logits, -1)[..., 1:].amax(1) for logits, _ in self.views(frames)]
        return torch.stack(best).mean(0)

    @torch.no_grad()
    def localise(self, frames: Tensor, most: int = 5) -> list[Found]:
        """Second task: one box for each of the most likely classes of each picture (sec. 4)."""
        likely = self.classify(frames).topk(min(most, self.num_classes), 1).indices.cpu().numpy()
        return [
            Found(found.boxes[first], found.scores[first], found.class_ids[first])
            for found, classes in zip(self.detect(frames), likely, strict=True)
            for first in [_first_of_each(found.class_ids.tolist(), set(classes.tolist()))]
        ]

    @torch.no_grad()
    def detect(self, frames: Tensor, most: int = 100) -> list[Found]:
        """Third task: every object of each picture, merged from what all windows say (sec. 5)."""
        slots = (slot.cpu().numpy() for slot in self(frames)[:3])
        merged = []
        for boxes, scores, labels in zip(*slots, strict=True):
            filled = scores > 0
            found = Found(boxes[filled], scores[filled], labels[filled])
            merged.append(greedy_merge(found, self.settings.merge_iou, most))
        return merged

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross-entropy of windows, and the squared error of the edges of their objects."""
        height, width = batch.frames.shape[1:3]
        sizes = self.sizes((height, width))
        drawn = torch.randperm(len(sizes))[: self.settings.scales_per_step].sort().values.tolist()
        images = pyramid(self.normalise(batch.frames), sizes)
        maps = [self.look(images[scale]) for scale in drawn]
        logits, edges = (torch.cat(parts, 1) for parts in zip(*maps, strict=True))
        scales = [(sizes[n], self.windows(sizes[n]).to(logits.device)) for n in drawn]
        rule, most = self.settings.rule, self.settings.windows_per_picture
        lessons = [
            lesson(said.detach(), truth, (height, width), scales, rule, most)
            for said, truth in zip(logits, batch.truths, strict=True)
        ]
        entropy, error = window_losses(logits, edges, lessons)
        return {"class": entropy, "box": self.settings.box_weight * error}

    def sizes(self, frame_hw: SizeHW) -> list[SizeHW]:
        """(height, width) of the picture at each scale; windows cover each to the last pixel."""
        return [self.windows.fit(frame_hw, short) for short in self.settings.short_sides]

    def prepare(self, frame_hw: SizeHW) -> OverFeat:
        """Fix the size of the frames. Raises ValueError in training mode."""
        check_eval_mode(self)
        windows = []
        for height, width in self.sizes(frame_hw):
            to_frame = torch.tensor([frame_hw[1] / width, frame_hw[0] / height]).repeat(2)
            windows.append(self.windows((height, width)) * to_frame)
        boxes = torch.cat(windows).to(self.normalise.mean.device)
        corners, sides = boxes[:, :2].repeat(1, 2), (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("sides", sides, persistent=False)
        self.frame_hw = frame_hw
        return self

    def _boxes(self, edges: Tensor, pair: Tensor, window: Tensor) -> Tensor:
        """(N, K, 4) in pixels of the frame, of the (window, class) pairs (N, K)."""
        assert self.frame_hw is not None
        chosen = edges.unflatten(2, (-1, 4)).flatten(1, 2)
        chosen = chosen.gather(1, pair[..., None].expand(-1, -1, 4))
        corner, side = F.embedding(window, self.corners), F.embedding(window, self.sides)
        return clip(corner + chosen * side, self.frame_hw)


def _rows(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h * w, C) float32."""
    return at_least_float32(maps).flatten(2).transpose(1, 2)


def _first_of_each(labels: list[int], wanted: set[int]) -> list[int]:
    """Places of the first of each wanted label."""
    return [i for i, label in enumerate(labels) if label in wanted and label not in labels[:i]]


class Layers(NamedTuple):
    """Sizes of a model: what stands behind the trunk."""

    pool: int
    """Side of the pooling with offsets."""
    cells: int
    """Side of what the first fully connected layer sees, in pooled cells."""
    classifier: tuple[int, ...]
    """Widths of its layers, but for the last."""
    regressor: tuple[int, ...]
    dropout: float


FAST_LAYERS = Layers(pool=2, cells=6, classifier=(3072, 4096), regressor=(4096, 1024), dropout=0.5)
"""Table 1; the regressor is that of sec. 4.1."""
ACCURATE_LAYERS = FAST_LAYERS._replace(pool=3, cells=5, classifier=(4096, 4096))
"""Table 3."""
OUR_LAYERS = Layers(pool=2, cells=3, classifier=(256, 256), regressor=(256, 256), dropout=0.0)
"""For a trunk of stride 16: windows of 96 pixels, one every 16."""


def overfeat(
    backbone: str, num_classes: int, *, settings: OverFeatSettings | None = None
) -> OverFeat:
    """An OverFeat with random weights, in training mode.

    backbone: "overfeat_fast" or "overfeat_accurate" of the paper, about 145 million weights each
        besides the regressor; or a trunk of :data:`models.backbones.build.BACKBONES`.
    settings: None: the paper's scales for the paper's trunks, else :data:`STREET_SCALES`.

    Raises:
        ValueError: there is no such backbone.
    """
    paper = settings or OverFeatSettings(short_sides=PAPER_SCALES)
    if backbone == "overfeat_fast":
        return assemble(overfeat_trunk(FAST), FAST_LAYERS, 231, num_classes, paper)
    if backbone == "overfeat_accurate":
        return assemble(overfeat_trunk(ACCURATE), ACCURATE_LAYERS, 221, num_classes, paper)
    if backbone not in BACKBONES:
        known = ", ".join(["overfeat_fast", "overfeat_accurate", *BACKBONES])
        raise ValueError(f"unknown backbone {backbone!r}; known: {known}")
    trunk, ours = BACKBONES[backbone]((16,)), settings or OverFeatSettings()
    return assemble(trunk, OUR_LAYERS, 96, num_classes, ours)


def assemble(
    backbone: FeatureMaps,
    layers: Layers,
    window_pixels: int,
    num_classes: int,
    settings: OverFeatSettings,
) -> OverFeat:
    """The parts, put together.

    backbone: with one map, of which a window of ``window_pixels`` has ``pool * cells`` cells.
    """
    ((stride, channels),) = backbone.channels.items()
    head = partial(dense_head, channels, cells=layers.cells, pool=layers.pool)
    return OverFeat(
        backbone,
        head(layers.classifier, num_classes + 1, dropout=layers.dropout),
        head(layers.regressor, num_classes * 4, dropout=layers.dropout),
        windows=Windows(window_pixels, stride),
        pool=layers.pool,
        num_classes=num_classes,
        settings=settings,
    )
