"""Four labelled pictures that a network can learn by heart, and how well it did."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.data.batches import MaskBatch
from models.network import IGNORED

CLASSES = 4
SCENE_HW = (61, 83)
COLOURS = ((90, 120, 90), (220, 60, 40), (40, 90, 230), (230, 220, 60))


def scenes(size_hw: tuple[int, int] = SCENE_HW) -> MaskBatch:
    """Background, a rectangle, a disc and a band; noise; a border line of unknown pixels."""
    rng = np.random.default_rng(7)
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    pictures, labels = [], []
    for i in range(4):
        label = np.zeros(size_hw, np.uint8)
        top, left = (0.05 + 0.1 * i) * height, (0.5 - 0.12 * i) * width
        label[(y > top) & (y < top + 0.4 * height) & (x > left) & (x < left + 0.3 * width)] = 1
        centre_y, centre_x = 0.6 * height, (0.2 + 0.2 * i) * width
        label[(y - centre_y) ** 2 + (x - centre_x) ** 2 < (0.2 * height) ** 2] = 2
        label[y > (0.85 - 0.03 * i) * height] = 3
        pictures.append(np.array(COLOURS)[label] + rng.normal(0, 12, (*size_hw, 3)))
        label[:, 0] = IGNORED
        labels.append(label)
    frames = np.clip(np.stack(pictures), 0, 255).astype(np.uint8)
    return MaskBatch(torch.from_numpy(frames), torch.from_numpy(np.stack(labels)))


def mean_iou(classes: Tensor, labels: Tensor) -> float:
    """Over the classes that are in either; unknown pixels do not count."""
    known = labels != IGNORED
    ratios = []
    for number in range(CLASSES):
        found, true = (classes == number) & known, labels == number
        if (union := (found | true).sum()) > 0:
            ratios.append(((found & true).sum() / union).item())
    return sum(ratios) / len(ratios)


def learned_by_heart(network: nn.Module, steps: int, rate: float = 3e-3) -> float:
    """Trains on the four scenes; the mean IoU afterwards, in eval mode."""
    batch = scenes()
    settle_norms(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        sum(network.losses(batch).values()).backward()
        optimiser.step()
        schedule.step()
    network.eval().prepare(SCENE_HW)
    with torch.inference_mode():
        (classes,) = network(batch.frames)
    return mean_iou(classes, batch.labels)


def settle_norms(network: nn.Module) -> None:
    """Batch norms follow quickly, and nothing is dropped, in so short a training."""
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
        if isinstance(module, nn.Dropout):
            module.p = 0.0
