"""What of a detector depends on nothing but the size of its frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.anchors import AnchorGrid
from models.boxes import SizeHW


@dataclass(frozen=True)
class Resize:
    """The largest size whose sides stay below these, at the frame's aspect (torchvision's rule)."""

    short_pixels: int
    long_pixels: int

    def __call__(self, frame_hw: SizeHW) -> SizeHW:
        """(height, width) of the network's image for this frame, without padding."""
        scale = min(self.short_pixels / min(frame_hw), self.long_pixels / max(frame_hw))
        return int(frame_hw[0] * scale), int(frame_hw[1] * scale)


class FrameSize(nn.Module):
    """All that depends on the frames' size only: how to fit them, and the anchors."""

    def __init__(self, frame_hw: SizeHW, image_hw: SizeHW, padded_hw: SizeHW) -> None:
        super().__init__()
        self.frame_hw = frame_hw
        self.image_hw = image_hw
        self.padded_hw = padded_hw
        self.num_levels = 0

    def set_anchors(self, anchors: Sequence[Tensor]) -> None:
        """Keeps them as constants of the graph that are no weights."""
        self.num_levels = len(anchors)
        for level, boxes in enumerate(anchors):
            self.register_buffer(f"anchors{level}", boxes, persistent=False)

    @property
    def anchors(self) -> list[Tensor]:
        """Per level (n_l, 4)."""
        return [getattr(self, f"anchors{level}") for level in range(self.num_levels)]

    def fit(self, images: Tensor) -> Tensor:
        """(N, 3, *frame_hw) -> (N, 3, *padded_hw): resized, zeros on the right and below."""
        if self.image_hw != self.frame_hw:
            images = F.interpolate(images, size=self.image_hw, mode="bilinear", align_corners=False)
        below = self.padded_hw[0] - self.image_hw[0]
        right = self.padded_hw[1] - self.image_hw[1]
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def to_frame(self, boxes: Tensor) -> Tensor:
        """(..., 4) in pixels of the image -> pixels of the frame."""
        if self.image_hw == self.frame_hw:
            return boxes
        (frame_h, frame_w), (image_h, image_w) = self.frame_hw, self.image_hw
        return boxes * boxes.new_tensor([frame_w / image_w, frame_h / image_h] * 2)


def frame_size(
    frame_hw: SizeHW,
    resize: Resize | None,
    backbone: Callable[[Tensor], Sequence[Tensor]],
    anchor_grid: AnchorGrid,
) -> FrameSize:
    """What frames of this size need; runs the backbone once, to see the sizes of its maps."""
    image_hw = frame_hw if resize is None else resize(frame_hw)
    padded_hw = (-(-image_hw[0] // 32) * 32, -(-image_hw[1] // 32) * 32)
    size = FrameSize(frame_hw, image_hw, padded_hw)
    with torch.no_grad():
        example = next(backbone.parameters())  # type: ignore[attr-defined]  # a module
        features = backbone(example.new_zeros(1, 3, *padded_hw))
    size.set_anchors(anchors_on(anchor_grid, features, padded_hw))
    return size


def anchors_on(grid: AnchorGrid, features: Sequence[Tensor], padded_hw: SizeHW) -> list[Tensor]:
    """Per level (n_l, 4) float32 in pixels of the padded image, on the features' device."""
    maps_hw = [(level.shape[2], level.shape[3]) for level in features]
    return [boxes.to(features[0].device) for boxes in grid(maps_hw, padded_hw)]


def prepared_for(size: FrameSize | None, frames: Tensor) -> FrameSize:
    """The size that a network was prepared for.

    Raises:
        ValueError: it was prepared for none, or for another than that of ``frames``
            (N, H, W, 3).
    """
    if size is None or tuple(frames.shape[1:3]) != size.frame_hw:
        wanted = None if size is None else size.frame_hw
        raise ValueError(
            f"prepared for frames of {wanted}, got {tuple(frames.shape[1:3])}; "
            "call prepare(frame_hw) first"
        )
    return size
