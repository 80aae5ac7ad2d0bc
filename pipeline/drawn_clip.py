"""A recording of the drawn street, for measurements that want a video and are given none."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pipeline.frame import Detections, Result
from pipeline.settings import VideoSettings
from pipeline.sinks import open_sinks
from pipeline.sources import open_sources
from pipeline.yuv import own_yuv420p, stamped

_FPS = 25


def draw_clip(size: str, frames: int, path: Path) -> Path:
    """Write so many frames of a street of that size, WxH, as H.264.

    Raises:
        ConfigError: No street can be drawn at that size.
    """
    (street,) = open_sources([street_url(size, frames)])
    (sink,) = open_sinks([str(path)], street, (), VideoSettings(encoder="libx264", audio=False))
    with closing(street), sink:
        for frame in street.frames():
            picture = stamped(own_yuv420p(frame.picture), frame.pts, frame.time_base)
            sink.write(Result(frame, Detections.none(), picture))
    return path


def street_url(size: str, frames: int) -> str:
    """The source that is drawn."""
    return f"synthetic://street?seed=7&size={size}&fps={_FPS}&seconds={frames / _FPS}"
