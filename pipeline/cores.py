"""How many cores this process may really use, and what they can do."""

from __future__ import annotations

import os
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores by affinity mask and container quota; at least 1.

    A container with ``--cpus=2`` on a machine of 64 cores shows 64; an engine with 64 threads
    then spends its time being throttled.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota_v2(cgroup / "cpu.max") or _quota_v1(cgroup / "cpu")
    return max(1, min(cores, round(quota))) if quota else cores


def processor_flags(cpuinfo: Path = CPU_INFO) -> str:
    """The instruction sets of the processor, as Linux names them; empty where nothing tells."""
    told = processor_fact("flags", cpuinfo) or processor_fact("Features", cpuinfo) or ""
    return " ".join(sorted(told.split()))


def processor_fact(key: str, cpuinfo: Path = CPU_INFO) -> str | None:
    """What Linux's list of processors, lines of ``key : value``, first says under `key`."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key and value.strip():
            return value.strip()
    return None


def _quota_v2(file: Path) -> float | None:
    try:
        quota, period = file.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError):
        return None
