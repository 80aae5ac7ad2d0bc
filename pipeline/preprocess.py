"""Bring decoded frames to the network's size and colour, in one step.

The picture goes straight from the decoder's YUV planes to RGB at the final size: one swscale
call a frame, on one thread, and one pass that weaves its planes into the batch. Which matrix and
range the YUV numbers are meant in is read from each frame, because a wrong guess shifts every
colour by some percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.errors import SourceError, reason
from pipeline.frame import Batch, Frame
from pipeline.gpu.pictures import is_on_gpu
from pipeline.model_file.reading import Fit
from pipeline.placement import PADDING, Placement
from pipeline.yuv import Colours, range_of, reformatted

# Area averaging costs what bilinear does and detects as well as anything slower; fast bilinear
# costs about 1 point of AP.
INTERPOLATION = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

# Planes of green, blue and red: the same numbers as "rgb24", for which swscale has no vector code
# at this quality. With the merge 0.7 ms instead of 1.4 from 960x540 to 320x569.
_PLANAR_RGB = "gbrp"

_MOST_REFORMATTERS = 64


def preprocess(
    groups: Iterable[list[Frame]],
    usual_hw: tuple[int, int],
    fit: Fit,
    other_hw: Callable[[], tuple[int, int] | None] = lambda: None,
) -> Iterator[Batch]:
    """Turn groups of frames into batches of (N, H, W, 3) uint8 RGB at the network's input size.

    Every batch has an array of its own: the engine may still read the one before. Where all
    pictures of a group lie on a GPU, that GPU makes the images, and they stay there.

    Args:
        groups: Frames for one call of the engine each.
        usual_hw: The size of the input.
        fit: How a frame is brought to it.
        other_hw: Asked before each batch: the size to use instead, if any.

    Raises:
        SourceError: A picture is in a pixel format that cannot be converted.
    """
    # Frames of one shape lie alike: their placements are one object, with what it has worked out.
    place = lru_cache(64)({"letterbox": Placement.letterbox, "stretch": Placement.stretch}[fit])
    # One for each source: a reformatter sets itself up anew whenever size or format change. Those
    # of sources that have left would cost 140 kB each.
    reformatter = lru_cache(_MOST_REFORMATTERS)(lambda _source: VideoReformatter())
    for group in groups:
        input_hw = other_hw() or usual_hw
        placements = tuple(place(frame.size_hw, input_hw, frame.pixel_hw) for frame in group)
        if all(is_on_gpu(frame.picture) for frame in group):
            yield _batch_on_gpu(group, placements, input_hw)
            continue
        images = np.empty((len(group), *input_hw, 3), np.uint8)
        for image, frame, placement in zip(images, group, placements, strict=True):
            _paste(image, frame, placement, reformatter(frame.source))
        yield Batch(tuple(group), images, placements)


def _batch_on_gpu(
    group: list[Frame], placements: tuple[Placement, ...], input_hw: tuple[int, int]
) -> Batch:
    from pipeline.gpu.preprocess import images_on_gpu

    return Batch(tuple(group), images_on_gpu(group, placements, input_hw), placements)


def _paste(
    image: npt.NDArray[np.uint8],
    frame: Frame,
    placement: Placement,
    reformatter: VideoReformatter,
) -> None:
    """Scale and convert `frame` into its place in `image` (H, W, 3)."""
    (top, left), (height, width) = placement.top_left, placement.scaled_hw
    picture = frame.in_memory
    colours = Colours.of(picture)  # a guess where the picture says nothing
    try:
        scaled = reformatted(
            picture,
            reformatter,
            width=width,
            height=height,
            format=_PLANAR_RGB,
            src_colorspace=colours.swscale_matrix,
            dst_colorspace=colours.swscale_matrix,
            src_color_range=range_of(picture, colours),
            interpolation=INTERPOLATION,
        )
    except (av.FFmpegError, ValueError) as error:
        raise SourceError(
            f"{frame.source}: frame {frame.index} in pixel format {picture.format.name} "
            f"cannot be converted to RGB ({reason(error)}); re-encode it as yuv420p"
        ) from error
    green, blue, red = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, :width]
        for plane in scaled.planes
    )
    cv2.merge((red, green, blue), image[top : top + height, left : left + width])
    # Only the bars are filled: filling all of it first would move every pixel once more.
    image[:top], image[top + height :] = PADDING, PADDING
    image[:, :left], image[:, left + width :] = PADDING, PADDING
