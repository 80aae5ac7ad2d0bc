"""What all sources share: limits, and the counting of what they deliver."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.frame import Frame

_ROUNDING = 1e-6  # seconds; far less than lies between two pictures


@dataclass(frozen=True)
class Limits:
    """Where to end before the source does, and what of a recording to leave out.

    Attributes:
        max_frames: Most frames delivered; None: all.
        duration: Seconds of the source's own time; None: all.
        stride, max_fps: See `Thinning`. Not of cameras: those have their own.
    """

    max_frames: int | None = None
    duration: float | None = None
    stride: int = 1
    max_fps: float | None = None

    def expected(self, frames: int | None, rate: Fraction | None) -> int | None:
        """How many of `frames` are left, for a progress bar; None if that is not known."""
        by_time = None if self.duration is None or rate is None else int(self.duration * rate)
        known = [n for n in (frames, by_time) if n is not None]
        left = [self._thinned(min(known), rate)] if known else []
        left += [] if self.max_frames is None else [self.max_frames]
        return min(left) if left else None

    def _thinned(self, frames: int, rate: Fraction | None) -> int:
        each = -(-frames // self.stride)
        if self.max_fps is None or not rate or rate <= self.max_fps:
            return each
        return min(each, math.ceil(frames * self.max_fps / rate))


class Thinning:
    """Chooses the pictures that are wanted: each `stride`-th, and at most `max_fps` a second.

    Pictures are chosen evenly in presentation time, so 25 frames/s are thinned to exactly 10.

    >>> thinning = Thinning(max_fps=10)
    >>> [n for n in range(12) if thinning.reason_to_drop(n / 25) is None]
    [0, 3, 5, 8, 10]
    """

    def __init__(self, stride: int = 1, max_fps: float | None = None) -> None:
        self._stride, self._interval = stride, 1 / max_fps if max_fps else 0.0
        self._seen = 0
        self._due: float | None = None

    def reason_to_drop(self, seconds: float) -> str | None:
        """Why the picture with that presentation time is not wanted: None, ``stride``, ``max_fps``.

        Every picture of the source must be shown to this once, in order.
        """
        self._seen += 1
        if (self._seen - 1) % self._stride:
            return "stride"
        if not self._interval:
            return None
        if self._due is None or seconds > self._due + self._interval:
            self._due = seconds
        if seconds < self._due - _ROUNDING:
            return "max_fps"
        self._due += self._interval
        return None


def deliver(
    frames: Iterator[Frame], stats: SourceStats, limits: Limits, *, timed: bool = True
) -> Iterator[Frame]:
    """Pass `frames` on until they or `limits` end; count them and keep the state in `stats`.

    Frames keep their numbers when others are left out. Pictures that are dropped before they get
    here are for the source to count: as decoded, and as dropped.

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
    except BaseException as error:  # noted in the books, and passed on
        stats.state, stats.error = "FAILED", str(error)
        raise
    stats.state = "ENDED"


def _within(
    frames: Iterator[Frame], stats: SourceStats, limits: Limits, timed: bool
) -> Iterator[Frame]:
    begin, step, delivered = None, 0.0, 0
    thinning = Thinning(limits.stride, limits.max_fps)
    for frame in frames:
        now = frame.pts_seconds
        if begin is None:
            begin, stats.first_arrival = now, frame.arrival
            step = 1 / stats.offered_fps if stats.offered_fps else 0.0
        if limits.duration is not None and now - begin >= limits.duration - _ROUNDING:
            return
        stats.frames_decoded += 1
        if timed:
            stats.source_seconds = now - begin + step
        if cause := thinning.reason_to_drop(now):
            stats.frames_dropped[cause] += 1
            continue
        yield frame
        delivered += 1
        if limits.max_frames is not None and delivered >= limits.max_frames:
            return
