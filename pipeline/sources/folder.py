"""A folder, a glob or a single picture: many pictures as one source.

Pictures have no time. They are given 25 a second, as FFmpeg does, so that a video made of them
plays; the report's times leave them out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.errors import NoVideo
from pipeline.frame import Frame
from pipeline.sources.delivery import Limits, deliver
from pipeline.sources.opening import printable

_PICTURES = "jpg jpeg jpe png bmp webp tif tiff ppm pgm pnm jp2 avif"
_VIDEOS = """
    mp4 m4v mov qt mkv webm avi divx ts m2ts mts mpg mpeg mpv m2v vob flv f4v wmv asf 3gp 3g2
    ogv mxf nut y4m ivf gif dv mjpeg mjpg h264 264 avc h265 265 hevc obu
"""
PICTURE_SUFFIXES = frozenset(f".{suffix}" for suffix in _PICTURES.split())
VIDEO_SUFFIXES = frozenset(f".{suffix}" for suffix in _VIDEOS.split())
_RATE = Fraction(25)
_FFMPEG_DECODERS = {b"\xff\xd8\xff": "mjpeg", b"\x89PNG": "png", b"BM": "bmp", b"RIFF": "webp"}
_EXIF = (b"Exif\0\0", b"eXIf", b"EXIF")  # as JPEG, PNG and WebP mark it


class FolderSource:
    """Pictures in the natural order of their names; their sizes may differ.

    A picture that cannot be read whole is left out and counted as dropped (``corrupt``).
    `Frame.file` is a picture's file name, made printable.
    """

    live = False
    is_images = True
    input_path: Path | None = None
    media_path: Path | None = None
    origin = Fraction(0)
    rate: Fraction | None = _RATE

    def __init__(self, pictures: Sequence[Path], *, name: str, url: str, limits: Limits) -> None:
        """Check that at least one picture can be read.

        Raises:
            NoVideo: None can.
        """
        self.name, self.url = name, url
        self._pictures = natural_order(pictures)
        limits = self._limits = replace(limits, max_fps=None)  # they have no time of their own
        self.stats = SourceStats(name)
        self.frame_count = limits.expected(len(pictures), _RATE)
        first = next(filter(None, map(read_picture, self._pictures)), None)
        if first is None:
            raise NoVideo(
                f"none of the {len(pictures)} pictures of {url!r} can be read "
                f"(the first is {self._pictures[0].name!r}); they are broken or of unknown formats"
            )
        self.size_hw: tuple[int, int] | None = (first.height, first.width)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one."""
        yield from deliver(self._frames(), self.stats, self._limits, timed=False)

    def close(self) -> None:
        """Nothing stays open between two pictures."""

    def _frames(self) -> Iterator[Frame]:
        index = 0
        for path in self._pictures:
            picture = read_picture(path)
            if picture is None:
                self.stats.frames_decoded += 1
                self.stats.frames_dropped["corrupt"] += 1
                continue
            yield Frame(
                picture=picture,
                source=self.name,
                index=index,
                pts=index,
                time_base=1 / _RATE,
                arrival=time.monotonic(),
                file=printable(path.name),
            )
            index += 1


def read_picture(path: Path) -> av.VideoFrame | None:
    """Read one picture upright, in the pixel format of its file; None if it is broken.

    FFmpeg reads the usual formats, and refuses a file that is cut off or fails a checksum.
    OpenCV reads the others, and those with EXIF data, because it follows their orientation,
    mirrored ones included.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    decoder = next((name for magic, name in _FFMPEG_DECODERS.items() if data.startswith(magic)), "")
    if not decoder:
        return _read_with_opencv(data)
    try:
        picture = _read_with_ffmpeg(data, decoder)
    except (av.error.PatchWelcomeError, NotImplementedError):  # a rare kind of the format
        return _read_with_opencv(data)
    except (av.FFmpegError, ValueError, MemoryError):
        return None
    return _read_with_opencv(data) if any(mark in data for mark in _EXIF) else picture


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sort by name, numbers by value: ``frame2`` before ``frame10``."""

    def key(path: Path) -> tuple[list[tuple[int, str]], str]:
        words = re.split(r"([0-9]+)", str(path))
        return [(int(w), "") if w.isdecimal() else (-1, w.casefold()) for w in words], str(path)

    return sorted(paths, key=key)


def _read_with_ffmpeg(data: bytes, decoder: str) -> av.VideoFrame | None:
    context = cast(VideoCodecContext, av.CodecContext.create(decoder, "r"))
    context.options = {"err_detect": "explode"}
    context.thread_count = 1
    pictures = context.decode(av.Packet(data)) + context.decode(None)
    return pictures[0] if pictures and not pictures[0].is_corrupt else None


def _read_with_opencv(data: bytes) -> av.VideoFrame | None:
    try:
        with _opencv_silent():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if image is None:
        return None
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image, np.uint8), format="bgr24")


@contextmanager
def _opencv_silent() -> Iterator[None]:
    """OpenCV reports broken pictures on the terminal; here they are counted instead."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
