"""What all sources share: limits, and the counting of what they deliver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from pipeline.frame import Frame
from pipeline.metrics import SourceStats


@dataclass(frozen=True)
class Limits:
    """Where to end before the source does.

    Attributes:
        max_frames: Most frames delivered; None: all.
        duration: Seconds of the source's own time; None: all.
    """

    max_frames: int | None = None
    duration: float | None = None

    def expected(self, frames: int | None, rate: Fraction | None) -> int | None:
        """How many of `frames` are left, for a progress bar; None if that is not known."""
        by_time = None if self.duration is None or rate is None else int(self.duration * rate)
        known = [n for n in (frames, self.max_frames, by_time) if n is not None]
        return min(known) if known else None


def deliver(
    frames: Iterator[Frame], stats: SourceStats, limits: Limits, *, timed: bool = True
) -> Iterator[Frame]:
    """Pass `frames` on until they or `limits` end; count them and keep the state in `stats`.

    Pictures that are dropped before they get here are for the source to count: as decoded, and
    as dropped.

    Args:
        timed: Whether the source has a time of its own; a folder of pictures has none, so
            `SourceStats.source_seconds` stays 0.
    """
    stats.state = "RUNNING"
    try:
        yield from _within(frames, stats, limits, timed)
    except GeneratorExit:  # whoever reads has seen enough: an end like any other
        stats.state = "ENDED"
        raise
    except BaseException as error:
        stats.state, stats.error = "FAILED", str(error)
        raise
    stats.state = "ENDED"


def _within(
    frames: Iterator[Frame], stats: SourceStats, limits: Limits, timed: bool
) -> Iterator[Frame]:
    begin, step = None, 0.0
    for frame in frames:
        now = frame.pts_seconds
        if begin is None:
            begin, stats.first_arrival = now, frame.arrival
            step = 1 / stats.offered_fps if stats.offered_fps else 0.0
        if limits.duration is not None and now - begin >= limits.duration:
            return
        stats.frames_decoded += 1
        if timed:
            stats.source_seconds = now - begin + step
        yield frame
        if limits.max_frames is not None and frame.index + 1 >= limits.max_frames:
            return
