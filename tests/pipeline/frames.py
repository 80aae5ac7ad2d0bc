"""Frames for tests."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from pipeline.frame import Frame


def frame_of(picture: av.VideoFrame, source: str = "a", index: int = 0) -> Frame:
    """A frame around a picture."""
    return Frame(picture, source, index, index, Fraction(1, 25), 0.0)


def blank(width: int, height: int, source: str = "a", index: int = 0) -> Frame:
    """A frame of which only the size matters."""
    return frame_of(av.VideoFrame(width, height, "yuv420p"), source, index)


def rgb_frame(image: np.ndarray, source: str = "a", index: int = 0) -> Frame:
    """A frame of an (H, W, 3) uint8 RGB picture, kept in RGB."""
    return frame_of(av.VideoFrame.from_ndarray(image, "rgb24"), source, index)
