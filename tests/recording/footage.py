"""Results to record, and what became of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.frame import Detections, Result
from pipeline.sinks import Sink, SinkTarget
from tests.clips import read_number
from tests.pipeline.written_video import SIZE, result

NAMES = ("person", "bicycle", "car")
FPS = 25
LIVE = SinkTarget("cam", NAMES, Fraction(FPS), live=True)
NOON = 1_750_000_000.0  # a date, at which the first picture arrives


def dates(arrival: float) -> float:
    """A calendar on which results made here arrive when they are shown."""
    return NOON + arrival


def shot(
    number: int,
    seen: str | None = None,
    score: float = 0.9,
    size: tuple[int, int] = SIZE,
    pixel_hw: tuple[int, int] = (1, 1),
) -> Result:
    """Picture `number`, 1/25 s after the one before, in which one object may be seen."""
    made = result(number, size=size, pixel_hw=pixel_hw)
    frame = replace(made.frame, arrival=number / FPS)
    if seen is None:
        return replace(made, frame=frame)
    box = np.array([[1, 2, 30, 40]], np.float32)
    class_ids = np.array([NAMES.index(seen)])
    found = Detections(box, np.array([score], np.float32), class_ids)
    return replace(made, frame=frame, detections=found)


def look(path: Path) -> tuple[list[int], list[float]]:
    """Numbers and times (seconds) of the pictures in a file."""
    with av.open(str(path)) as container:
        shown = [(read_number(f), float(f.pts * f.time_base)) for f in container.decode(video=0)]
    return [number for number, _ in shown], [seconds for _, seconds in shown]


class Pushing:
    """Write one numbered picture after the other, at about 50 a second.

    Attributes:
        written: How many so far.
        longest: Longest time that one took, in seconds.
        second_longest: Of all the others; a machine that stood still once leaves it as it is.
    """

    def __init__(self, sink: Sink, make: Callable[[int], Result] = shot) -> None:
        self.written = 0
        self.longest = self.second_longest = 0.0
        self._sink, self._make = sink, make

    def until(self, condition: Callable[[], object], within: float = 60.0) -> None:
        """Go on until `condition` holds; `AssertionError` if that takes too long."""
        began, never = time.monotonic(), threading.Event()
        while not condition():
            assert time.monotonic() - began < within, f"not within {within} s"
            result, start = self._make(self.written), time.monotonic()
            self._sink.write(result)
            took = time.monotonic() - start
            self.second_longest = max(self.second_longest, min(self.longest, took))
            self.longest = max(self.longest, took)
            self.written += 1
            never.wait(0.02)

    def more(self, count: int) -> None:
        """Write so many more."""
        goal = self.written + count
        self.until(lambda: self.written >= goal)
