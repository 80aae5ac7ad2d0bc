"""How many pictures a second a camera sends."""

from __future__ import annotations

from collections import deque

_RATE_SECONDS = 5.0  # over which the offered rate is measured
_FIRST_SECONDS = 1.0  # not measured: what waited on the way comes at once


class ArrivalRate:
    """Pictures per second as they arrive, whatever the stream declares."""

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()
        self._begin: float | None = None

    def add(self, arrival: float) -> None:
        """Count a picture (monotonic seconds)."""
        self._begin = arrival if self._begin is None else self._begin
        if arrival - self._begin < _FIRST_SECONDS:
            return
        self._arrivals.append(arrival)
        while arrival - self._arrivals[0] > _RATE_SECONDS:
            self._arrivals.popleft()

    def per_second(self, now: float) -> float | None:
        """The rate of the last seconds; None before it can be known."""
        span = now - self._arrivals[0] if self._arrivals else 0.0
        return (len(self._arrivals) - 1) / span if span >= 0.5 else None
