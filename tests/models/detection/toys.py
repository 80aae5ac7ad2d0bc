"""A trunk that learns in seconds, pictures of coloured boxes, engines to run an export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.hub import tqdm

from models.backbones.features import FeatureMaps
from models.boxes import SizeHW
from models.data.batches import TrainingBatch
from models.detection.losses import Truth
from models.judging.found import Found
from models.judging.runners import the_core
from models.model_file.onnx_file import to_onnx

COLOURS = np.array([[220, 40, 40], [40, 220, 40], [60, 60, 230]], np.uint8)


def tiny_trunk(widths: Sequence[int] = (16, 32, 48, 64)) -> FeatureMaps:
    """A 3x3 convolution of stride 2 for each width."""
    pairs = zip((3, *widths), widths, strict=False)
    parts = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in pairs]
    stride = 2 ** len(widths)
    taps = {stride: (str(len(widths) - 1), widths[-1])}
    return FeatureMaps(nn.Sequential(*parts), taps, (stride,), "")


def painted(count: int, frame_hw: SizeHW, columns: int, seed: int = 0) -> TrainingBatch:
    """Grey noise with one coloured box in each column; the colour is the class."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(80, 110, (count, *frame_hw, 3), np.uint8)
    height, width = frame_hw
    truths = []
    for frame in frames:
        boxes, class_ids = [], rng.integers(0, len(COLOURS), columns)
        for column, class_id in enumerate(class_ids):
            w, h = (int(rng.uniform(0.35, 0.8) * min(width / columns, height)) for _ in "wh")
            x = int(rng.integers(0, width // columns - w)) + column * (width // columns)
            y = int(rng.integers(0, height - h))
            frame[y : y + h, x : x + w] = COLOURS[class_id]
            boxes.append([x, y, x + w, y + h])
        truths.append(truth(boxes, class_ids.tolist()))
    return TrainingBatch(torch.from_numpy(frames), truths)


def truth(
    boxes: Sequence[Sequence[float]], class_ids: Sequence[int], ignored: Sequence[object] = ()
) -> Truth:
    """The same as tensors."""
    return Truth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(class_ids, dtype=torch.int64),
        torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4),
    )


def learn(network: nn.Module, batch: TrainingBatch, steps: int, rate: float = 3e-3) -> None:
    """Train on one batch and go over to eval mode."""
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), rate)
    for _ in range(steps):
        optimiser.zero_grad()
        sum(network.losses(batch).values()).backward()
        optimiser.step()
    network.eval()


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, one number at a time."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def ap50(found: Sequence[Found], truths: Sequence[Truth]) -> float:
    """Mean over the classes that occur of the area under precision over recall."""
    classes = {class_id for one in truths for class_id in one.class_ids.tolist()}
    return float(np.mean([_of_class(found, truths, class_id) for class_id in classes]))


def _of_class(found: Sequence[Found], truths: Sequence[Truth], class_id: int) -> float:
    objects = {
        (i, j): box
        for i, one in enumerate(truths)
        for j, (box, label) in enumerate(zip(one.boxes.tolist(), one.class_ids, strict=True))
        if label == class_id
    }
    rows = sorted(
        (-score, i, box)
        for i, one in enumerate(found)
        for box, score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.class_ids, strict=True
        )
        if label == class_id
    )
    total, hits, precisions = len(objects), 0, []
    for n, (_, i, box) in enumerate(rows, 1):
        near = [key for key, own in objects.items() if key[0] == i and overlap(box, own) > 0.5]
        if near:
            del objects[max(near, key=lambda key: overlap(box, objects[key]))]
            hits += 1
            precisions.append(hits / n)
    return sum(max(precisions[k:]) for k in range(len(precisions))) / total


def exported(network: nn.Module, frames: Tensor, file: Path) -> None:
    """Write the network as ONNX for frames of this size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)  # it would start a thread
        onnx.save(to_onnx(network, tuple(frames.shape[1:3]), network.outputs), file)


def by_onnxruntime(file: Path, frames: Tensor) -> list[np.ndarray]:
    """Run an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"frames": frames.numpy()}))


def by_openvino(file: Path, frames: Tensor) -> list[np.ndarray]:
    """Run an ONNX file in float32."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = the_core().compile_model(file, "CPU", settings)
    outputs = compiled([frames.numpy()])
    return [outputs[output].copy() for output in compiled.outputs]


ENGINES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}
