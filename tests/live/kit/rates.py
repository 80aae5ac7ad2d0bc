"""Frames a second of a source, read from its records, on a machine that stands still now and then.

A halt of three seconds takes as much from the mean of half a minute as a line that loses every
tenth frame. So the run is cut into windows, and the median of their rates is what counts: a halt
spoils one or two of them, unfairness all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def usual_rate(
    records: Sequence[dict[str, Any]],
    since: float = 0.0,
    before: float = math.inf,
    window_seconds: float = 4.0,
) -> float:
    """Frames per second of one source's own time: the median of the whole windows in between.

    Args:
        records: Lines of one source.
        since, before: Only frames of that part of its time, in seconds.
        window_seconds: Long enough for one frame more or less not to matter.

    Raises:
        ValueError: There are fewer than three whole windows.
    """
    times = [entry["pts_seconds"] for entry in records if since < entry["pts_seconds"] <= before]
    windows = int((times[-1] - times[0]) / window_seconds) if times else 0
    if windows < 3:
        raise ValueError(f"{len(times)} frames in {windows} windows tell no rate")
    counts = [0] * windows
    for at in times:
        window = int((at - times[0]) / window_seconds)
        if window < windows:
            counts[window] += 1
    return statistics.median(counts) / window_seconds


def last_second(records: Sequence[dict[str, Any]]) -> float:
    """The source's own time of its latest frame; 0 before the first."""
    return float(records[-1]["pts_seconds"]) if records else 0.0
