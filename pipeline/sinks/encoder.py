"""An encoder: pictures in, packets out."""

from __future__ import annotations

import io
import logging
from collections import deque
from dataclasses import replace
from fractions import Fraction
from typing import cast

import av
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream

from pipeline.drawing.canvas_choice import canvas_for
from pipeline.errors import reason
from pipeline.frame import Result
from pipeline.gpu.memory import same_memory
from pipeline.gpu.pictures import is_on_gpu
from pipeline.placement import SQUARE
from pipeline.sinks.encoding import Encoding, tag
from pipeline.sinks.nvenc import NVENC
from pipeline.yuv import Colours, fitted, own_yuv420p, stamped

log = logging.getLogger(__name__)


def picture_of(result: Result, on_gpu: bool = False) -> av.VideoFrame:
    """What is to be seen of a result: the drawing, or a copy of the frame; yuv420p, even size.

    Args:
        on_gpu: Copy a frame that lies on a GPU there, as NV12.
    """
    if result.annotated is not None:
        return result.annotated
    frame = result.frame
    return stamped(canvas_for(frame, lambda _: on_gpu).picture(), frame.pts, frame.time_base)


def start(
    encoding: Encoding, picture: av.VideoFrame, time_base: Fraction
) -> tuple[OutputContainer, VideoStream]:
    """Open FFmpeg's encoder for pictures like the given one; `av.FFmpegError` if it refuses."""
    nowhere, stream = _prepared(encoding, picture, time_base)
    nowhere.start_encoding()
    return nowhere, stream


def start_on_gpu(
    encoding: Encoding, picture: av.VideoFrame, time_base: Fraction
) -> tuple[OutputContainer, VideoStream, list[av.Packet[VideoStream]]]:
    """The same for NVENC and pictures on the GPU, of which it encodes the first one.

    It opens with the first one because that says where the others lie; see `Own` for what else
    is asked of them.
    """
    nowhere, stream = _prepared(encoding, picture, time_base, on_gpu=True)
    packets = stream.encode(picture)
    nowhere.start_encoding()
    return nowhere, stream, packets


def _prepared(
    encoding: Encoding, picture: av.VideoFrame, time_base: Fraction, *, on_gpu: bool = False
) -> tuple[OutputContainer, VideoStream]:
    # PyAV copies the facts of a stream from another stream only: this one leads nowhere. NVENC
    # makes a context of CUDA of its own for pictures in main memory. PyAV could give it the shared
    # one (`hwaccel` of `add_stream`), but then it brings each picture to the GPU itself, with
    # Python's lock held, and fills the GPU's memory with 32 of them beforehand.
    nowhere = av.open(io.BytesIO(), "w", format="null")
    stream = cast(VideoStream, nowhere.add_stream(encoding.encoder, encoding.rate))
    size_hw = picture.height, picture.width
    encoding.configure(stream.codec_context, size_hw, time_base, on_gpu=on_gpu)
    tag(stream.codec_context, picture)
    stream.time_base = time_base
    return nowhere, stream


def _begun(
    encoding: Encoding, picture: av.VideoFrame, time_base: Fraction
) -> tuple[OutputContainer, VideoStream, Encoding]:
    """The encoder, or the one to take otherwise, and which it is."""
    try:
        return *start(encoding, picture, time_base), encoding
    except av.FFmpegError as error:
        if encoding.otherwise is None:
            raise
        size = f"{picture.width}x{picture.height}"
        why = f"{encoding.encoder} does not open for {size} now ({reason(error)})"
    # Most likely more sessions are open than the card allows.
    log.warning("%s; encoding with %s", why, encoding.otherwise.encoder)
    return _begun(replace(encoding.otherwise, why=why, refused=why), picture, time_base)


