"""Networks with weights: torchvision's, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.faster_rcnn import FasterRCNN
from models.detection.mask_rcnn import MaskRCNN, with_present_names
from models.papers import PAPERS
from models.published import (
    PUBLISHED,
    WeightsError,
    load_state,
    published_entry,
    published_state,
    sha256_of,
    state_in,
)
from models.segmentation.torchvision_twins import TWINS

__all__ = ["WeightsError", "class_names_published", "load_network", "load_weights"]

# torchvision's first ResNet-50 for COCO was trained with a batch norm that had no epsilon; its
# file carries the start of its own SHA-256 in its name.
SHA256_WITHOUT_EPSILON = "258fb6c6"

THEIR_NAMES: dict[str, str] = {
    **{name: f"fasterrcnn_{name}" for name in ARCHITECTURES if name != "mobilenet_v2_fpn"},
    "mask_rcnn_resnet50_fpn": "maskrcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2": "maskrcnn_resnet50_fpn_v2",
    "ssd300_vgg16": "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large": "ssdlite320_mobilenet_v3_large",
    **{name: name for name in TWINS},
}
"""Our word for a network -> torchvision's, for those whose weights it publishes."""


def class_names_published(name: str) -> list[str]:
    """What the classes of the published weights of a network are called, background left out.

    Raises:
        WeightsError: nobody publishes weights of it.
    """
    names = list(_entry(name).meta["categories"])
    # Detectors do not count the background; of pixels it is a class like the others.
    return names if name in TWINS else names[1:]


def load_weights(architecture: str, weights: str) -> tuple[FasterRCNN, dict[str, Any]]:
    """A Faster R-CNN with weights from a file, or torchvision's for COCO by the word DEFAULT.

    Returns it with what is known of its provenance. Raises WeightsError.
    """
    state, source, eps = _state(architecture, weights)
    otherwise = f"{weights} does not hold a {architecture}"
    counted = "roi_heads.box_predictor.cls_score.bias"
    if counted not in state:
        raise WeightsError(f"{otherwise}: it has no {counted}")
    model = faster_rcnn(architecture, len(state[counted]) - 1, batch_norm_eps=eps)
    load_state(model, state, otherwise)
    return model.eval(), {"architecture": architecture, **source}


def load_network(
    name: str, weights: str, class_names: Sequence[str]
) -> tuple[nn.Module, dict[str, Any]]:
    """A network of :data:`models.papers.PAPERS` with the weights of a file, or DEFAULT.

    Returns it with what is known of its provenance. Raises WeightsError.
    """
    network = PAPERS[name](len(class_names))
    state, source, _ = _state(name, weights)
    if isinstance(network, MaskRCNN):
        state = with_present_names(state)
    load_state(network, state, f"{weights} does not hold a {name} of {len(class_names)} classes")
    return network.eval(), {"architecture": name, **source}


def _state(name: str, weights: str) -> tuple[Mapping[str, Tensor], dict[str, Any], float]:
    """State dict, provenance, and the epsilon that batch norms were trained with."""
    if weights != PUBLISHED:
        path = Path(weights)
        state = state_in(path)
        return state, {"weights": path.name}, _epsilon(sha256_of(path))
    entry = _entry(name)
    state = published_state(entry)
    source = {"training_data": "COCO train2017", "weights": str(entry)}
    return state, source, _epsilon(entry.url.rpartition("-")[2])


def _entry(name: str) -> Any:
    if name not in THEIR_NAMES:
        raise WeightsError(f"nobody publishes weights of {name}; give --weights FILE")
    return published_entry(THEIR_NAMES[name])


def _epsilon(digest: str) -> float:
    return 0.0 if digest.startswith(SHA256_WITHOUT_EPSILON) else 1e-5
