"""The smallest network that keeps the promise of `models.network.Network`, to try tools on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.data.batches import MaskBatch
from models.network import SEMANTIC_OUTPUTS, Task
from models.pixels import Normalise
from models.segmentation.losses import PixelLoss


class TinySegmenter(nn.Module):
    """A trunk of two convolutions and a head of one, all at the size of the picture."""

    task: Task = "semantic"
    outputs = SEMANTIC_OUTPUTS
    proposer: str | None = None
    regions = 0

    def __init__(self, num_classes: int, channels: int = 8) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.normalise = Normalise()
        self.backbone = nn.Module()
        self.backbone.body = nn.ModuleDict(
            {"0": self.block(3, channels), "1": self.block(channels, channels)}
        )
        self.head = nn.Sequential(
            self.block(channels, channels), nn.Conv2d(channels, num_classes, 1)
        )
        self.pixel_loss = PixelLoss()

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Sequential:
        layers = (nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        return nn.Sequential(*layers, nn.ReLU())

    def scores(self, frames: Tensor) -> Tensor:
        x = self.normalise(frames)
        for part in self.backbone.get_submodule("body").children():
            x = part(x)
        return self.head(x)

    def losses(self, batch: MaskBatch) -> dict[str, Tensor]:
        return {"pixel": self.pixel_loss(self.scores(batch.frames), batch.labels)}

    def prepare(self, frame_hw: tuple[int, int]) -> TinySegmenter:
        if self.training:
            raise ValueError("call eval() first")
        self.frame_hw = frame_hw
        return self

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        assert tuple(frames.shape[1:3]) == self.frame_hw
        return (self.scores(frames).argmax(1).float().to(torch.uint8),)
