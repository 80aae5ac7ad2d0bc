"""Counts that add up: frames by fate, latency percentiles, rates.

Every frame that a source decodes ends up in exactly one of *inferred*, *dropped* (by cause) or
*in flight*; `SourceStats.in_flight` is what is left over, and 0 when a run has ended.
Each counter has one writer, so no lock is needed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field


class LatencyHistogram:
    """Durations in buckets 5 % apart from 0.1 ms to about 1000 s: flat memory, any percentile.

    >>> latency = LatencyHistogram()
    >>> for _ in range(100):
    ...     latency.add(0.020)
    >>> abs(latency.percentile_ms(50) - 20) < 1
    True
    """

    _FIRST_MS, _STEP, _BUCKETS = 0.1, 1.05, 332

    def __init__(self) -> None:
        self.count = 0
        self.max_ms = 0.0
        self._buckets = [0] * self._BUCKETS

    def add(self, seconds: float) -> None:
        """Count one duration."""
        ms = seconds * 1e3
        position = math.log(max(ms, self._FIRST_MS) / self._FIRST_MS) / math.log(self._STEP)
        self._buckets[min(int(position), self._BUCKETS - 1)] += 1
        self.count += 1
        self.max_ms = max(self.max_ms, ms)

    def percentile_ms(self, percent: float) -> float | None:
        """The duration that `percent` of all stay below, within 2.5 %; None before the first."""
        if not self.count:
            return None
        wanted, seen = math.ceil(self.count * percent / 100), 0
        for bucket, count in enumerate(self._buckets):
            seen += count
            if seen >= wanted:
                return min(self.max_ms, self._FIRST_MS * math.pow(self._STEP, bucket + 0.5))
        return self.max_ms

    def report(self) -> dict[str, float | None]:
        """``{"p50", "p95", "p99", "max"}`` in milliseconds."""
        percentiles = {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}
        values = percentiles | {"max": self.max_ms if self.count else None}
        return {name: None if v is None else round(v, 2) for name, v in values.items()}


@dataclass
class SourceStats:
    """The fate of one source's frames.

    Attributes:
        state: ``READY``, ``RUNNING``, ``ENDED`` or ``FAILED``.
        error: Why it failed.
        frames_decoded: Pictures that the decoder gave, including those dropped later.
        frames_inferred: Pictures for which detections left the engine stage.
        frames_dropped: Pictures that were not inferred, by cause: ``corrupt``, ``stride``,
            ``queue_full``, ``stale``, ``not_reached`` (the run was cut short).
        anomalies: What was put right on the way, by kind: ``pts_missing``, ``pts_repeated``,
            ``pts_jump``, ``corrupt_packet`` and so on. Frames are not lost by these.
        offered_fps: Rate that the source declares or was measured to offer; None if unknown.
        source_seconds: Span of presentation time covered so far, in seconds.
        first_arrival, last_sunk: Monotonic seconds of the first decoded and the last sunk frame.
        latency: Arrival (decoder) to sink.
    """

    name: str
    state: str = "READY"
    error: str | None = None
    frames_decoded: int = 0
    frames_inferred: int = 0
    frames_dropped: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)
    offered_fps: float | None = None
    source_seconds: float = 0.0
    first_arrival: float | None = None
    last_sunk: float | None = None
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)

    @property
    def in_flight(self) -> int:
        """Decoded, but neither inferred nor dropped yet."""
        return self.frames_decoded - self.frames_inferred - sum(self.frames_dropped.values())

    @property
    def fps(self) -> float | None:
        """Inferred frames over the time from the first arrival to the last sunk frame."""
        if self.first_arrival is None or self.last_sunk is None:
            return None
        span = self.last_sunk - self.first_arrival
        return self.frames_inferred / span if span > 0 else None

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of source time handled per second of wall time."""
        if self.first_arrival is None or self.last_sunk is None or not self.source_seconds:
            return None
        return self.source_seconds / max(self.last_sunk - self.first_arrival, 1e-9)
