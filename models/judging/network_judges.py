"""Networks that are still being trained, as something to try on pictures."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.boxes import SizeHW
from models.detection.faster_rcnn import FasterRCNN
from models.detection.greedy_merge import greedy_merge
from models.detection.overfeat import OverFeat
from models.judging.detectors import ModelFile
from models.judging.found import suppress
from models.model_file.writing import merge_overlap
from models.network import Network

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def folded(network: AnyModule) -> AnyModule:
    """A copy in eval mode whose batch norms are part of the convolutions before them.

    What every engine does with a graph before it runs it; torch does not.
    """
    network = copy.deepcopy(network).eval()
    chains = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    for chain in chains:
        for index, (first, norm) in enumerate(itertools.pairwise(list(chain))):
            if isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                chain[index], chain[index + 1] = fuse_conv_bn_eval(first, norm), nn.Identity()
    return network


def prepared(network: nn.Module, size_hw: SizeHW) -> Network:
    """The network, ready for frames of one size; detectors give candidates."""
    if isinstance(network, FasterRCNN):
        return cast(Network, network.prepare(size_hw, output_form="candidates"))
    return cast(Network, cast(Network, network).prepare(size_hw))


def network_detector(
    network: nn.Module, class_names: Sequence[str], size_hw: SizeHW, nms_iou: float | None = None
) -> ModelFile:
    """A detection network in eval mode as :mod:`models.evaluate` wants it, run by torch.

    nms_iou: overlap from which a box is a duplicate; None: the network's own. An OverFeat merges
        such boxes, as its paper does.
    """
    ready = prepared(network, size_hw)
    device = next(network.parameters()).device
    about = {
        "class_names": class_names,
        "input_size_hw": size_hw,
        "fit": "letterbox",
        "outputs": list(ready.outputs),
        "output_form": "detections" if "count" in ready.outputs else "candidates",
        "nms_iou": merge_overlap(network) if nms_iou is None else nms_iou,
        "proposer": ready.proposer,
        "regions": ready.regions,
    }

    @torch.inference_mode()
    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        tensors = [torch.from_numpy(one).to(device) for one in inputs]
        return [out.cpu().numpy() for out in cast(Any, ready)(*tensors)]

    return ModelFile(run, about, merge=greedy_merge if isinstance(network, OverFeat) else suppress)


class NetworkSegmenter:
    """A semantic network in eval mode, each picture at its own size."""

    def __init__(self, network: nn.Module, class_names: Sequence[str]) -> None:
        self.network, self.class_names = network, class_names
        self.size_hw: SizeHW | None = None

    @torch.inference_mode()
    def segment(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 class of each pixel."""
        size_hw = (image.shape[0], image.shape[1])
        if size_hw != self.size_hw:
            prepared(self.network, size_hw)
            self.size_hw = size_hw
        device = next(self.network.parameters()).device
        frames = torch.from_numpy(np.ascontiguousarray(image))[None].to(device)
        (classes,) = cast(tuple[Tensor], self.network(frames))
        return classes[0].to(torch.uint8).cpu().numpy()
