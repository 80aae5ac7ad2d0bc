"""Every network of the family by the word that a command line knows it by.

``fast_rcnn_vgg16`` is the paper on that trunk, ``fast_rcnn`` the same on MobileNetV2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from models.detection import ssd, yolo
from models.detection.architectures import ARCHITECTURES, faster_rcnn
from models.detection.fast_rcnn import fast_rcnn
from models.detection.localization import localization
from models.detection.mask_rcnn import mask_rcnn
from models.detection.overfeat import overfeat
from models.detection.rcnn import rcnn
from models.detection.single_map import faster_rcnn_c4
from models.detection.sppnet import sppnet
from models.segmentation import deeplab
from models.segmentation.fcn import fcn
from models.segmentation.hypercolumns import hypercolumns
from models.segmentation.torchvision_twins import TWINS, torchvision_twin
from models.segmentation.unet import unet, unet_with_trunk

Builder = Callable[[int], nn.Module]

REGION_TRUNKS = ("alexnet", "vgg16", "mobilenet_v2")
DENSE_TRUNKS = ("vgg16", "resnet50", "mobilenet_v2")

ON_TRUNKS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "rcnn": (rcnn, REGION_TRUNKS),
    "sppnet": (sppnet, REGION_TRUNKS),
    "fast_rcnn": (fast_rcnn, REGION_TRUNKS),
    "faster_rcnn": (faster_rcnn_c4, DENSE_TRUNKS),
    "yolo_v1": (yolo.yolo_v1, DENSE_TRUNKS),
    "yolo_v2": (yolo.yolo_v2, DENSE_TRUNKS),
    "fcn32s": (partial(fcn, finest=32), DENSE_TRUNKS),
    "fcn16s": (partial(fcn, finest=16), DENSE_TRUNKS),
    "fcn8s": (partial(fcn, finest=8), DENSE_TRUNKS),
    "hypercolumns": (hypercolumns, DENSE_TRUNKS),
    "deeplab_v1": (deeplab.deeplab_v1, DENSE_TRUNKS),
    "deeplab_v2": (deeplab.deeplab_v2, DENSE_TRUNKS),
    "deeplab_v3": (deeplab.deeplab_v3, ("resnet50", "mobilenet_v2")),
    "deeplab_v3_plus": (deeplab.deeplab_v3_plus, ("resnet50", "mobilenet_v2")),
}
"""Papers that run on several trunks, and on which."""

PAPERS: dict[str, Builder] = {
    "localization": partial(localization, "mobilenet_v2"),
    "overfeat_fast": partial(overfeat, "overfeat_fast"),
    "overfeat_accurate": partial(overfeat, "overfeat_accurate"),
    "overfeat": partial(overfeat, "mobilenet_v2"),
    **{name: partial(faster_rcnn, name) for name in ARCHITECTURES},
    "mask_rcnn_resnet50_fpn": partial(mask_rcnn, "resnet50_fpn"),
    "mask_rcnn_resnet50_fpn_v2": partial(mask_rcnn, "resnet50_fpn_v2"),
    "mask_rcnn": partial(mask_rcnn, "mobilenet_v2_fpn"),
    "ssd300_vgg16": ssd.ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": ssd.ssdlite320_mobilenet_v3_large,
    **{name: partial(torchvision_twin, name) for name in TWINS},
    # Narrow enough for every frame on a CPU: what ``road_segmentation`` is.
    "deeplab_v3_plus_slim": partial(
        deeplab.deeplab_v3_plus, "mobilenet_v2", width=96, decoder_width=64, low_level=24
    ),
    "unet": unet,
    "unet_mobilenet_v2": partial(unet_with_trunk, "mobilenet_v2"),
    **{
        f"{paper}_{trunk}": partial(build, trunk)
        for paper, (build, trunks) in ON_TRUNKS.items()
        for trunk in trunks
    },
    **{paper: partial(build, "mobilenet_v2") for paper, (build, _) in ON_TRUNKS.items()},
}
"""Name -> builder: number of classes -> network (:class:`models.network.Network`) with random
weights, in training mode."""

SINGLE_MAP = [name for name in PAPERS if name.startswith("faster_rcnn")]
"""Those that are a Faster R-CNN, too, beside ``ARCHITECTURES``."""
