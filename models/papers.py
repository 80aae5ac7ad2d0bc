"""Every network of the family by the word that a command line knows it by.

``fast_rcnn_vgg16`` is the paper on that trunk, ``fast_rcnn`` the same on MobileNetV2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from models.detection import ssd
from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.mask_rcnn import mask_rcnn
from models.segmentation import deeplab

Builder = Callable[[int], nn.Module]

ON_TRUNKS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "deeplab_v1": (deeplab.deeplab_v1, ("vgg16", "resnet50", "mobilenet_v2")),
    "deeplab_v2": (deeplab.deeplab_v2, ("vgg16", "resnet50", "mobilenet_v2")),
    "deeplab_v3": (deeplab.deeplab_v3, ("resnet50", "mobilenet_v2")),
    "deeplab_v3_plus": (deeplab.deeplab_v3_plus, ("resnet50", "mobilenet_v2")),
}
"""Papers that run on several trunks, and on which."""

PAPERS: dict[str, Builder] = {
    **{name: partial(faster_rcnn, name) for name in ARCHITECTURES},
    **{
        f"mask_rcnn_{name}": partial(mask_rcnn, name)
        for name in ("resnet50_fpn", "resnet50_fpn_v2")
    },
    "ssd300_vgg16": ssd.ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": ssd.ssdlite320_mobilenet_v3_large,
    **{
        f"{paper}_{trunk}": partial(build, trunk)
        for paper, (build, trunks) in ON_TRUNKS.items()
        for trunk in trunks
    },
    **{paper: partial(build, "mobilenet_v2") for paper, (build, _) in ON_TRUNKS.items()},
}
"""Name -> builder: number of classes -> network (:class:`models.network.Network`) with random
weights, in training mode."""
