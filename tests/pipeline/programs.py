"""A small program of torch for tests: two convolutions, 24 slots, as `model_files` has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.pipeline.model_files import CLASSES, ENTRY, HEIGHT, WIDTH


class Cells(nn.Module):
    """Frames -> convolutions of stride 4 and 2 -> boxes, best class and its score, per cell."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(3, 8, 4, stride=4)
        self.second = nn.Conv2d(8, 4 + len(CLASSES), 2, stride=2)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        x = (frames.float() / 64).permute(0, 3, 1, 2)
        cells = self.second(torch.relu(self.first(x))).flatten(2).transpose(1, 2).float()
        corner = cells[..., :2] * 8 + 8
        boxes = torch.cat([corner, corner + cells[..., 2:4].exp() * 8], -1)
        scores, labels = torch.sigmoid(cells[..., 4:] * 4).max(-1)
        return boxes, scores, labels, scores.amax(1) < 2


class SlotsMissing(Cells):
    """The same, with boxes of three numbers."""

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        boxes, *others = super().forward(frames)
        return boxes[..., :3], *others


def write_program_file(
    path: Path, entry: dict[str, Any] | None = None, network: nn.Module | None = None
) -> Path:
    """Write it with an entry; `entry` overrides values of `ENTRY`."""
    frames = torch.zeros(2, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    batch = torch.export.Dim("N", min=1, max=64)
    network = (network or Cells()).eval()
    program = torch.export.export(network, (frames,), dynamic_shapes=({0: batch},))
    text = json.dumps(ENTRY | (entry or {}))
    torch.export.save(program, path, extra_files={"boxstream": text})
    return path
