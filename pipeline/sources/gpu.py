"""Decoding on an NVIDIA GPU: whether there is one, and for which streams it is taken.

FFmpeg reads the stream as it does in software, and hands the data of each picture to the chip
(NVDEC). What comes back is copied to main memory, as NV12, or as P010 and its like with more than
8 bits, which the line takes as they are: they cost it no more than planes that lie apart. Or it
stays where it is, for an engine on the same GPU, and for as long as nobody here asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import cast

import av
import av.logging
from av.codec.context import Flags
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.errors import ConfigError, reason
from pipeline.ffmpeg_log import ffmpeg_log, first_of
from pipeline.gpu.driver import DECODES, share_primary_context, trouble_of_library
from pipeline.gpu.pictures import enter_shared_context
from pipeline.settings import DecoderName
from pipeline.sources.gpu_decoder import GpuDecoder, NotOnGpu, Trial, Verdict
from pipeline.sources.opening import open_bound

# What cameras and recordings are in, and chips have decoded for years. The others are cheap in
# software, rare, or (AV1) decoded by a library that knows no GPU.
CODECS = ("h264", "hevc", "vp9")

# Pictures of a recording, from which on it is worth the half second or so that a context of CUDA
# and a decoder in it take to be made; taken from what others report, not measured.
SHORTEST = 150

# Contexts of CUDA take memory and turns. The shared one cannot be had if somebody has set it up in
# another way, see `share_primary_context`; then each decoder has its own, of some hundred MB.
_CONTEXTS: tuple[dict[str, str], ...] = ({"primary_ctx": "1"}, {})

_ELSEWHERE = "its decoder has no place in the CUDA context of the engine"

# Memory of one context is nothing in another. torch works in the shared one. Where FFmpeg does not
# take it by its name, it takes it as the one that the thread is in.
_SHARED: tuple[dict[str, str], ...] = (
    {"primary_ctx": "1"},
    {"current_ctx": "1", "primary_ctx": "0"},
)


@cache
def trouble_of_gpu() -> str | None:
    """Why no GPU can decode here; None if FFmpeg opens one. Asked once; loads no CUDA in vain.

    Where one opens, the context that all share is set up for FFmpeg: nobody works in it yet.
    """
    if why := _trouble_of_opening():
        return why
    share_primary_context()
    return trouble_of_library(DECODES)


def _trouble_of_opening() -> str | None:
    if "cuda" not in hwdevices_available():
        return "this FFmpeg was built without CUDA"
    with ffmpeg_log(av.logging.ERROR) as lines:
        try:
            av.CodecContext.create("h264", "r", hwaccel=HWAccel("cuda"))
        except (av.FFmpegError, NotImplementedError) as error:
            return f"no NVIDIA GPU can be opened ({first_of(lines) or reason(error)})"
    return None


class GpuDecoding:
    """Opens decoders on the GPU for all sources of a run, and remembers for what they pay.

    Args:
        decoder: What the user has asked for.
        shortest: Recordings of fewer pictures are left to software, unless the GPU was asked for.

    Raises:
        ConfigError: The GPU was asked for, and there is none.
    """

    def __init__(self, decoder: DecoderName = "auto", shortest: int = SHORTEST) -> None:
        self._shortest = shortest
        self._measures = decoder == "auto"
        self._why_not = "as asked for" if decoder == "software" else self._trouble()
        self._verdicts: dict[tuple[str, int, int], Verdict] = {}
        self._stay, self._why_copied = False, ""
        if decoder == "cuda" and self._why_not:
            raise ConfigError(
                f"decoder: cuda was asked for, but {self._why_not}; look at nvidia-smi, start the "
                "container with its GPUs and the video capability "
                "(NVIDIA_DRIVER_CAPABILITIES=compute,video,utility), or write auto"
            )

    def keep_pictures(self, trouble: Callable[[], str | None]) -> None:
        """Have pictures of decoders that are opened from now on stay in the GPU's memory.

        Args:
            trouble: Why they cannot be taken from there; asked only if a GPU decodes at all.
        """
        if not self._why_not:
            why = trouble()
            self._stay, self._why_copied = why is None, why or _ELSEWHERE

    def of_file(self, path: Path, stream: VideoStream, pictures: int | None = None) -> GpuDecoder:
        """A decoder for the same stream of the same file, opened once more; or `NotOnGpu`.

        Args:
            pictures: How many there are, about; None if that is not known.
        """
        if self._measures and not self._why_not and pictures and pictures < self._shortest:
            raise NotOnGpu("it is too short for a GPU's decoder to be made")

        def in_software() -> VideoCodecContext:
            context = open_bound(path, stream.index, None)
            context.thread_count = 1
            return context

        return self._decoder(stream, lambda: self._context_of_file(path, stream), in_software)

    def of_camera(self, stream: VideoStream) -> GpuDecoder:
        """A decoder that begins with a keyframe of the stream; or `NotOnGpu`."""
        return self._decoder(
            stream,
            lambda: self._context_of_camera(stream),
            lambda: fresh_context(stream.codec_context, None),
        )

    def _decoder(
        self,
        stream: VideoStream,
        bound: Callable[[], VideoCodecContext],
        in_software: Callable[[], VideoCodecContext],
    ) -> GpuDecoder:
        codec, kind = stream.codec_context.codec.name, _kind(stream)
        if self._why_not:
            raise NotOnGpu(self._why_not)
        if codec not in CODECS:
            raise NotOnGpu(f"{codec} is left to software")
        known = self._verdicts.get(kind) if self._measures else None
        if known and not known.pays:
            raise NotOnGpu(known.words)
        context = bound()
        context.flags |= Flags.output_corrupt  # hand damaged pictures over, so they are counted
        context.thread_count = 1  # more would only wait for one another
        decoder = partial(GpuDecoder, context, why_copied=self._why_copied)
        if not self._measures:
            return decoder(words="as asked for", is_wanted=True)
        if known:
            return decoder(words=known.words)
        told = self._verdicts.__setitem__
        return decoder(
            Trial(in_software), lambda verdict: told(kind, verdict), words="not measured yet"
        )

    # What tests replace: all that needs a GPU.

    def _trouble(self) -> str | None:
        return trouble_of_gpu()

    def _context_of_file(self, path: Path, stream: VideoStream) -> VideoCodecContext:
        return _first_that_opens(
            lambda accelerator: open_bound(path, stream.index, accelerator), self._stay
        )

    def _context_of_camera(self, stream: VideoStream) -> VideoCodecContext:
        return _first_that_opens(
            lambda accelerator: fresh_context(stream.codec_context, accelerator), self._stay
        )


def fresh_context(like: VideoCodecContext, accelerator: HWAccel | None) -> VideoCodecContext:
    """Another decoder of the same codec, which knows what the container says of the stream."""
    fresh = cast(VideoCodecContext, av.CodecContext.create(like.codec, "r", hwaccel=accelerator))
    fresh.extradata = like.extradata
    fresh.thread_count = 1
    return fresh


def _first_that_opens(
    bound: Callable[[HWAccel], VideoCodecContext], stay: bool
) -> VideoCodecContext:
    why = "it has no decoder for this"
    for accelerator in _accelerators(stay):
        try:
            context = bound(accelerator)
        except av.FFmpegError as error:
            why = reason(error)
            continue
        if context.is_hwaccel:
            return context
    raise NotOnGpu(f"its decoder cannot be opened ({why})", is_failure=True)


def _accelerators(stay: bool) -> Iterator[HWAccel]:
    """In the order in which they are to be tried; pictures `stay` where torch could read them."""
    for options in _SHARED if stay and enter_shared_context() else ():
        yield HWAccel("cuda", options=dict(options), allow_software_fallback=True, is_hw_owned=True)
    for options in _CONTEXTS:
        yield HWAccel("cuda", options=dict(options), allow_software_fallback=True)


def _kind(stream: VideoStream) -> tuple[str, int, int]:
    """What decoding costs about the same for."""
    return stream.codec_context.codec.name, stream.width, stream.height
