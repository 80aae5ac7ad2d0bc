"""DeepLab, four papers of Chen et al. that keep the map from getting coarse.

v1 (ICLR 2015, arXiv:1412.7062). Changed since FCN: the last strides of the trunk become dilation
    (sec. 3.1), so scores stand every 8 pixels without skips; fc6 has 3x3 taps 12 apart, a large
    field of view for little money (sec. 3.2, "LargeFOV"); a fully connected CRF sharpens the
    result (``crf.py``).
v2 (TPAMI 2017, arXiv:1606.00915). Changed: four such fc6 side by side at rates 6, 12, 18, 24,
    their scores summed (sec. 3.2, atrous spatial pyramid pooling, ASPP-L).
v3 (arXiv:1706.05587). Changed: batch norm in the ASPP, rates 6, 12, 18 and a 1x1, the mean of the
    whole map as a fifth look (sec. 3.3, image pooling), all concatenated; different rates within
    the last block (sec. 3.2.1, multi-grid); no CRF.
v3+ (ECCV 2018, arXiv:1802.02611). Changed: a decoder brings in a map of stride 4, reduced to 48
    channels (sec. 3.1, 4.1); convolutions become depthwise separable (sec. 3.2).

Where we deviate: every trunk is possible, not VGG-16, ResNet-101 or Xception alone; the map is
enlarged with pixel centres aligned (theirs: corners, for sizes 8 n + 1); v1 and v2 come without
the inputs of several scales. Widths are arguments, because the papers' are for GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbones.atrous import atrous
from models.backbones.build import backbone as trunk
from models.backbones.features import FeatureMaps
from models.segmentation.convolutions import classifier, conv_norm_relu, separable
from models.segmentation.semantic import SemanticNetwork, enlarge

LARGE_FOV_RATE = 12
ASPP_L_RATES = (6, 12, 18, 24)
V3_RATES = (6, 12, 18)
"""At an output stride of 16; at 8 they are doubled (v3, sec. 3.3)."""
MULTI_GRID = (1, 2, 4)
LOW_LEVEL_STRIDE, LOW_LEVEL_CHANNELS = 4, 48


class DeepLab(SemanticNetwork):
    """v1 to v3: trunk, head."""

    def __init__(
        self, backbone: FeatureMaps, head: nn.Module, num_classes: int, *, subsample_labels: bool
    ) -> None:
        super().__init__(num_classes, subsample_labels=subsample_labels)
        self.backbone = backbone
        self.head = head

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, H/s, W/s) with the output stride s."""
        features = self.backbone(images)
        return self.head(features[max(features)])


