"""Networks with weights: of torchvision for COCO, from a file of ours, or from a checkpoint."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.faster_rcnn import FasterRCNN
from models.papers import PAPERS

# torchvision's first ResNet-50 for COCO was trained with a batch norm that had no epsilon; its
# file carries the start of its own SHA-256 in its name.
SHA256_WITHOUT_EPSILON = "258fb6c6"


class WeightsError(Exception):
    """The weights cannot be had or do not fit; says what to do."""


def load_weights(architecture: str, weights: str) -> tuple[FasterRCNN, dict[str, Any]]:
    """A model with weights from a file, or torchvision's for COCO by the word DEFAULT.

    Returns it with what is known of its provenance. Raises WeightsError.
    """
    if weights == "DEFAULT":
        state, eps, source = _published(architecture)
    else:
        state, eps = _from_file(Path(weights))
        source = {"weights": Path(weights).name}
    try:
        num_classes = len(state["roi_heads.box_predictor.cls_score.bias"]) - 1
        model = faster_rcnn(architecture, num_classes, batch_norm_eps=eps)
        model.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{weights} does not hold a {architecture}: {error}") from error
    return model.eval(), {"architecture": architecture, **source}


def load_network(
    name: str, weights: str, class_names: Sequence[str]
) -> tuple[nn.Module, dict[str, Any]]:
    """A network of :data:`models.papers.PAPERS` with the weights of a checkpoint; WeightsError."""
    network = PAPERS[name](len(class_names))
    state, _ = _from_file(Path(weights))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"{weights} does not hold a {name} of {len(class_names)} classes: {error}"
        ) from error
    return network.eval(), {"architecture": name, "weights": Path(weights).name}


def _published(architecture: str) -> tuple[Mapping[str, Tensor], float, dict[str, Any]]:
    if architecture not in TORCHVISION:
        raise WeightsError(f"nobody publishes weights of {architecture}; give --weights FILE")
    entry = torchvision.models.get_model_weights(f"fasterrcnn_{architecture}").DEFAULT
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, no such file, or not the right bytes
        raise WeightsError(
            f"cannot fetch {entry}: {error}. Without a network, fetch the file "
            f"{Path(entry.url).name} elsewhere and give it as --weights FILE"
        ) from error
    eps = 0.0 if SHA256_WITHOUT_EPSILON in entry.url else 1e-5
    return state, eps, {"training_data": "COCO train2017", "weights": str(entry)}


def _from_file(path: Path) -> tuple[Mapping[str, Tensor], float]:
    """A bare state dict, or one under "model" among other things (a checkpoint of ours)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(f"cannot read weights from {path}: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict")
    state = content.get("model", content)
    return state, 0.0 if digest.startswith(SHA256_WITHOUT_EPSILON) else 1e-5


TORCHVISION = tuple(name for name in ARCHITECTURES if name != "mobilenet_v2_fpn")
