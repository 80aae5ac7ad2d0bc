"""Pictures for browsers.

By way of BGR and OpenCV, not straight from YUV by FFmpeg's encoder: JPEG wants full-range
BT.601, so either way every pixel is converted, and OpenCV's encoder takes a third of the time.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.frame import Result
from pipeline.yuv import to_bgr

QUALITY = 80  # of what the page shows, 0 to 100
SNAPSHOT_QUALITY = 95


def to_jpeg(result: Result, widest: int | None = None) -> bytes:
    """The picture with its drawing, in the shape in which it is meant to be seen.

    Args:
        result: One result.
        widest: Pixels to which a wider picture is scaled down; None: as it is, in high quality.
    """
    return _encoded(_shown(result, widest), SNAPSHOT_QUALITY if widest is None else QUALITY)


def no_signal(result: Result | None, sentence: str) -> bytes:
    """The last picture, darkened, or black without one, with a sentence across it."""
    picture = _shown(result) // 3 if result else np.zeros((360, 640, 3), np.uint8)
    height, width = picture.shape[:2]
    scale = width / 640
    origin, thickness = (round(20 * scale), height // 2), max(1, round(2 * scale))
    font = cv2.FONT_HERSHEY_SIMPLEX
    written = cv2.putText(
        picture, sentence, origin, font, scale, (255, 255, 255), thickness, cv2.LINE_AA
    )
    return _encoded(written.astype(np.uint8), QUALITY)


def _shown(result: Result, widest: int | None = None) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR of square pixels, without the padding that drawing may have added."""
    (height, width), (unit_h, unit_w) = result.frame.size_hw, result.frame.pixel_hw
    picture = to_bgr(result.annotated or result.frame.in_memory)[:height, :width]
    # A JPEG cannot say what its pixels are like; the side that is too short is stretched.
    shown_w, shown_h = width * max(1.0, unit_w / unit_h), height * max(1.0, unit_h / unit_w)
    ratio = min(1.0, widest / shown_w) if widest else 1.0
    size_wh = max(1, round(shown_w * ratio)), max(1, round(shown_h * ratio))
    if size_wh == (width, height):
        return picture
    shrinks = size_wh[0] <= width and size_wh[1] <= height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, size_wh, interpolation=how).astype(np.uint8)


def _encoded(picture: npt.NDArray[np.uint8], quality: int) -> bytes:
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"cannot encode a picture of {picture.shape[1]}x{picture.shape[0]}")
    return data.tobytes()
