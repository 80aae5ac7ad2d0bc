"""Vital signs of a process and its children over time: memory, threads, descriptors."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

Sample = dict[str, float]


class Vitals:
    """Notes on one process tree.

    Attributes:
        samples: ``second``, ``rss_mb`` (10^6 bytes), ``threads``, ``descriptors``.
    """

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._pid = pid

    def take(self, second: float) -> None:
        """Note how things stand; nothing when the process has gone."""
        parts = [one for pid in family(self._pid) if (one := _vitals(pid))]
        if parts:
            total = {key: sum(part[key] for part in parts) for key in parts[0]}
            self.samples.append({"second": round(second, 1), **total})

    def slope_per_hour(self, key: str, after: float) -> tuple[float, float]:
        """How `key` grew in an hour from second `after` on, and the standard error of that.

        The notes are taken in twenty groups whose medians are fitted by a line: what comes and
        goes with a fault does not count, what stays does.
        """
        later = [sample for sample in self.samples if sample["second"] >= after]
        if len(later) < 8:
            return 0.0, float("inf")
        groups = np.array_split(np.array([[s["second"] / 3600, s[key]] for s in later]), 20)
        x, y = np.array([np.median(group, axis=0) for group in groups if len(group)]).T
        (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
        return round(float(slope), 3), round(float(np.sqrt(covariance[0, 0])), 3)

    def growth(self, key: str, after: float) -> float:
        """The median of the last quarter less that of the first, from second `after` on."""
        values = [sample[key] for sample in self.samples if sample["second"] >= after]
        if len(values) < 4:
            return 0.0
        quarter = len(values) // 4
        return statistics.median(values[-quarter:]) - statistics.median(values[:quarter])


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in family(int(child)))]


def _vitals(pid: int) -> Sample | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
        return {
            "rss_mb": round(int(status["VmRSS"][0]) * 1024 / 1e6, 3),
            "threads": int(status["Threads"][0]),
            "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        }
    except (OSError, KeyError):
        return None  # it ended meanwhile
