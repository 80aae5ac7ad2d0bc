"""Pixels that are not square: what analogue cameras, DVDs and DV tapes have."""

from __future__ import annotations

from fractions import Fraction

import av
from av.video.stream import VideoStream

from pipeline.placement import SQUARE
from pipeline.sources.gpu_decoder import Context

_MOST = 4  # times as wide as high, or as high as wide; what says more is nonsense


class PixelShape:
    """Tells the shape of one stream's pixels from picture to picture; see `Frame.pixel_hw`.

    Container and codec may both say it. Where they say different things, the container is right,
    as for players; else the codec is followed, in which it may change on the way, and then does so
    with a keyframe.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._hw = _sane(stream.sample_aspect_ratio)
        self._may_change = self._hw == _sane(stream.codec_context.sample_aspect_ratio)

    def of(self, picture: av.VideoFrame, decoder: Context) -> tuple[int, int]:
        """That of a picture which its decoder has just given; all are to be shown to this."""
        if self._may_change and picture.key_frame:
            self._hw = _sane(decoder.sample_aspect_ratio)
        return self._hw


def _sane(width_to_height: Fraction | None) -> tuple[int, int]:
    """Height and width, which are 1 and 1 where nothing sensible is said."""
    if width_to_height is None or not Fraction(1, _MOST) <= width_to_height <= _MOST:
        return SQUARE
    return width_to_height.denominator, width_to_height.numerator
