"""Video files that can be played at any moment, whatever becomes of the process."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from io import FileIO
from pathlib import Path

import av

from pipeline.settings import VideoSettings

LONGEST_STEP = 2**31 - 2
"""From picture to picture in MP4, in units of its clock: FFmpeg would put all that follow a longer
one at the same moment, without an error."""

_BUFFER = 1 << 18  # bytes; as large as that of a file that FFmpeg opens


class ContainerFile:
    """A container and the file that it is written to.

    Python opens, writes and closes the file: with a name, PyAV would let no other thread run
    while a server's disk takes its time over that.

    Attributes:
        container: For streams and packets; closed with this.

    Args:
        path: Where to; what is there is written over.
        form: FFmpeg's name of the container.
        options: For FFmpeg.
    """

    def __init__(self, path: Path, form: str, options: Mapping[str, str]) -> None:
        self._file = WholeFile(path, "wb")
        try:
            self.container = av.open(
                self._file, "w", format=form, container_options=dict(options), buffer_size=_BUFFER
            )
        except BaseException:  # not even Ctrl-C leaves the file open
            self._file.close()
            raise

    def close(self) -> None:
        """Finish it; harmless when done twice."""
        try:
            self.container.close()
        finally:
            self._file.close()


def open_container(
    path: Path,
    settings: VideoSettings,
    time_base: Fraction,
    *,
    growing: bool,
    begins_at_zero: bool = False,
    in_milliseconds: bool = False,
) -> ContainerFile:
    """Open a file that stays playable while it grows.

    Args:
        growing: Leave an MP4 in fragments for good: the only form that needs no index in memory,
            and that can begin before 0.
        begins_at_zero: The first picture is at 0 s, so an MP4 needs not wait for it to write its
            header: the file can be opened at once.
        in_milliseconds: Have an MP4 count in them, as Matroska does, so that it can tell of an
            outage of 24 days; at 90,000 units a second it is six and a half hours.
    """
    piece = min(1.0, settings.keyframe_seconds)
    options = {
        "flush_packets": "1",  # do not sit on what is complete
        "max_interleave_delta": "1000000",  # microseconds; when the sound ends before the picture
    }
    if path.suffix.lower() == ".mp4":
        flags = ["frag_keyframe", "default_base_moof"]
        flags.append("empty_moov" if begins_at_zero else "delay_moov")
        if not growing:
            flags.append("hybrid_fragmented")
        if in_milliseconds:
            time_base = Fraction(1, 1000)
            options["video_track_timescale"] = str(time_base.denominator)
        units = time_base.denominator * -(-1000 // time_base.denominator)  # a second, at least 1000
        options |= {
            "movflags": "+".join(flags),
            "frag_duration": str(round(piece * 1e6)),
            "movie_timescale": str(min(units, 2**31 - 1)),  # what a late beginning is counted in
        }
        form = "mp4"
    else:
        options |= {"cluster_time_limit": str(round(piece * 1e3))}
        form = "matroska"
    return ContainerFile(path, form, options)


class WholeFile(FileIO):
    """A file that takes all it is given or fails; others take a part when the disk gets full."""

    def write(self, data: bytes) -> int:  # type: ignore[override]  # nothing else comes from PyAV
        """Write everything."""
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) or 0 :]
        return len(data)
