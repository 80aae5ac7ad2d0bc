"""Faster R-CNN (Ren et al., NeurIPS 2015, arXiv:1506.01497) in its own form: one map, no pyramid.

Changed since Fast R-CNN: the regions come from the network itself, by a head on the same map
(sec. 3.1), so there is one forward pass and nothing to wait for on the side. Nine anchors a cell
(three areas, three ratios) stand for the pyramid of sizes that SPPnet ran the whole network on.

- VGG-16 (sec. 3): conv5_3, 7x7 bins, then fc6 and fc7.
- ResNet-50 (He et al., arXiv:1512.03385, appendix A): the map is that of conv4, and conv5 plays
  the part of the hidden layers, followed by an average; batch norms are frozen in training.
- MobileNetV2, of later years, as ResNet: its last four blocks are the head.

Deviations:
- At test time 1000 boxes go into the suppression of proposals, of which 300 come out as in the
  paper (sec. 4.1); the authors' code has 6000, whose pairs would make a static graph slow.
- In training 2000 go in and 1000 come out (``PROPOSING``); the paper trains on 2000 (sec. 3.3), of
  12000 in the authors' code.
- Frames are not brought to 600 pixels by themselves (``SINGLE_SCALE``), so that training and test
  see one size whatever it is; the anchors are meant for that one.
- Anchors are centred on the corner of their cell, as in :class:`models.anchors.AnchorGrid`.
- Objectness is one logistic number, which the paper names as the alternative to its two (sec. 3.1).
- The sums are divided as in :mod:`models.detection.losses`, so lambda is 1, and the knee of smooth
  L1 is at 1/9 in the second stage, too.

How it learns: :mod:`models.detection.joint_training`, and the four steps of sec. 3.2 in
:mod:`models.detection.alternating_training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torchvision
from torch import Tensor, nn

from models.anchors import AnchorGrid
from models.backbones.features import FeatureMaps, SingleMap, load_classifier
from models.backbones.mobilenet import mobilenet_v2
from models.backbones.resnet import resnet50
from models.backbones.vgg import vgg16
from models.detection.faster_rcnn import FasterRCNN
from models.detection.frame_size import Resize
from models.detection.joint_training import Proposing
from models.detection.pooling import PyramidRoIAlign
from models.detection.region_pooling import RoIMaxPool
from models.detection.region_trunks import HiddenLayers
from models.detection.roi import BoxPredictor, DetectionSettings, Pool, RoIHeads
from models.detection.rpn import ProposalSettings, RegionProposalNetwork, RPNHead

STRIDE = 16
ANCHOR_PIXELS = (128.0, 256.0, 512.0)
"""Square roots of the anchors' areas on pictures with a shorter side of 600 (sec. 3.3)."""
SINGLE_SCALE = Resize(600, 1000)
"""Sides of the picture in pixels (sec. 3.3)."""
PROPOSALS = ProposalSettings(pre_nms=1000, post_nms=300)
PROPOSING = Proposing(pre_nms=2000, post_nms=1000, rois=64, inside=True)
DETECTIONS = DetectionSettings(min_score=0.05, iou=0.3)


