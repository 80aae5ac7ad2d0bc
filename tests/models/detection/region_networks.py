"""Small R-CNNs, SPPnets and Fast R-CNNs, and pictures with coloured blocks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.hub import tqdm
from torchvision.ops import batched_nms, box_iou

from models.backbones.features import FeatureMaps
from models.boxes import SizeHW, clip
from models.data.batches import TrainingBatch
from models.detection.fast_rcnn import FastRCNN
from models.detection.losses import Truth
from models.detection.rcnn import RCNN
from models.detection.region_pooling import RoIMaxPool
from models.detection.region_trunks import HiddenLayers
from models.detection.roi import BoxPredictor
from models.detection.sppnet import PyramidPool, SPPNet
from models.detection.staged_heads import StagedHeads
from models.detection.warp import Warp
from models.judging.runners import the_core
from models.model_file.onnx_file import to_onnx

COLOURS = torch.tensor([[250, 20, 20], [20, 250, 20], [20, 20, 250]], dtype=torch.uint8)
CLASSES = 3
REGIONS = 40
CHANNELS = 24
STRIDE = 8


def trunk() -> FeatureMaps:
    """Three convolutions of stride 2, the same weights every time."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 12), (12, 16), (16, CHANNELS)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
    return FeatureMaps(nn.Sequential(*layers), {STRIDE: ("5", CHANNELS)}, (STRIDE,), "")


def small_rcnn() -> RCNN:
    backbone, pooled = trunk(), CHANNELS * 16
    hidden = HiddenLayers(pooled, 48, dropout=0.0)
    heads = StagedHeads(pooled, 48, CLASSES, "softmax")
    return RCNN(Warp(32, 4), backbone, hidden, heads, regions=REGIONS, crops_at_once=16)


def small_sppnet(scales: tuple[int, ...] = (96, 144)) -> SPPNet:
    backbone = trunk()
    pool = PyramidPool(backbone, (4, 2, 1))
    hidden = HiddenLayers(pool.length, 48, dropout=0.0)
    heads = StagedHeads(pool.length, 48, CLASSES, "softmax")
    return SPPNet(backbone, pool, hidden, heads, regions=REGIONS, scales=scales)


def small_fast_rcnn() -> FastRCNN:
    backbone = trunk()
    pool = RoIMaxPool(STRIDE, 4)
    hidden = HiddenLayers(CHANNELS * 16, 48, dropout=0.0)
    predictor = BoxPredictor(48, CLASSES)
    return FastRCNN(
        backbone, pool, hidden, predictor, num_classes=CLASSES, regions=REGIONS, resize=None
    )


SMALL = {"rcnn": small_rcnn, "sppnet": small_sppnet, "fast_rcnn": small_fast_rcnn}


def picture(seed: int, size_hw: SizeHW = (96, 128)) -> tuple[Tensor, Truth]:
    """Grey noise with a block of each colour in a third of its own."""
    source = torch.Generator().manual_seed(seed)
    height, width = size_hw
    frame = torch.randint(70, 110, (height, width, 3), generator=source, dtype=torch.uint8)
    boxes = []
    for class_id in torch.randperm(CLASSES, generator=source).tolist():
        third = width // 3
        low = torch.tensor([third * len(boxes) + 2, 4])
        room = torch.tensor([third - 26, height - 50])
        corner = low + (torch.rand(2, generator=source) * room).long()
        side = (
            torch.randint(18, 24, (1,), generator=source),
            torch.randint(24, 44, (1,), generator=source),
        )
        x1, y1 = corner.tolist()
        x2, y2 = x1 + int(side[0]), y1 + int(side[1])
        frame[y1:y2, x1:x2] = COLOURS[class_id]
        boxes.append([x1, y1, x2, y2, class_id])
    rows = torch.tensor(boxes, dtype=torch.float32)
    return frame, Truth(rows[:, :4], rows[:, 4].long(), torch.zeros(0, 4))


