"""Fully Convolutional Networks for Semantic Segmentation (Long et al., CVPR 2015, arXiv:1411.4038).

Changed since the classifiers: fully connected layers become convolutions (sec. 3.1), so a picture
of any size gives a map of scores instead of one vector; transposed convolution brings the map back
to the size of the picture (sec. 3.3); the scores of finer maps are added on the way (sec. 4.2,
"skips": FCN-32s has none, FCN-16s that of stride 16, FCN-8s that of stride 8, too).

Where we deviate: pictures are padded to a multiple of 32 instead of by 100 pixels all around; the
last transposed convolution learns like the others (theirs stays bilinear); instead of the sum,
scores may be concatenated and mixed by a 1x1 (as it is often taught), and instead of transposed
convolution resize-then-convolve is possible; trunks without fully connected layers have none here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.build import backbone as trunk
from models.backbones.features import FeatureMaps
from models.segmentation.convolutions import classifier
from models.segmentation.semantic import SemanticNetwork
from models.segmentation.upsampling import Upsampling, learned_upsampling

Finest = Literal[32, 16, 8]
Fusion = Literal["sum", "concatenate"]
COARSEST = 32


class FCN(SemanticNetwork):
    """FCN-32s, 16s or 8s, by the number of fusions."""

    def __init__(
        self,
        backbone: FeatureMaps,
        top: nn.Module,
        classifiers: Sequence[nn.Module],
        doubles: Sequence[nn.Module],
        fusions: Sequence[nn.Module],
        enlarge: nn.Module,
        num_classes: int,
    ) -> None:
        """
        Args:
            top: what follows the last map, fc6 and fc7 or nothing.
            classifiers: 1x1s, one a map, coarsest first.
            doubles: twice as fine scores, one fewer.
            fusions: (coarse, fine scores) -> scores, as many.
            enlarge: from the finest scores to the picture.
        """
        super().__init__(num_classes)
        self.backbone = backbone
        self.top = top
        self.classifiers = nn.ModuleList(classifiers)
        self.doubles = nn.ModuleList(doubles)
        self.fusions = nn.ModuleList(fusions)
        self.enlarge = enlarge

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised -> (N, C, H, W)."""
        last, *finer = reversed(self.backbone(to_multiple(images, COARSEST)).values())
        classify, *classify_finer = self.classifiers
        scores = classify(self.top(last))
        steps = zip(self.doubles, self.fusions, classify_finer, finer, strict=True)
        for double, fuse, classify, features in steps:
            scores = fuse(double(scores), classify(features))
        return self.enlarge(scores)[:, :, : images.shape[2], : images.shape[3]]


class Sum(nn.Module):
    """The paper's skip."""

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Two maps of one shape -> the same shape."""
        return coarse + fine


class Concatenate(nn.Module):
    """The other skip: both side by side, mixed by a 1x1 that begins as the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * channels, channels, 1)
        assert self.mix.bias is not None
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(channels).repeat(1, 2)[:, :, None, None])
            self.mix.bias.zero_()

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Two maps of one shape -> the same shape."""
        return self.mix(torch.cat([coarse, fine], 1))


class Fc6And7(nn.Sequential):
    """VGG's fully connected layers as convolutions over its last map, of 7x7 cells and of one."""

    def __init__(self, inputs: int, width: int) -> None:
        fc6 = nn.Conv2d(inputs, width, 7, padding=3)
        fc7 = nn.Conv2d(width, width, 1)
        for layer in (fc6, fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        super().__init__(fc6, nn.ReLU(), nn.Dropout(), fc7, nn.ReLU(), nn.Dropout())

    def load_classifier(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of torchvision's VGG-16 (sec. 3.1): only their shape changes.

        Raises RuntimeError when this top is not 4096 wide, KeyError when it is another classifier.
        """
        for index, name in ((0, "classifier.0"), (3, "classifier.3")):
            layer = self.get_submodule(str(index))
            weight = state[f"{name}.weight"].view(layer.get_parameter("weight").shape)
            layer.load_state_dict({"weight": weight, "bias": state[f"{name}.bias"]})


def to_multiple(images: Tensor, stride: int) -> Tensor:
    """(N, C, H, W) -> sides that the stride divides; zeros on the right and below."""
    below, right = -images.shape[2] % stride, -images.shape[3] % stride
    return F.pad(images, (0, right, 0, below)) if below or right else images


def fcn(
    backbone: str | FeatureMaps = "vgg16",
    num_classes: int = 21,
    *,
    finest: Finest = 8,
    fuse: Fusion = "sum",
    upsampling: Upsampling = "transposed",
    width: int = 4096,
) -> FCN:
    """An FCN with random weights, in training mode.

    Args:
        finest: stride of the finest scores: 8 builds FCN-8s.
        width: of fc6 and fc7, which VGG-16 has and the other trunks have not.
    """
    strides = [stride for stride in (8, 16, 32) if stride >= finest]
    maps = trunk(backbone, strides)
    channels = [maps.channels[stride] for stride in reversed(strides)]
    top: nn.Module = nn.Identity()
    if backbone == "vgg16":
        top, channels[0] = Fc6And7(channels[0], width), width
    skips = len(strides) - 1
    return FCN(
        maps,
        top,
        [classifier(depth, num_classes) for depth in channels],
        [learned_upsampling(upsampling, num_classes, 2) for _ in range(skips)],
        [Sum() if fuse == "sum" else Concatenate(num_classes) for _ in range(skips)],
        learned_upsampling(upsampling, num_classes, finest),
        num_classes,
    )
