"""What a piece of work costs: wall time, processor time, memory."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """The price of handling some frames.

    Attributes:
        frames: How many.
        wall_seconds: By the clock on the wall.
        cpu_seconds: User and system time of all threads, and of children that have ended.
    """

    frames: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def fps(self) -> float:
        """Frames for each second of wall time."""
        return self.frames / self.wall_seconds

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds for each frame."""
        return 1e3 * self.cpu_seconds / self.frames

    @property
    def wall_ms(self) -> float:
        """Wall milliseconds for each frame."""
        return 1e3 * self.wall_seconds / self.frames


class Meter:
    """Measure the block it stands around; `cost` says what `frames` frames took in it."""

    def __enter__(self) -> Meter:
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = cpu_seconds() - self._cpu

    def cost(self, frames: int) -> Cost:
        """After the block."""
        return Cost(frames, self._wall, self._cpu)


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_mb() -> float:
    """Most memory this process ever had resident, in MB of 10^6 bytes.

    Not ``ru_maxrss``, which on Linux starts with the size of the process that did the fork.
    """
    return _status_kb("VmHWM") * 1024 / 1e6


def children_peak_mb() -> float:
    """Most memory that a child which has ended had resident, in MB of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


def resident_mb() -> float:
    """Memory resident now, in MB of 10^6 bytes."""
    return _status_kb("VmRSS") * 1024 / 1e6


def _status_kb(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {key}")


def in_turn(rounds: int, work: Mapping[str, Callable[[], Cost]]) -> dict[str, list[Cost]]:
    """Do each piece once a round, so that a noisy minute strikes all of them alike.

    Every other round runs backwards: who comes after whom makes no lasting difference.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in work}
    for turn in range(rounds):
        names = list(work) if turn % 2 == 0 else list(reversed(work))
        for name in names:
            costs[name].append(work[name]())
    return costs


def middle(costs: Sequence[Cost]) -> dict[str, Any]:
    """Medians over the rounds, and the spread of the frame rate, (max - min) / median."""
    rates = [cost.fps for cost in costs]
    median = statistics.median(rates)
    return {
        "fps": round(median, 2),
        "wall_ms": round(statistics.median(cost.wall_ms for cost in costs), 3),
        "cpu_ms": round(statistics.median(cost.cpu_ms for cost in costs), 3),
        "spread": round((max(rates) - min(rates)) / median, 3),
        "frames": costs[0].frames,
    }
