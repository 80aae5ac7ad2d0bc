"""A GPU's decoder without a GPU: a real decoder that answers in a GPU's layout, until it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.logging
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.settings import DecoderName
from pipeline.sources.gpu import GpuDecoding, fresh_context
from pipeline.sources.gpu_decoder import NotOnGpu
from pipeline.sources.opening import open_bound
from tests.pipeline.stand_in_gpu_picture import on_gpu

LAYOUTS = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}


def as_downloaded(picture: av.VideoFrame) -> av.VideoFrame:
    """What PyAV makes of a picture that it copied from a GPU."""
    other = picture.reformat(format=LAYOUTS[picture.format.name], threads=1)
    other.colorspace, other.color_range = picture.colorspace, picture.color_range
    return other


class Chip:
    """A decoder that counts packets, and goes wrong where it is told to.

    Args:
        context: Decodes.
        fails_at: The packet from which on it raises `error`.
        refuses_at: The packet from which on FFmpeg decodes in software, as it does where a chip
            does not take a stream.
        says: What FFmpeg says then.
        mute_at: The packet from which on nothing comes.
        beside: Decode every packet too, for nothing, so that it takes longer.
        stays: Whether it leaves pictures in its own memory.
    """

    def __init__(
        self,
        context: VideoCodecContext,
        *,
        fails_at: int | None = None,
        error: Callable[[], Exception] = lambda: av.ExternalError(0, "Generic error"),
        refuses_at: int | None = None,
        says: tuple[str, ...] = (),
        mute_at: int | None = None,
        beside: tuple[VideoCodecContext, ...] = (),
        stays: bool = False,
    ) -> None:
        vars(self).update(_context=context, _packets=-1, _error=error, _beside=beside)
        vars(self).update(_fails_at=fails_at, _refuses_at=refuses_at, _mute_at=mute_at)
        vars(self).update(_stays=stays, _says=says)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            vars(self)[name] = value
        else:
            setattr(self._context, name, value)

    @property
    def pix_fmt(self) -> str:
        refuses = self._refuses_at is not None and self._packets >= self._refuses_at
        return self._context.pix_fmt if refuses else "cuda"

    def decode(self, packet: Packet[VideoStream] | None = None) -> list[av.VideoFrame]:
        self._packets += 1
        if self._fails_at is not None and self._packets >= self._fails_at:
            raise self._error()
        if self._packets == self._refuses_at:
            for text in self._says:
                av.logging.log(av.logging.ERROR, "h264", text)
        for context in self._beside:
            context.decode(packet)
        pictures = self._context.decode(packet)
        if self._mute_at is not None and self._packets >= self._mute_at:
            return []
        if self.pix_fmt != "cuda":
            return pictures
        here = [as_downloaded(picture) for picture in pictures]
        return [on_gpu(picture) for picture in here] if self._stays else here


@dataclass
class Chips(GpuDecoding):
    """Opens as many as there are sessions."""

    options: dict[str, Any] = field(default_factory=dict)
    decoder: DecoderName = "cuda"
    sessions: int = 1000
    opened: list[Chip] = field(default_factory=list)
    slow: bool = False
    shortest: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.decoder, self.shortest)

    def _trouble(self) -> str | None:
        return None

    def _context_of_file(self, path: Path, stream: VideoStream) -> Any:
        return self._chip(lambda: open_bound(path, stream.index, None))

    def _context_of_camera(self, stream: VideoStream) -> Any:
        return self._chip(lambda: fresh_context(stream.codec_context, None))

    def _chip(self, context: Callable[[], VideoCodecContext]) -> Chip:
        if len(self.opened) >= self.sessions:
            raise NotOnGpu("its decoder cannot be opened (out of memory)", is_failure=True)
        beside = tuple(context() for _ in range(4 * self.slow))
        for each in beside:
            each.thread_count = 1
        self.opened.append(Chip(context(), beside=beside, stays=self._stay, **self.options))
        return self.opened[-1]
