"""Decoded pictures as planes of numbers: their colours, copies, and other shapes of them.

A picture states how its YUV numbers mean colours (matrix and range), or leaves it open. What
it leaves open is settled here once, in the way players do, and made explicit in every copy.

Pictures that a decoder gave are never written to: they may be what the next ones refer to.
Those that it left on a GPU are copied to main memory first, each time: see `Frame.in_memory`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.gpu.pictures import in_memory
from pipeline.placement import SQUARE

Plane = npt.NDArray[np.uint8]
"""(rows, columns) uint8: a view of a picture's buffer without the padding of its lines."""

UNSPECIFIED = 2  # of FFmpeg's AVColorSpace, AVColorPrimaries and AVColorTransferCharacteristic
LIMITED, FULL = 1, 2  # of FFmpeg's AVColorRange

_LUMA_WEIGHTS = {  # AVColorSpace -> weights of red and blue (ITU-T H.273, table 4)
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),  # BT.2020 with constant luminance, which swscale takes for the other
}
_SWSCALE_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # swscale numbers them on its own
_BT601_625 = 5
_TRANSFERS = {1, *range(4, 9), *range(11, 19)}  # those that swscale knows; it refuses others
_PRIMARIES = {1, *range(4, 13), 22}
_PLANAR_420 = {"yuv420p", "yuvj420p"}

# Its short way from BGR, which OpenCV's and Windows' pictures are in, makes all darker and greener:
# white becomes 251, 253, 250.
_ACCURATE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND


