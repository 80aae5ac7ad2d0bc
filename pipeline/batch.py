"""Gather frames of all sources into batches."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.channel import Channel
from pipeline.frame import Frame


def batches(frames: Channel[Frame], size: int, within: float) -> Iterator[list[Frame]]:
    """Yield 1..`size` frames at a time, taken from the sources in turn.

    A batch leaves when it is full, when `within` seconds have passed since its first frame, or
    when no source can add to it, whichever comes first; so a slow source delays its neighbours
    by a known amount, and the last frames are never held back.
    """
    while group := frames.take(size, within=within):
        yield group
