"""Gather frames of all sources into batches."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.channel import Channel
from pipeline.frame import Frame
from pipeline.pace import Pace


def batches(frames: Channel[Frame], size: int, pace: Pace) -> Iterator[list[Frame]]:
    """Yield 1..`size` frames at a time, taken from the sources in turn.

    A batch leaves when it is full, when its time is up, or when no source can add to it,
    whichever comes first; so a slow source delays its neighbours by a known amount, and the
    last frames are never held back.

    Args:
        frames: Where the sources deliver.
        size: Most frames in a batch.
        pace: Says when to take frames, how long to wait for the rest, and which to leave out.
    """
    while True:
        pace.wait_for_slot()
        group = frames.take(size, within=pace.patience())
        if not group:
            return
        if admitted := pace.admit(group):
            yield admitted
