"""Video files that can be played at any moment, whatever becomes of the process."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer

from pipeline.settings import VideoSettings


def open_container(
    path: Path,
    settings: VideoSettings,
    time_base: Fraction,
    *,
    growing: bool,
    begins_at_zero: bool = False,
) -> OutputContainer:
    """Open a file that stays playable while it grows.

    Args:
        growing: Leave an MP4 in fragments for good: the only form that needs no index in memory,
            and that can begin before 0.
        begins_at_zero: The first picture is at 0 s, so an MP4 needs not wait for it to write its
            header: the file can be opened at once.
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
    return av.open(f"file:{path}", "w", format=form, container_options=options)
