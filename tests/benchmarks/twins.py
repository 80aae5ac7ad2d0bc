"""torchvision's detectors, ours with the same weights, and the files that both become.

There is no download here, so weights are random; batch norms and heads are scaled on a real frame
until the outputs are spread as in a trained network and a hundred boxes of many classes survive.
That makes post-processing work at least as hard as it would for COCO weights.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from models.detection.architectures import COCO_CLASSES, faster_rcnn
from models.detection.faster_rcnn import FasterRCNN, NMSBody, OutputForm
from models.model_file.writing import export
from models.program import SUFFIX, of_model_file, write_program
from tests.benchmarks.material import (
    REPOSITORY,
    ROAD,
    WORKSHOP,
    Images,
    clip,
    fingerprint,
    spread_frames,
)

SIZE_HW = (360, 640)


@lru_cache(maxsize=1)
def road_frames() -> Images:
    """(8, 360, 640, 3) uint8 RGB of the road clip."""
    return spread_frames(clip(ROAD), 8, SIZE_HW)


@lru_cache(maxsize=2)
@torch.no_grad()
def torchvision_detector(architecture: str) -> nn.Module:
    """``fasterrcnn_<architecture>`` in eval mode, with random weights that find much."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, f"fasterrcnn_{architecture}")
    model: nn.Module = build(weights=None, weights_backbone=None).eval()
    images, _ = model.transform(as_floats(road_frames()[:1]))
    _settle_batch_norms(model.backbone, images.tensors)
    features = model.backbone(images.tensors)
    logits, deltas = model.rpn.head(list(features.values()))
    _spread(model.rpn.head.cls_logits, torch.cat([x.flatten() for x in logits]), 2.0)
    _spread(model.rpn.head.bbox_pred, torch.cat([x.flatten() for x in deltas]), 0.3)
    proposals, _ = model.rpn(images, features)
    heads = model.roi_heads
    pooled = heads.box_roi_pool(features, proposals, images.image_sizes)
    scores, deltas = heads.box_predictor(heads.box_head(pooled))
    _spread(heads.box_predictor.cls_score, scores, 2.5)
    _spread(heads.box_predictor.bbox_pred, deltas, 0.5)
    return model


def our_twin(architecture: str) -> FasterRCNN:
    """Our Faster R-CNN with the very weights of `torchvision_detector`."""
    model = faster_rcnn(architecture).eval()
    model.load_state_dict(torchvision_detector(architecture).state_dict(), strict=True)
    return model


def as_floats(images: Images) -> list[Tensor]:
    """(N, H, W, 3) uint8 -> N (3, H, W) float in [0, 1], as torchvision's detectors want them."""
    return [torch.from_numpy(image).permute(2, 0, 1).float().div(255) for image in images]


def torchvision_onnx(architecture: str, batch: int) -> Path:
    """torchvision's own export: TorchScript-based, the number of images fixed.

    The newer exporter (``dynamo=True``, the default by now) refuses these models, whose shapes
    depend on the picture.
    """
    path = _file(f"torchvision-{architecture}-b{batch}", [])
    if path.exists():
        return path
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    each = [f"{name}{i}" for i in range(batch) for name in ("boxes", "labels", "scores")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its own insides
        torch.onnx.export(
            torchvision_detector(architecture),
            (as_floats(road_frames()[:batch]),),
            str(unfinished),
            opset_version=17,
            dynamo=False,
            input_names=[f"image{i}" for i in range(batch)],
            output_names=each,
        )
    return unfinished.rename(path)


def our_onnx(architecture: str) -> Path:
    """Our model file, with the last suppression inside as torchvision has it."""
    path = _file(f"boxstream-{architecture}", (REPOSITORY / "models").rglob("*.py"))
    if not path.exists():
        write_our_onnx(architecture, path, output_form="detections", threshold=0.05)
    return path


def our_program(source: str) -> Path:
    """A program of torch: of our twin of an architecture, or of the model file with that name."""
    path = _file(f"boxstream-{Path(source).stem}", (REPOSITORY / "models").rglob("*.py"))
    path = path.with_suffix(SUFFIX)
    if path.exists():
        return path
    if source.endswith(".onnx"):
        write_program(*of_model_file(Path(source)), path)
    else:
        write_our_onnx(source, path, output_form="detections", threshold=0.05, nms_body="fixpoint")
    return path


def write_our_onnx(
    architecture: str,
    path: Path,
    *,
    output_form: OutputForm,
    threshold: float,
    nms_body: NMSBody = "nonmaxsuppression",  # on a CPU 10 % quicker than the fixpoint, and equal
) -> None:
    """Export our twin for frames of `SIZE_HW`; as a program where `path` ends in .pt2."""
    export(
        our_twin(architecture),
        path,
        frame_hw=SIZE_HW,
        class_names=[f"class {number}" for number in range(COCO_CLASSES)],
        output_form=output_form,
        nms_body=nms_body,
        score_threshold=threshold,
    )


def score_shown_by(architecture: str, images: Images, per_frame: float) -> float:
    """The score above which so many objects a frame are left in the images, on average."""
    detector = torchvision_detector(architecture)  # not in there, or it could never be exported
    with torch.inference_mode():
        answers = detector(as_floats(images))
    scores = torch.cat([answer["scores"] for answer in answers]).sort(descending=True).values
    return round(scores[min(len(scores) - 1, round(per_frame * len(images)))].item(), 4)


def _settle_batch_norms(module: nn.Module, images: Tensor) -> None:
    """Take their statistics from one image, or activations of a random network blow up or die."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # average, and of one batch
        norm.reset_running_stats()
        norm.train()
    module(images)
    for norm in norms:
        norm.eval()


def _spread(layer: nn.Module, outputs: Tensor, deviation: float) -> None:
    layer.get_parameter("weight").mul_(deviation / outputs.std())


def _file(name: str, made_by: Iterable[Path]) -> Path:
    """In the workshop; another name whenever the code that makes it has changed."""
    WORKSHOP.mkdir(parents=True, exist_ok=True)
    return WORKSHOP / f"{name}-{fingerprint([*made_by, Path(__file__)], torch.__version__)}.onnx"
