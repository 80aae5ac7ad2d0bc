"""What of a detector depends on nothing but the size of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

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
