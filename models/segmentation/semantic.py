"""What all networks of this folder do alike: bytes in, class map out, cross-entropy to learn from.

It is no paper; the papers' classes fill in ``scores``, which reads like their figure:

    class FCN(SemanticNetwork):
        def scores(self, images): ...      # (N, 3, H, W) -> (N, C, h, w)
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.boxes import SizeHW
from models.data.batches import MaskBatch
from models.network import SEMANTIC_OUTPUTS, Task, check_eval_mode, prepared_size
from models.pixels import Normalise
from models.segmentation.losses import PixelLoss

MOST_CLASSES = 255
"""What a uint8 can name beside ``models.network.IGNORED``."""


class SemanticNetwork(nn.Module):
    """A :class:`models.network.Network` for the task "semantic".

    Attributes:
        num_classes: every class a pixel may have; a background counts as one.
        pixel_loss: replace it to give classes weights.
        subsample_labels: train at the size of the scores, with every n-th label, and not at the
            size of the frames, with enlarged scores.
    """

    task: Task = "semantic"
    outputs: tuple[str, ...] = SEMANTIC_OUTPUTS
    proposer: str | None = None
    regions: int = 0

    def __init__(self, num_classes: int, *, subsample_labels: bool = False) -> None:
        super().__init__()
        if not 1 <= num_classes <= MOST_CLASSES:
            raise ValueError(f"a network has 1 to {MOST_CLASSES} classes, not {num_classes}")
        self.num_classes = num_classes
        self.subsample_labels = subsample_labels
        self.normalise = Normalise()
        self.pixel_loss = PixelLoss()
        self.frame_hw: SizeHW | None = None

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, h, w) before the softmax, in the same field of view."""
        raise NotImplementedError

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB -> classes (N, H, W) uint8 (the most likely; of equals the first).

        Raises ValueError when ``prepare`` was called for another size, or not at all.
        """
        frame_hw = prepared_size(frames, self.frame_hw)
        scores = self.scores(self.normalise(frames))
        classes = enlarge(scores, frame_hw).argmax(1)
        return (classes.float().to(torch.uint8),)  # TensorRT makes bytes of floats alone

    def probabilities(self, frames: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB of any size -> (N, C, H, W) float32, 1 in sum over the classes."""
        scores = self.scores(self.normalise(frames)).float()
        return enlarge(scores, (frames.shape[1], frames.shape[2])).softmax(1)

    def losses(self, batch: MaskBatch) -> dict[str, Tensor]:
        """{"pixel": scalar}."""
        scores = self.scores(self.normalise(batch.frames))
        return {"pixel": self.compare(scores, batch.labels)}

    def compare(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of scores (N, C, h, w) against labels (N, H, W) uint8: a scalar."""
        if self.subsample_labels:
            coarse = F.interpolate(labels[:, None], size=scores.shape[-2:], mode="nearest-exact")
            return self.pixel_loss(scores, coarse[:, 0])
        return self.pixel_loss(enlarge(scores.float(), (labels.shape[1], labels.shape[2])), labels)

    def prepare(self, frame_hw: SizeHW) -> Self:
        """See :class:`models.network.Network`."""
        check_eval_mode(self)
        self.frame_hw = frame_hw
        return self


def enlarge(maps: Tensor, size_hw: SizeHW) -> Tensor:
    """(N, C, h, w) -> (N, C, *size_hw) bilinear; both span the same field of view."""
    if tuple(maps.shape[-2:]) == tuple(size_hw):
        return maps
    return F.interpolate(maps, size=size_hw, mode="bilinear", align_corners=False)
