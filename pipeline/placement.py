"""Where a frame lies in the network's input, and the way of boxes there and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

PADDING = 114  # grey of the letterbox bars, as in training
SQUARE = (1, 1)
"""Height and width of a pixel that is as high as it is wide."""


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the network's input; one object maps forth and back.

    ``x_input = x_frame * scaled_w / frame_w + left`` and likewise for y.

    Attributes:
        frame_hw: Size of the frame in pixels.
        input_hw: Size of the network's input in pixels.
        scaled_hw: Size of the frame's picture inside the input, in whole pixels.
        top_left: Row and column of the picture's corner inside the input.
    """

    frame_hw: tuple[int, int]
    input_hw: tuple[int, int]
    scaled_hw: tuple[int, int]
    top_left: tuple[int, int]

    @classmethod
    def letterbox(
        cls,
        frame_hw: tuple[int, int],
        input_hw: tuple[int, int],
        pixel_hw: tuple[int, int] = SQUARE,
    ) -> Placement:
        """Keep the aspect ratio, centre the picture, leave bars.

        Args:
            pixel_hw: Height and width of the frame's pixels; those of the input are square.
        """
        shown_hw = frame_hw[0] * pixel_hw[0], frame_hw[1] * pixel_hw[1]
        ratio = min(input_hw[0] / shown_hw[0], input_hw[1] / shown_hw[1])
        scaled = tuple(
            min(limit, max(1, round(side * ratio)))
            for side, limit in zip(shown_hw, input_hw, strict=True)
        )
        top, left = ((limit - side) // 2 for side, limit in zip(scaled, input_hw, strict=True))
        return cls(frame_hw, input_hw, (scaled[0], scaled[1]), (top, left))

    @classmethod
    def stretch(
        cls,
        frame_hw: tuple[int, int],
        input_hw: tuple[int, int],
        _pixel_hw: tuple[int, int] = SQUARE,
    ) -> Placement:
        """Fill the whole input, whatever becomes of the aspect ratio."""
        return cls(frame_hw, input_hw, input_hw, (0, 0))

    def to_input(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, 4) boxes in frame pixels -> (N, 4) in input pixels."""
        return (boxes * self._scale + self._shift).astype(np.float32)

    def to_frame(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(N, 4) boxes in input pixels -> (N, 4) in frame pixels, clipped to the frame."""
        height, width = self.frame_hw
        placed = (boxes - self._shift) / self._scale
        limit = np.array([width, height, width, height], np.float32)
        return np.clip(placed, 0, limit).astype(np.float32)

    @cached_property
    def _scale(self) -> npt.NDArray[np.float64]:
        y, x = (s / f for s, f in zip(self.scaled_hw, self.frame_hw, strict=True))
        return np.array([x, y, x, y])

    @cached_property
    def _shift(self) -> npt.NDArray[np.float64]:
        top, left = self.top_left
        return np.array([left, top, left, top], np.float64)