def proposals(truth: Truth, size_hw: SizeHW, seed: int, count: int = REGIONS) -> Tensor:
    """(count, 4): six of each true box, moved by up to a fifth of its size, the rest anywhere."""
    source = torch.Generator().manual_seed(seed)
    near = truth.boxes.repeat(6, 1)
    size = (near[:, 2:] - near[:, :2]).repeat(1, 2)
    near = near + (torch.rand(near.shape, generator=source) - 0.5) * 0.4 * size
    limit = torch.tensor(size_hw[::-1], dtype=torch.float32)
    corner = torch.rand(count - len(near), 2, generator=source) * (limit - 20)
    side = 16 + torch.rand(count - len(near), 2, generator=source) * 40
    boxes = torch.cat([near, torch.cat([corner, corner + side], 1)])
    return clip(boxes[None], size_hw)[0]


def batch_of(seeds: range, size_hw: SizeHW = (96, 128)) -> TrainingBatch:
    """Pictures with proposals."""
    pictures = [picture(seed, size_hw) for seed in seeds]
    regions = [proposals(t, size_hw, s) for s, (_, t) in zip(seeds, pictures, strict=True)]
    return TrainingBatch(torch.stack([f for f, _ in pictures]), [t for _, t in pictures], regions)


def into_slots(regions: Sequence[Tensor], slots: int) -> Tensor:
    """Per picture (R_i, 4), best first -> (N, slots, 4); the rest is cut off or filled with 0."""
    return torch.stack([F.pad(r[:slots], (0, 0, 0, max(0, slots - len(r)))) for r in regions])


def learn(network: nn.Module, batch: TrainingBatch, steps: int, rate: float = 3e-3) -> float:
    """Adam on one batch; returns the last loss."""
    torch.manual_seed(1)
    network.train()
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], rate)
    for _ in range(steps):
        loss = sum(network.losses(batch).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def average_precision_at_50(network: nn.Module, batch: TrainingBatch) -> float:
    """Mean over the classes of the area under precision and recall, after NMS at 0.3."""
    assert batch.regions is not None
    network.eval().prepare((batch.frames.shape[1], batch.frames.shape[2]))
    with torch.inference_mode():
        outputs = network(batch.frames, into_slots(batch.regions, network.regions))
    verdicts: list[list[tuple[float, bool]]] = [[] for _ in range(CLASSES)]
    total = [0] * CLASSES
    for truth, boxes, scores, labels, _ in zip(batch.truths, *outputs, strict=True):
        keep = batched_nms(boxes, scores, labels, 0.3)
        keep = keep[scores[keep] > 0]
        free = torch.ones(len(truth.boxes), dtype=torch.bool)
        for class_id in truth.class_ids.tolist():
            total[class_id] += 1
        for slot in keep.tolist():
            label = int(labels[slot])
            overlap = box_iou(boxes[slot][None], truth.boxes)[0] * (truth.class_ids == label) * free
            hit = len(overlap) > 0 and bool(overlap.max() >= 0.5)
            if hit:
                free[overlap.argmax()] = False
            verdicts[label].append((float(scores[slot]), hit))
    return sum(_area(v, n) for v, n in zip(verdicts, total, strict=True)) / CLASSES


def _area(verdicts: list[tuple[float, bool]], total: int) -> float:
    hits = np.array([hit for _, hit in sorted(verdicts, key=lambda v: -v[0])], float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * hits).sum() / total)


def exported(network: nn.Module, frame_hw: SizeHW, file: Path) -> Path:
    """The network as an ONNX file with a free batch."""
    network.eval().prepare(frame_hw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)  # it would start a thread
        onnx.save(to_onnx(network, frame_hw, network.outputs, network.regions), file)
    return file


def by_onnxruntime(file: Path, frames: Tensor, regions: Tensor) -> list[Tensor]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {"frames": frames.numpy(), "regions": regions.numpy()}
    return [torch.from_numpy(x) for x in session.run(None, feed)]


def by_openvino(file: Path, frames: Tensor, regions: Tensor) -> list[Tensor]:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = the_core().compile_model(file, "CPU", settings)
    outputs = compiled([frames.numpy(), regions.numpy()])
    return [torch.from_numpy(outputs[output].copy()) for output in compiled.outputs]


ENGINES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}