class FullyConnected(nn.Module):
    """fc6 and fc7 of a classifier as the head of a region."""

    def __init__(self, inputs: int, width: int, names: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.layers = HiddenLayers(inputs, width, names)

    def forward(self, bins: Tensor) -> Tensor:
        """(R, C, n, n) -> (R, width)."""
        return self.layers(bins.flatten(1))

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's classifier."""
        self.layers.load_classifier(state)


class LastStage(nn.Module):
    """The layers of a classifier beyond the map as the head of a region, and an average."""

    def __init__(self, parts: Mapping[str, nn.Module], prefix: str) -> None:
        """prefix: what stands before the parts' names in a classifier's state dict."""
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.prefix = prefix

    def forward(self, bins: Tensor) -> Tensor:
        """(R, C, n, n) -> (R, width)."""
        for part in self.parts.values():
            bins = part(bins)
        return bins.mean((2, 3))

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's classifier."""
        wanted = self.parts.state_dict().keys()
        self.parts.load_state_dict({name: state[self.prefix + name] for name in wanted})


Head = FullyConnected | LastStage


@dataclass(frozen=True)
class SplitTrunk:
    """A classifier cut at its map of stride 16."""

    build: Callable[[Sequence[int]], FeatureMaps]
    head: Callable[[], Head]
    width: int
    """Of what the head gives."""
    bins: int
    """Along a side, for the head."""


def _vgg16_head() -> Head:
    return FullyConnected(512 * 7 * 7, 4096, ("classifier.0", "classifier.3"))


def _resnet50_head() -> Head:
    return LastStage({"layer4": torchvision.models.resnet50(weights=None).layer4}, "")


def _mobilenet_v2_head() -> Head:
    layers = torchvision.models.mobilenet_v2(weights=None).features
    return LastStage({str(i): layers[i] for i in range(14, 18)}, "features.")


TRUNKS = {
    "vgg16": SplitTrunk(vgg16, _vgg16_head, 4096, 7),
    # These heads begin with a stride of 2, so 14 bins leave 7, and 7 leave 4 at a quarter the cost.
    "resnet50": SplitTrunk(resnet50, _resnet50_head, 2048, 14),
    "mobilenet_v2": SplitTrunk(mobilenet_v2, _mobilenet_v2_head, 320, 7),
}
"""By the word that the builder takes."""


class SingleMapFasterRCNN(FasterRCNN):
    """A Faster R-CNN whose head, too, comes from the classifier."""

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Start from torchvision's classifier of the trunk's name (sec. 3.1.3)."""
        head = self.roi_heads.box_head
        if not isinstance(self.backbone, SingleMap) or not isinstance(head, Head):
            raise ValueError("trunk and head are none that a classifier's weights fit")
        load_classifier(self.backbone, state)
        head.load_classifier(state)


def faster_rcnn_c4(
    backbone: str = "vgg16",
    num_classes: int = 20,
    *,
    anchor_pixels: Sequence[float] = ANCHOR_PIXELS,
    resize: Resize | None = None,
    pooling: Literal["max", "align"] = "max",
    proposals: ProposalSettings = PROPOSALS,
) -> SingleMapFasterRCNN:
    """A single-map Faster R-CNN with random weights, in training mode.

    Args:
        backbone: "vgg16", "resnet50" or "mobilenet_v2".
        num_classes: without the background.
        anchor_pixels: square roots of the anchors' areas; smaller ones for small pictures.
        resize: of the frames at test time; None takes them as they are. Training takes pictures as
            they come, so whoever gives ``SINGLE_SCALE`` trains on pictures of that size.
        pooling: "max" is the paper's; "align" samples between the cells instead (Mask R-CNN).

    Raises:
        ValueError: a backbone that is not in ``TRUNKS``.
    """
    if backbone not in TRUNKS:
        raise ValueError(f"unknown backbone {backbone!r}; known: {', '.join(TRUNKS)}")
    trunk = TRUNKS[backbone]
    return assemble(
        SingleMap(trunk.build((STRIDE,))),
        trunk.head(),
        trunk.width,
        POOLINGS[pooling](STRIDE, trunk.bins),
        num_classes=num_classes,
        anchor_pixels=anchor_pixels,
        resize=resize,
        proposals=proposals,
    )


def assemble(
    trunk: SingleMap,
    head: nn.Module,
    width: int,
    pool: Pool,
    *,
    num_classes: int,
    anchor_pixels: Sequence[float],
    resize: Resize | None,
    proposals: ProposalSettings = PROPOSALS,
) -> SingleMapFasterRCNN:
    """The network from its parts; width: of what ``head`` gives for a region."""
    grid = AnchorGrid((tuple(anchor_pixels),))
    predictor = BoxPredictor(width, num_classes)
    for layer, deviation in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    network = SingleMapFasterRCNN(
        trunk,
        grid,
        RegionProposalNetwork(RPNHead(trunk.out_channels, grid.per_cell), proposals),
        RoIHeads(pool, head, predictor, DETECTIONS),
        num_classes=num_classes,
        resize=resize,
    )
    network.proposing = PROPOSING
    return network


POOLINGS: dict[str, Callable[[int, int], Pool]] = {
    "max": RoIMaxPool,
    "align": lambda stride, bins: PyramidRoIAlign(strides=(stride,), output=bins),
}