class DeepLabV3Plus(SemanticNetwork):
    """v3 as the encoder, and a decoder that sees edges."""

    def __init__(
        self, backbone: FeatureMaps, aspp: nn.Module, decoder: Decoder, num_classes: int
    ) -> None:
        super().__init__(num_classes)
        self.backbone = backbone
        self.aspp = aspp
        self.decoder = decoder

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, H/4, W/4)."""
        features = self.backbone(images)
        looked = self.aspp(features[max(features)])
        return self.decoder(looked, features[LOW_LEVEL_STRIDE])


class Fc6To8(nn.Sequential):
    """VGG's last three layers as convolutions, the first with holes (v1, sec. 3.1 and 3.2)."""

    def __init__(self, inputs: int, num_classes: int, rate: int, width: int) -> None:
        fc6 = nn.Conv2d(inputs, width, 3, padding=rate, dilation=rate)
        fc7 = nn.Conv2d(width, width, 1)
        for layer in (fc6, fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        fc8 = classifier(width, num_classes)
        super().__init__(fc6, nn.ReLU(), nn.Dropout(), fc7, nn.ReLU(), nn.Dropout(), fc8)


class SummedASPP(nn.ModuleList):
    """Several fields of view at once, each with a say (v2, sec. 3.2)."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, F, h, w) -> scores (N, C, h, w)."""
        return torch.stack([branch(features) for branch in self]).sum(0)


class ASPP(nn.Module):
    """1x1, three 3x3 with holes, and the picture as a whole, concatenated (v3, sec. 3.3)."""

    def __init__(
        self, inputs: int, width: int, rates: Sequence[int], *, separably: bool = False
    ) -> None:
        super().__init__()
        atrous_conv = separable if separably else _conv3x3
        self.looks = nn.ModuleList(
            [
                conv_norm_relu(inputs, width, 1),
                *(atrous_conv(inputs, width, rate=rate) for rate in rates),
            ]
        )
        self.whole = conv_norm_relu(inputs, width, 1)
        self.project = conv_norm_relu(width * (len(rates) + 2), width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, F, h, w) -> (N, width, h, w)."""
        looks = [look(features) for look in self.looks]
        whole = self.whole(features.mean((2, 3), keepdim=True))
        return self.project(torch.cat([*looks, whole.expand_as(looks[0])], 1))


class Decoder(nn.Module):
    """Coarse meaning and fine edges, refined together (v3+, sec. 3.1)."""

    def __init__(
        self, inputs: int, low_level: int, num_classes: int, *, width: int, reduced: int
    ) -> None:
        super().__init__()
        # Few channels, or the many of the fine map would outweigh the coarse one (sec. 4.1).
        self.reduce = conv_norm_relu(low_level, reduced, 1)
        self.refine = nn.Sequential(
            separable(inputs + reduced, width), separable(width, width), nn.Dropout(0.1)
        )
        self.classify = classifier(width, num_classes)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(N, F, h, w) and the low-level (N, L, H/4, W/4) -> scores (N, C, H/4, W/4)."""
        reduced = self.reduce(fine)
        enlarged = enlarge(coarse, (fine.shape[2], fine.shape[3]))
        return self.classify(self.refine(torch.cat([enlarged, reduced], 1)))


def _conv3x3(inputs: int, outputs: int, *, rate: int) -> nn.Sequential:
    return conv_norm_relu(inputs, outputs, 3, rate=rate)


def deeplab_v1(
    backbone: str | FeatureMaps = "vgg16",
    num_classes: int = 21,
    *,
    output_stride: int = 8,
    width: int = 1024,
    rate: int = LARGE_FOV_RATE,
) -> DeepLab:
    """DeepLab-LargeFOV with random weights, in training mode; learns from every 8th label.

    width: channels of fc6 and fc7.
    """
    features = atrous(trunk(backbone, (32,)), output_stride)
    head = Fc6To8(features.channels[32], num_classes, rate, width)
    return DeepLab(features, head, num_classes, subsample_labels=True)


def deeplab_v2(
    backbone: str | FeatureMaps = "vgg16",
    num_classes: int = 21,
    *,
    output_stride: int = 8,
    width: int = 1024,
    rates: Sequence[int] = ASPP_L_RATES,
) -> DeepLab:
    """DeepLab-ASPP with random weights, in training mode; learns from every 8th label."""
    features = atrous(trunk(backbone, (32,)), output_stride)
    branches = (Fc6To8(features.channels[32], num_classes, rate, width) for rate in rates)
    return DeepLab(features, SummedASPP(branches), num_classes, subsample_labels=True)


def deeplab_v3(
    backbone: str | FeatureMaps = "resnet50",
    num_classes: int = 21,
    *,
    output_stride: int = 16,
    width: int = 256,
    rates: Sequence[int] | None = None,
    multi_grid: Sequence[int] = MULTI_GRID,
) -> DeepLab:
    """DeepLabv3 with random weights, in training mode.

    A batch of training needs two pictures: the batch norm behind the image pooling sees one cell
    of each.

    Args:
        output_stride: 16 to train, 8 for more at test time (sec. 4.1).
        rates: of the ASPP's 3x3s; None: the paper's for this output stride.
    """
    features = atrous(trunk(backbone, (32,)), output_stride, multi_grid)
    aspp = ASPP(features.channels[32], width, _rates(output_stride) if rates is None else rates)
    head = nn.Sequential(aspp, nn.Dropout(0.1), classifier(width, num_classes))
    return DeepLab(features, head, num_classes, subsample_labels=False)


def deeplab_v3_plus(
    backbone: str | FeatureMaps = "mobilenet_v2",
    num_classes: int = 21,
    *,
    output_stride: int = 16,
    width: int = 256,
    rates: Sequence[int] | None = None,
    multi_grid: Sequence[int] = (),
    decoder_width: int | None = None,
    low_level: int = LOW_LEVEL_CHANNELS,
) -> DeepLabV3Plus:
    """DeepLabv3+ with random weights, in training mode; training batches as for v3.

    Args:
        output_stride: 16, 8 or (cheap) 32.
        width: of the ASPP. ``()`` as rates leaves of it what DeepLabv3 on MobileNetV2 has, the
            1x1 and the image pooling (arXiv:1801.04381, sec. 6.3).
        decoder_width: None: as the ASPP.
        low_level: channels that the map of stride 4 is reduced to.
    """
    features = atrous(trunk(backbone, (LOW_LEVEL_STRIDE, 32)), output_stride, multi_grid)
    rates = _rates(output_stride) if rates is None else rates
    aspp = ASPP(features.channels[32], width, rates, separably=True)
    decoder = Decoder(
        width,
        features.channels[LOW_LEVEL_STRIDE],
        num_classes,
        width=decoder_width or width,
        reduced=low_level,
    )
    return DeepLabV3Plus(features, aspp, decoder, num_classes)


def _rates(output_stride: int) -> tuple[int, ...]:
    """The same field of view in pixels of the picture at every output stride."""
    return tuple(max(rate * 16 // output_stride, 1) for rate in V3_RATES)
