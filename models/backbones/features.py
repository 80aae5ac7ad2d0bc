"""What every trunk promises: feature maps by stride.

    backbone = mobilenet_v2(strides=(8, 16, 32))
    backbone(images)       # (N, 3, H, W) -> {8: (N, 32, H/8, W/8), 16: ..., 32: ...}
    backbone.channels      # {8: 32, 16: 96, 32: 320}

The layers are torchvision's and keep their names, so a classifier's state dict loads
(:func:`load_classifier`). Sides that the stride does not divide are rounded as the layers do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.backbones.pyramid import PyramidBackbone, TappedTrunk


class FeatureMaps(nn.Module):
    """A trunk that gives the maps that were asked for.

    Attributes:
        body: the layers, by torchvision's names, up to the last map.
        channels: depth of each map, by its stride in pixels.
    """

    def __init__(
        self,
        trunk: nn.Module,
        taps: Mapping[int, tuple[str, int]],
        strides: Sequence[int],
        prefix: str,
    ) -> None:
        """
        Args:
            trunk: torchvision's network; its children are called one after the other.
            taps: stride -> name of the child whose output has it, and its channels.
            strides: the maps that are wanted.
            prefix: what stands before the children's names in a classifier's state dict.

        Raises:
            ValueError: the trunk has no map of such a stride.
        """
        super().__init__()
        if unknown := [stride for stride in strides if stride not in taps]:
            known = ", ".join(map(str, taps))
            raise ValueError(f"this trunk has maps of strides {known}; asked for {unknown}")
        self.strides = tuple(sorted(strides))
        self.channels = {stride: taps[stride][1] for stride in self.strides}
        self.body = TappedTrunk(trunk, [taps[stride][0] for stride in self.strides])
        self.prefix = prefix

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(N, 3, H, W) normalised -> stride in pixels -> (N, C, about H/stride, W/stride)."""
        return dict(zip(self.strides, self.body(images), strict=True))


class SingleMap(nn.Module):
    """A trunk with one map as a pyramid of one level, for detectors made for pyramids.

    Attributes:
        body: its layers, by torchvision's names.
        stride: of the map, in pixels.
        out_channels: its depth.
    """

    def __init__(self, trunk: FeatureMaps) -> None:
        """Raises ValueError for a trunk of several maps."""
        super().__init__()
        if len(trunk.strides) != 1:
            raise ValueError(f"a single map is wanted, the trunk has {len(trunk.strides)}")
        (self.stride,) = trunk.strides
        self.out_channels = trunk.channels[self.stride]
        self.body, self.prefix = trunk.body, trunk.prefix

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) normalised -> the one map (N, C, about H/stride, W/stride), in a list."""
        return self.body(images)


def load_classifier(
    backbone: FeatureMaps | SingleMap | PyramidBackbone, state: Mapping[str, Tensor]
) -> None:
    """Start a trunk from the state dict of torchvision's classifier of the same name.

    Raises:
        RuntimeError: a weight of the trunk is missing in ``state`` or has another shape.
    """
    wanted = backbone.body.state_dict().keys()
    given = {name.removeprefix(backbone.prefix): value for name, value in state.items()}
    backbone.body.load_state_dict({name: given[name] for name in wanted if name in given})
