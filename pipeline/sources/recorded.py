"""A recorded file as a source: any video that FFmpeg decodes, through PyAV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.cores import usable_cores
from pipeline.errors import NoVideo
from pipeline.frame import Frame
from pipeline.sources.decoding import Decoding
from pipeline.sources.delivery import Limits, deliver
from pipeline.sources.gpu import GpuDecoding
from pipeline.sources.timeline import Timeline
from pipeline.sources.upright import Upright

# Seconds; a longer step between two pictures is a jump of the clock.
_LONGEST_PAUSE, _LONGEST_PAUSE_IF_JUMPY = 3600.0, 10.0


class RecordedSource:
    """One video file.

    It is opened twice: now, as far as the first good picture, so that whatever is wrong with
    the file as a whole is known before a run starts; and again by `frames`, so that a file that
    waits for its turn holds no decoder.

    *Time.* Pts and time base are the file's own, less `origin`: the time at which the file
    begins, which is its first timestamp of any stream, sound included. A picture that starts
    40 ms after the sound therefore has pts 40 ms, and sound copied from `media_path` stays in
    step when `origin` is taken off it, too. (MP4 mostly begins at 0, so nothing changes;
    transport streams begin anywhere.) Edit lists are applied by the demuxer. Where a container
    has no presentation times (AVI), the decoding times stand in. See `Timeline` for what
    happens to timestamps that are not sane.

    *Damage.* See `Decoding`.

    *Pictures* are upright, whatever the file's display matrix says. Pixels that are not square
    are left so, and `Frame.pixel_hw` tells; interlaced pictures are left woven. The size may
    change on the way.

    Attributes:
        origin: Seconds; the file's timestamp that became 0.
    """

    live = False
    is_images = False

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        url: str,
        limits: Limits,
        decoder_threads: int = 0,
        gpu: GpuDecoding | None = None,
    ) -> None:
        """Open and check, in software.

        Args:
            decoder_threads: 0 chooses for this machine.
            gpu: Opens decoders on a GPU; None leaves it to software.

        Raises:
            SourceNotFound: There is no such file.
            NoVideo: It holds no video, or none that decodes.
            UnsupportedCodec: FFmpeg has no decoder for its video, or cannot convert its pictures.
            SourceError: It cannot be read.
        """
        self.name, self.url = name, url
        self.input_path: Path | None = path
        self.media_path: Path | None = path
        self._path, self._limits = path, limits
        self._decoder_threads = decoder_threads or _sensible_threads()
        self._gpu = gpu
        self._decoding: Decoding | None = None
        decoding = Decoding(path, self._decoder_threads)
        try:
            first = _first_of(decoding.pictures(), decoding)
            self.rate = decoding.rate
            self.origin = decoding.begin if first.pts is not None else _stand_in(first, decoding)
            self.frame_count = limits.expected(decoding.picture_count, self.rate)
            upright = Upright(repr(str(path)))(first)
            self.size_hw: tuple[int, int] | None = (upright.height, upright.width)
        finally:
            decoding.close()
        self.stats = SourceStats(name, offered_fps=float(self.rate) if self.rate else None)

    def frames(self) -> Iterator[Frame]:
        """Decode the file from the beginning to the end or the limits.

        Raises:
            SourceError: The file has gone, no longer holds a picture, or goes on in a pixel format
                that nothing can read.
        """
        try:
            yield from deliver(self._frames(), self.stats, self._limits)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        if self._decoding is not None:
            self._decoding.close()

    def _frames(self) -> Iterator[Frame]:
        decoding = self._decoding = Decoding(self._path, self._decoder_threads, self._gpu)
        decoding.anomalies = self.stats.anomalies
        pictures = decoding.pictures()
        first = _first_of(pictures, decoding)
        has_pts = first.pts is not None
        timeline = self._timeline(decoding)
        upright = Upright(repr(str(self._path)))
        for index, picture in enumerate(chain([first], pictures)):
            self._note(decoding)
            pixel_hw = decoding.pixel_hw(picture)
            yield Frame(
                picture=upright(picture),
                source=self.name,
                index=index,
                pts=timeline.place(picture.pts if has_pts else picture.dts),
                time_base=decoding.time_base,
                arrival=time.monotonic(),
                pixel_hw=upright.turned(pixel_hw),
            )
        self._note(decoding)

    def _note(self, decoding: Decoding) -> None:
        self.stats.decoded_by = decoding.decoded_by
        self.stats.frames_decoded += decoding.damaged_pictures
        if decoding.damaged_pictures:
            self.stats.frames_dropped["corrupt"] += decoding.damaged_pictures
            decoding.damaged_pictures = 0

    def _timeline(self, decoding: Decoding) -> Timeline:
        return Timeline(
            decoding.time_base,
            decoding.rate,
            origin=round(self.origin / decoding.time_base),
            longest_gap=_LONGEST_PAUSE_IF_JUMPY if decoding.may_jump else _LONGEST_PAUSE,
            anomalies=self.stats.anomalies,
        )


def _first_of(pictures: Iterator[av.VideoFrame], decoding: Decoding) -> av.VideoFrame:
    picture = next(pictures, None)
    if picture is None:
        raise NoVideo(
            f"no picture of {str(decoding.path)!r} can be decoded "
            f"({decoding.anomalies['corrupt_packet']} packets failed, "
            f"{decoding.damaged_pictures} pictures are damaged); "
            "the file is broken, encrypted or cut off"
        )
    return picture


def _stand_in(first: av.VideoFrame, decoding: Decoding) -> Fraction:
    """The begin of a file without presentation times, by its decoding times."""
    return (first.dts or 0) * decoding.time_base


def _sensible_threads() -> int:
    """Decoder threads; the engine needs the cores more than one decoder can use them."""
    return max(1, min(4, usable_cores() // 4))