@dataclass(frozen=True)
class Colours:
    """What the YUV numbers of a picture mean.

    Attributes:
        matrix: FFmpeg's AVColorSpace; one of those whose luma weights are known here.
        full_range: Luma from 0 to 255 instead of 16 to 235.
    """

    matrix: int
    full_range: bool

    @classmethod
    def of(cls, picture: av.VideoFrame) -> Colours:
        """As tagged; else by the size, as players guess: BT.601 up to 576 lines, then BT.709."""
        matrix = picture.colorspace
        if matrix not in _LUMA_WEIGHTS:
            high_definition = picture.height > 576 or picture.width >= 1280
            matrix = 1 if high_definition else 6
        name = picture.format.name
        if _is_rgb(picture):  # what becomes of it as YUV is ours to choose
            return cls(matrix, full_range=False)
        born_full = name.startswith(("yuvj", "gray", "ya8", "ya16"))
        tagged = picture.color_range in (LIMITED, FULL)
        full_range = picture.color_range == FULL if tagged else born_full
        return cls(matrix, full_range or name.startswith("yuvj"))

    @property
    def range(self) -> int:
        """FFmpeg's AVColorRange."""
        return FULL if self.full_range else LIMITED

    @property
    def swscale_matrix(self) -> int:
        """Swscale's number of the matrix."""
        return _SWSCALE_MATRIX[self.matrix]

    @property
    def luma_weights(self) -> tuple[float, float]:
        """Those of red and blue; green has the rest of 1."""
        return _LUMA_WEIGHTS[self.matrix]

    @property
    def black(self) -> tuple[int, int, int]:
        """Black as Y, U, V."""
        return (0 if self.full_range else 16), 128, 128

    def yuv(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        """Y, U, V of a colour whose red, green and blue run from 0 to 255 (H.273, 8.3)."""
        kr, kb = self.luma_weights
        red, green, blue = (channel / 255 for channel in rgb)
        y = kr * red + (1 - kr - kb) * green + kb * blue
        u, v = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
        offset, luma, chroma = (0, 255, 255) if self.full_range else (16, 219, 224)
        return (
            round(offset + luma * y),
            min(255, round(128 + chroma * u)),
            min(255, round(128 + chroma * v)),
        )

    def tag(self, picture: av.VideoFrame) -> None:
        """Write the meaning into a picture of our own."""
        picture.colorspace = self.matrix
        picture.color_range = self.range


def planes(picture: av.VideoFrame) -> list[Plane]:
    """The planes of a picture with 8 bits a sample; views, not copies."""
    views = []
    for plane in picture.planes:
        rows = _lines(plane)
        views.append((rows if plane.line_size > 0 else rows[::-1])[:, : plane.width])
    return views


def own_yuv420p(picture: av.VideoFrame) -> av.VideoFrame:
    """Return a copy that may be written to: 8-bit yuv420p, even size, colours tagged.

    An odd width or height grows by one column or row, which repeats the last one, so nothing is
    lost and boxes stay where they are. Presentation time and duration are the same.
    """
    picture = in_memory(picture)
    if picture.format.name not in _PLANAR_420:
        converted = _converted(picture, "yuv420p", Colours.of(picture))
        if converted.width % 2 == 0 and converted.height % 2 == 0:
            return converted
        picture = converted
    width, height = picture.width, picture.height
    copy = av.VideoFrame(width + width % 2, height + height % 2, "yuv420p")
    for target, source in zip(planes(copy), planes(picture), strict=True):
        rows, columns = source.shape
        target[:rows, :columns] = source
        target[rows:, :columns] = source[-1]
        target[:, columns:] = target[:, columns - 1 : columns]
    label_like(copy, picture, Colours.of(picture))
    return copy


def to_bgr(picture: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 blue, green, red, as OpenCV wants it."""
    picture = in_memory(picture)
    colours = Colours.of(picture)
    if picture.format.name == "nv12":  # swscale has a quick way to BGR from planes only
        picture = _converted(picture, "yuv420p", colours)
    converted = _reformat(
        picture,
        format="bgr24",
        src_colorspace=None if _is_rgb(picture) else colours.swscale_matrix,
        src_color_range=range_of(picture, colours),
        dst_color_range=FULL,
    )
    plane = converted.planes[0]
    return _lines(plane)[:, : plane.width * 3].reshape(plane.height, plane.width, 3)


def fitted(
    picture: av.VideoFrame,
    size_hw: tuple[int, int],
    colours: Colours,
    pixel_hw: tuple[float, float] = SQUARE,
) -> av.VideoFrame:
    """Return the whole picture, scaled and centred on black, as yuv420p of `size_hw` (even).

    Args:
        pixel_hw: How high and wide a pixel of the picture is in pixels of the result; only their
            ratio counts.
    """
    picture = in_memory(picture)
    height, width = size_hw
    shown_h, shown_w = picture.height * pixel_hw[0], picture.width * pixel_hw[1]
    ratio = min(height / shown_h, width / shown_w)
    inner_h = min(height, max(2, 2 * round(shown_h * ratio / 2)))
    inner_w = min(width, max(2, 2 * round(shown_w * ratio / 2)))
    scaled = _converted(picture, "yuv420p", colours, (inner_h, inner_w))
    canvas = av.VideoFrame(width, height, "yuv420p")
    top, left = (height - inner_h) // 4 * 2, (width - inner_w) // 4 * 2
    parts = zip(planes(canvas), planes(scaled), colours.black, (1, 2, 2), strict=True)
    for target, source, black, step in parts:
        target[:] = black
        y, x = top // step, left // step
        target[y : y + source.shape[0], x : x + source.shape[1]] = source
    label_like(canvas, picture, colours)
    return canvas


def stamped(picture: av.VideoFrame, pts: int, time_base: Fraction) -> av.VideoFrame:
    """Give a picture of our own this presentation time, and keep how long it lasts."""
    if picture.duration and picture.time_base and picture.time_base != time_base:
        picture.duration = round(picture.duration * picture.time_base / time_base)
    picture.pts, picture.time_base = pts, time_base
    return picture


def _lines(plane: VideoPlane) -> Plane:
    """(rows, bytes) view of a plane, with the padding of its lines."""
    samples = np.frombuffer(cast("memoryview[int]", plane), np.uint8)
    return samples.reshape(plane.height, abs(plane.line_size))


_of_thread = threading.local()


def _reformat(picture: av.VideoFrame, **options: Any) -> av.VideoFrame:
    """Convert by swscale, with a context that is kept for the thread: making one is dear."""
    if not hasattr(_of_thread, "reformatter"):
        _of_thread.reformatter = VideoReformatter()
    return reformatted(picture, _of_thread.reformatter, **options)


def reformatted(
    picture: av.VideoFrame, reformatter: VideoReformatter, **options: Any
) -> av.VideoFrame:
    """Convert by swscale on this thread, and leave alone the tags of a picture that others hold.

    PyAV takes those of light off a picture while it converts, and puts back what it has found: of
    two threads that convert one picture the second may find nothing. Those that the result shall
    have, too, it leaves where they are; no pixel depends on it.

    Args:
        options: As PyAV's reformatter knows them, besides those of light and of threads.

    Raises:
        av.FFmpegError: Nothing can convert this pixel format.
    """
    transfer, primaries = picture.color_trc, picture.color_primaries
    if picture.colorspace == _BT601_625:
        options["src_colorspace"] = UNSPECIFIED  # as tagged; PyAV would tag it as 525 lines
    return reformatter.reformat(
        picture,
        dst_color_trc=transfer if transfer in _TRANSFERS else UNSPECIFIED,
        dst_color_primaries=primaries if primaries in _PRIMARIES else UNSPECIFIED,
        threads=1,  # the cores are busy with decoding and inference
        **options,
    )


@cache
def can_be_converted(pixel_format: str) -> bool:
    """Whether swscale reads pictures of that format; tried once on a small one."""
    try:
        reformatted(av.VideoFrame(16, 16, pixel_format), VideoReformatter(), format="gbrp")
    except (av.FFmpegError, ValueError):
        return False
    return True


def range_of(picture: av.VideoFrame, colours: Colours) -> int:
    """FFmpeg's AVColorRange of a picture's own numbers, be they YUV of those colours or RGB."""
    return FULL if _is_rgb(picture) else colours.range


def _is_rgb(picture: av.VideoFrame) -> bool:
    return picture.format.is_rgb or picture.format.has_palette


def _converted(
    picture: av.VideoFrame, form: str, colours: Colours, size_hw: tuple[int, int] | None = None
) -> av.VideoFrame:
    """The picture in another pixel format, other colours or another size; a buffer of its own."""
    height, width = size_hw or (picture.height, picture.width)
    source = Colours.of(picture)
    converted = _reformat(
        picture,
        width=width,
        height=height,
        format=form,
        src_colorspace=None if _is_rgb(picture) else source.swscale_matrix,
        dst_colorspace=colours.swscale_matrix,
        src_color_range=range_of(picture, source),
        dst_color_range=colours.range,
        interpolation=_ACCURATE if picture.format.name == "bgr24" else None,
    )
    if converted is picture:  # nothing to do, says swscale, and hands out the decoder's buffer
        return own_yuv420p(picture)
    label_like(converted, picture, colours)
    return converted


def label_like(copy: av.VideoFrame, original: av.VideoFrame, colours: Colours) -> None:
    """Copy what is true of both; the type of picture (I, P, B) is not, and would bind encoders."""
    copy.pts, copy.duration = original.pts, original.duration
    if original.time_base is not None:
        copy.time_base = original.time_base
    copy.color_primaries, copy.color_trc = original.color_primaries, original.color_trc
    copy.pict_type = 0
    colours.tag(copy)
