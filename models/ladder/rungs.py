"""The rungs of the ladder: which networks, how wide, how long they learn.

All stand on MobileNetV2, the one trunk that a CPU trains in an evening. The sizes are chosen for
two cores: what a paper does on a GPU for days, each rung does in 8 to 35 minutes of one core, in
bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import nn

from models.boxes import SizeHW
from models.detection.fast_rcnn import fast_rcnn
from models.detection.frame_size import Resize
from models.detection.overfeat import OverFeatSettings, overfeat
from models.detection.rcnn import rcnn
from models.detection.sppnet import SMALL_PYRAMID, sppnet
from models.papers import PAPERS
from models.segmentation import deeplab
from models.segmentation.fcn import fcn
from models.segmentation.hypercolumns import hypercolumns
from models.segmentation.unet import unet_with_trunk

Ladder = Literal["detection", "segmentation"]
TRUNK = "mobilenet_v2"


@dataclass(frozen=True)
class Rung:
    """One network and its training."""

    title: str
    build: str
    """Key of :data:`BUILDERS`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the builder."""
    steps: int = 2000
    batch: int = 8
    """Pictures of a step."""
    rate: float = 4e-4
    """Of the heads, at its height."""
    trunk_share: float = 0.3
    """Of that rate, for the trunk."""
    size_hw: SizeHW = (288, 384)
    """Of the pictures it learns from; detectors are judged at this size, too."""
    frozen: int = 4
    """First parts of the trunk that stay as they are: see :func:`models.training.run.freeze`."""
    fitted_regions: int = 300
    """Of each picture, that SVMs and box regressors are fitted on."""
    judged_by_softmax: bool = True
    """Where SVMs follow the softmax: whether that is judged, too, which takes as long again."""
    balance: float = 0.0
    """How much rare classes are favoured: see ``TrainingBatches`` and ``MaskBatches``."""

    def network(self, num_classes: int) -> nn.Module:
        """With random weights, in training mode."""
        return BUILDERS[self.build](num_classes, **self.settings)

    def about(self) -> dict[str, Any]:
        """Everything that decides what is learned, fit for JSON."""
        return asdict(self)


def _overfeat(num_classes: int, short_sides: tuple[int, ...]) -> nn.Module:
    return overfeat(TRUNK, num_classes, settings=OverFeatSettings(short_sides))


def _fast_rcnn(num_classes: int, resize: tuple[int, int] | None, **settings: Any) -> nn.Module:
    return fast_rcnn(TRUNK, num_classes, resize=Resize(*resize) if resize else None, **settings)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "overfeat": _overfeat,
    "rcnn": partial(rcnn, TRUNK),
    "sppnet": partial(sppnet, TRUNK),
    "fast_rcnn": _fast_rcnn,
    "faster_rcnn": PAPERS["faster_rcnn"],
    "fcn": partial(fcn, TRUNK),
    "hypercolumns": partial(hypercolumns, TRUNK),
    "unet": partial(unet_with_trunk, TRUNK),
    "deeplab_v1": partial(deeplab.deeplab_v1, TRUNK),
    "deeplab_v2": partial(deeplab.deeplab_v2, TRUNK),
    "deeplab_v3": partial(deeplab.deeplab_v3, TRUNK),
    "deeplab_v3_plus": partial(deeplab.deeplab_v3_plus, TRUNK),
}
"""Number of classes and settings -> network."""

REGIONS = 1000
"""A picture: half of the papers', as pictures of 416 pixels are hardly half as large as theirs."""
_detector = partial(Rung, size_hw=(416, 416))

DETECTION: dict[str, Rung] = {
    "overfeat": _detector(
        "OverFeat", "overfeat", {"short_sides": (112, 160, 224, 320, 448)}, steps=3000, batch=4
    ),
    "rcnn": _detector(
        "R-CNN", "rcnn", {"regions": REGIONS}, steps=700, batch=2, judged_by_softmax=False
    ),
    "sppnet": _detector(
        "SPPnet",
        "sppnet",
        # Its convolutions stay as ImageNet left them, so it pools the last of them, in windows of
        # 7x7 cells: too few for 6x6 bins. Three of the paper's five scales, to save time.
        {"regions": REGIONS, "stride": 32, "grids": SMALL_PYRAMID, "scales": (480, 688, 864)},
        steps=1000,
        batch=2,
    ),
    "fast_rcnn": _detector(
        "Fast R-CNN", "fast_rcnn", {"regions": REGIONS, "resize": (600, 1000)}, steps=2000, batch=2
    ),
    "faster_rcnn": _detector("Faster R-CNN", "faster_rcnn", steps=1600, batch=4),
}
"""By folder."""

_segmenter = partial(Rung, steps=2000, rate=1e-3, size_hw=(240, 320), balance=0.3)
# Scores directly on a trunk's features learn at 1e-3. Layers between the two start from nothing and
# want ten times that (loss of Hypercolumns after 200 steps: 0.69 at 1e-3, 0.49 at 5e-3, 0.48 at
# 1e-2), the trunk below no more than before. Without batch norm 3e-3 is enough.
_normed_segmenter = partial(_segmenter, rate=1e-2, trunk_share=0.03)
# With their stride of 8, DeepLab v1 and v2 cost more than twice as much a picture: as many
# pictures, in smaller steps.
_dense_segmenter = partial(_segmenter, rate=3e-3, trunk_share=0.1, steps=4000, batch=4)

SEGMENTATION: dict[str, Rung] = {
    "fcn32s": _segmenter("FCN-32s", "fcn", {"finest": 32}),
    "fcn16s": _segmenter("FCN-16s", "fcn", {"finest": 16}),
    "fcn8s": _segmenter("FCN-8s", "fcn", {"finest": 8}),
    "hypercolumns": _normed_segmenter("Hypercolumns", "hypercolumns", {"hidden": 64}),
    # After 200 steps a loss of 0.68; with transposed convolutions 0.79 (both
    # before its maps were evened).
    "unet": _normed_segmenter("U-Net", "unet", {"widths": (16, 32, 64, 128), "doubling": "resize"}),
    "deeplab_v1": _dense_segmenter("DeepLab v1", "deeplab_v1", {"width": 128}),
    "deeplab_v2": _dense_segmenter("DeepLab v2", "deeplab_v2", {"width": 64}),
    "deeplab_v3": _normed_segmenter("DeepLab v3", "deeplab_v3", {"width": 96}),
    "deeplab_v3_plus": _normed_segmenter(
        "DeepLab v3+",
        "deeplab_v3_plus",
        {"width": 96, "decoder_width": 64, "low_level": 24},
    ),
}
"""By folder."""

LADDERS: dict[Ladder, dict[str, Rung]] = {"detection": DETECTION, "segmentation": SEGMENTATION}

SMALL_HW = (96, 128)
_SMALL_STEPS, _SMALL_REGIONS = 4, 40
_SMALL_SETTINGS: dict[str, dict[str, Any]] = {
    "overfeat": {"short_sides": (96, 112)},
    "rcnn": {"regions": _SMALL_REGIONS},
    "sppnet": {"regions": _SMALL_REGIONS, "scales": (96, 128)},
    "fast_rcnn": {"regions": _SMALL_REGIONS, "resize": None},
}


def small(rung: Rung) -> Rung:
    """The same network, hardly trained, on small pictures: does everything work together?"""
    settings = {**rung.settings, **_SMALL_SETTINGS.get(rung.build, {})}
    return replace(rung, settings=settings, steps=_SMALL_STEPS, batch=2, size_hw=SMALL_HW)