class Encoder:
    """Pictures in, packets out; where those go is decided packet by packet.

    The first picture decides size and colours, and `encoding` the shape of pixels; later pictures
    are fitted to them. There is one packet for each picture, in order: no encoding here has
    B-frames.

    Attributes:
        encoding: How it is encoded, after all.
        takes_gpu_pictures: Whether pictures on a GPU are encoded from there. If not, they are
            copied to main memory; and if so, others are copied to the GPU.

    Args:
        picture: The first picture, which is to be given to `encode` like all others.
        time_base: Seconds per unit of the packets' times.
        encoding: How to encode.
    """

    def __init__(self, picture: av.VideoFrame, time_base: Fraction, encoding: Encoding) -> None:
        self.size_hw = (picture.height, picture.width)
        self.colours = Colours.of(picture)
        self.time_base = time_base
        self.resized = 0
        self._times: deque[int] = deque()  # of pictures inside an encoder with a coarser clock
        self._last_pts: int | None = None
        self._clock = encoding.clock(time_base)
        self._early: list[av.Packet[VideoStream]] | None = None  # of the first picture
        self.takes_gpu_pictures = False
        self.encoding = encoding
        if is_on_gpu(picture) and encoding.encoder == NVENC:
            self._begin_on_gpu(picture)
        if not self.takes_gpu_pictures:
            self._nowhere, self._stream, self.encoding = _begun(self.encoding, picture, time_base)
            self._clock = self.encoding.clock(time_base)

    @property
    def template(self) -> VideoStream:
        """For `OutputContainer.add_stream_from_template`."""
        return self._stream

    def fits(self, picture: av.VideoFrame, pixel_hw: tuple[int, int] = SQUARE) -> bool:
        """Tell whether the picture, with pixels of that shape, can be encoded as it is."""
        same_size = (picture.height, picture.width) == self.size_hw
        return same_size and pixel_hw == self.encoding.pixel_hw

    def encode(
        self,
        picture: av.VideoFrame,
        pixel_hw: tuple[int, int] = SQUARE,
        *,
        keyframe: bool = False,
    ) -> list[av.Packet[VideoStream]]:
        """Encode a picture, which is not written to; return what falls out.

        Args:
            pixel_hw: The shape of its pixels, see `Frame`.
            keyframe: Make this a picture from which playing can begin.
        """
        if self._early is not None:  # it has been encoded when the encoder was opened
            early, self._early = self._early, None
            return early
        fits = self.fits(picture, pixel_hw)
        if not fits:
            self.resized += 1
        if not fits or Colours.of(picture) != self.colours:
            (high, wide), (unit_h, unit_w) = pixel_hw, self.encoding.pixel_hw
            shape = high / unit_h, wide / unit_w
            picture = fitted(picture, self.size_hw, self.colours, shape)
        elif is_on_gpu(picture) and not self.takes_gpu_pictures:
            picture = own_yuv420p(picture)
        timed = self._timed(picture, keyframe)
        return self._restored(self._stream.encode(timed))

    def flush(self) -> list[av.Packet[VideoStream]]:
        """What is still inside; nothing can be encoded afterwards."""
        return self._restored(self._stream.encode(None))

    def _begin_on_gpu(self, picture: av.VideoFrame) -> None:
        """Open NVENC for pictures where they lie, if it does."""
        timed = self._timed(picture, keyframe=True)
        why = "it takes pictures from the GPU's memory"
        try:
            opened = start_on_gpu(self.encoding, timed, self.time_base)
            self._nowhere, self._stream, self._early = opened
            self.takes_gpu_pictures = True
        except av.FFmpegError as error:
            self._last_pts = None
            why = f"pictures are copied to main memory, as it refuses the GPU's ({reason(error)})"
            log.info("%s: %s", self.encoding.encoder, why)
        self.encoding = replace(self.encoding, why=f"{self.encoding.why}; {why}")

    def _timed(self, picture: av.VideoFrame, keyframe: bool) -> av.VideoFrame:
        """The picture on our clock, later than the last one."""
        pts, time_base = picture.pts, picture.time_base
        assert pts is not None and time_base is not None, "pictures come with their time"
        placed = pts if time_base == self.time_base else round(pts * time_base / self.time_base)
        if self._last_pts is not None and placed <= self._last_pts:
            placed = self._last_pts + 1
        self._last_pts = placed
        if self._clock != self.time_base:
            self._times.append(placed)
            placed = round(placed * self.time_base / self._clock)
        if (placed, self._clock) == (pts, time_base) and not keyframe:
            return picture
        own = same_memory(picture) if is_on_gpu(picture) else own_yuv420p(picture)
        own = stamped(own, placed, self._clock)
        own.pict_type = PictureType.I if keyframe else PictureType.NONE
        return own

    def _restored(self, packets: list[av.Packet[VideoStream]]) -> list[av.Packet[VideoStream]]:
        """The packets with the exact times of their pictures."""
        for packet in packets:
            if self._times:
                packet.pts = packet.dts = self._times.popleft()
                packet.duration = round((packet.duration or 0) * self._clock / self.time_base)
                packet.time_base = self.time_base
        return packets
