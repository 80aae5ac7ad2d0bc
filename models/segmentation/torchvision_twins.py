"""torchvision's segmentation networks behind our promise: its weights fit one to one.

FCN and DeepLabv3 on dilated ResNets (output stride 8), DeepLabv3 and LR-ASPP (arXiv:1905.02244,
sec. 6.4) on MobileNetV3 (output stride 16). The layers are torchvision's own, and keep their names;
ours are the bytes that go in, the class map that comes out and the loss. An auxiliary classifier on
an earlier map (PSPNet, arXiv:1612.01105, sec. 3.3) is trained with 0.5 of the weight; it is no part
of what is exported.

The papers' own networks stand in ``fcn.py`` and ``deeplab.py``; these differ from them (FCN here
has no skips, for one) and are for those who want weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn
from torchvision.models import segmentation

from models.data.batches import MaskBatch
from models.published import published_entry, published_state
from models.segmentation.semantic import SemanticNetwork

VOC_CLASSES = 21
"""Background and the 20 classes of VOC: what torchvision's weights know."""
AUXILIARY_SHARE = 0.5

TWINS = {
    "fcn_resnet50": segmentation.fcn_resnet50,
    "fcn_resnet101": segmentation.fcn_resnet101,
    "deeplabv3_resnet50": segmentation.deeplabv3_resnet50,
    "deeplabv3_resnet101": segmentation.deeplabv3_resnet101,
    "deeplabv3_mobilenet_v3_large": segmentation.deeplabv3_mobilenet_v3_large,
    "lraspp_mobilenet_v3_large": segmentation.lraspp_mobilenet_v3_large,
}
"""By torchvision's names."""


class TorchvisionTwin(SemanticNetwork):
    """Trunk, classifier and perhaps an auxiliary one; state dicts are torchvision's."""

    def __init__(self, theirs: nn.Module, num_classes: int) -> None:
        """theirs: FCN, DeepLabV3 or LRASPP of torchvision."""
        super().__init__(num_classes)
        self.backbone = theirs.get_submodule("backbone")
        self.classifier = theirs.get_submodule("classifier")
        self.aux_classifier: nn.Module | None = getattr(theirs, "aux_classifier", None)

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, h, w) of the classifier."""
        return self._classified(self.backbone(images))

    def losses(self, batch: MaskBatch) -> dict[str, Tensor]:
        """{"pixel": scalar}, and "auxiliary" where there is such a classifier."""
        features = self.backbone(self.normalise(batch.frames))
        losses = {"pixel": self.compare(self._classified(features), batch.labels)}
        if self.aux_classifier is not None:
            auxiliary = self.compare(self.aux_classifier(features["aux"]), batch.labels)
            losses["auxiliary"] = AUXILIARY_SHARE * auxiliary
        return losses

    def _classified(self, features: Mapping[str, Tensor]) -> Tensor:
        # LR-ASPP looks at two maps, the others at one.
        return self.classifier(features.get("out", features))


def torchvision_twin(
    name: str, num_classes: int = VOC_CLASSES, *, auxiliary: bool = True
) -> TorchvisionTwin:
    """One of ``TWINS`` with random weights, in training mode.

    auxiliary: with the second classifier, which published weights contain. LR-ASPP has none.
    """
    if name not in TWINS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(TWINS)}")
    build = partial(TWINS[name], weights=None, weights_backbone=None, num_classes=num_classes)
    theirs = build() if name.startswith("lraspp") else build(aux_loss=auxiliary)
    return TorchvisionTwin(theirs, num_classes)


def with_published_weights(name: str) -> TorchvisionTwin:
    """One of ``TWINS`` as torchvision trained it, on COCO's pictures with VOC's 21 classes.

    Raises:
        WeightsError: they cannot be fetched.
    """
    network = torchvision_twin(name)
    network.load_state_dict(published_state(published_entry(name)))
    return network
