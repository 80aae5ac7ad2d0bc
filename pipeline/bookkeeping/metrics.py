"""Counts that add up: frames by fate, latency percentiles, rates, the work of each station.

Every frame that a source decodes ends up in exactly one of *inferred*, *dropped* (by cause) or
*in flight*; `SourceStats.in_flight` is what is left over, and 0 when a run has ended.
Each counter (of drops: each cause) has one writer, so no lock is needed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

State = Literal["READY", "CONNECTING", "RUNNING", "STALLED", "BACKOFF", "PAUSED", "ENDED", "FAILED"]
EVENTS_KEPT = 200  # of each source
MOST_TRANSIT_SECONDS = 30.0  # of a frame; who says more has another clock than we
RECENT_SECONDS = 10.0


@dataclass(frozen=True)
class Event:
    """A change of a source's state.

    Attributes:
        wall_time: Seconds since the epoch.
        state: The new state.
        cause: Why, in one word; None where there is nothing to explain.
        detail: Why, in a sentence without secrets.
    """

    wall_time: float
    state: State
    cause: str | None
    detail: str


class DecodedBy(NamedTuple):
    """What decodes a source: its codec, where, and why there."""

    codec: str
    where: Literal["cpu", "gpu"]
    why: str


class RecentRate:
    """Events per second over the last `RECENT_SECONDS`: counted, not smoothed.

    Cameras pause for half a second at key frames; a smoothed rate would swing with them. One thread
    adds while others read: what they read is replaced as a whole, which needs no lock of Python's.
    """

    def __init__(self) -> None:
        self._seconds: tuple[tuple[int, int], ...] = ()
        self._begin: float | None = None

    def add(self, now: float) -> None:
        """Count one event at `now` (monotonic seconds)."""
        self._begin = now if self._begin is None else self._begin
        second = int(now)
        *earlier, (last, count) = self._seconds or ((second, 0),)
        if last == second:
            self._seconds = (*earlier, (second, count + 1))
        else:
            self._seconds = (*self._seconds[-round(RECENT_SECONDS) :], (second, 1))

    def per_second(self, now: float) -> float | None:
        """The rate up to `now`; None before there was a whole second to count."""
        if self._begin is None:
            return None
        # Whole seconds only: the running one is not over, and would read as a drop.
        end = int(now)
        begin = max(end - round(RECENT_SECONDS), int(self._begin) + 1)
        if end <= begin:
            return None
        counted = sum(count for second, count in self._seconds if begin <= second < end)
        return counted / (end - begin)


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
        self.total_seconds = 0.0
        self.max_ms = 0.0
        self._buckets = [0] * self._BUCKETS

    def add(self, seconds: float) -> None:
        """Count one duration."""
        ms = seconds * 1e3
        self._buckets[min(int(self._position(ms)), self._BUCKETS - 1)] += 1
        self.count += 1
        self.total_seconds += seconds
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

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """What was added after `earlier`, a copy taken of this one."""
        later = LatencyHistogram()
        later.max_ms = self.max_ms
        later._buckets = [a - b for a, b in zip(self._buckets, earlier._buckets, strict=True)]
        later.count = sum(later._buckets)
        later.total_seconds = self.total_seconds - earlier.total_seconds
        return later

    def absorb(self, other: LatencyHistogram) -> None:
        """Add everything that the other one has counted."""
        self.count += other.count
        self.total_seconds += other.total_seconds
        self.max_ms = max(self.max_ms, other.max_ms)
        self._buckets = [a + b for a, b in zip(self._buckets, other._buckets, strict=True)]

    def copy(self) -> LatencyHistogram:
        """As it is now."""
        return self.since(LatencyHistogram())

    def counts_below(self, bounds_seconds: Sequence[float]) -> list[int]:
        """How many durations lie below each of the rising bounds, which are met within 2.5 %."""
        buckets = list(self._buckets)  # another thread may be adding
        return [sum(buckets[: round(self._position(bound * 1e3))]) for bound in bounds_seconds]

    def report(self) -> dict[str, float | None]:
        """``{"p50", "p95", "p99", "max"}`` in milliseconds."""
        percentiles = {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}
        values = percentiles | {"max": self.max_ms if self.count else None}
        return {name: None if v is None else round(v, 2) for name, v in values.items()}

    def _position(self, ms: float) -> float:
        """Where on the scale of buckets a duration lies."""
        return math.log(max(ms, self._FIRST_MS) / self._FIRST_MS) / math.log(self._STEP)


@dataclass(frozen=True)
class SinkStats:
    """What has become of one source's results in one of its sinks.

    Attributes:
        source, name: Whose results, and where they go as shown to the user.
        frames: Results that the sink took.
        frames_dropped: Those lost to it, by cause: ``queue_full``, or what kept it from sending.
        error: Why it has failed; None while it has not.
    """

    source: str
    name: str
    frames: int
    frames_dropped: dict[str, int]
    error: str | None


class PixelShares:
    """Mean shares of the picture by class, over the frames of a source."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums: dict[str, float] = {}

    def add(self, shares: Mapping[str, float]) -> None:
        """Count one frame; `shares` of the classes that are in it."""
        self.frames += 1
        for name, share in shares.items():
            self._sums[name] = self._sums.get(name, 0.0) + share

    def mean(self) -> dict[str, float]:
        """By class, the largest first; classes that were never seen are left out."""
        sums = sorted(self._sums.copy().items(), key=lambda entry: -entry[1])
        return {name: total / self.frames for name, total in sums}


@dataclass
class SourceStats:
    """The fate of one source's frames.

    Attributes:
        live: Whether it goes at its own pace, so that frames nobody takes are dropped.
        state: ``READY``, ``RUNNING``, ``ENDED`` or ``FAILED``; a live source is also
            ``CONNECTING``, ``STALLED`` (connected, but silent), ``BACKOFF`` (waits before it
            tries again) or ``PAUSED``.
        error: Why it failed.
        events: The last changes of state, oldest first.
        connections: How often a live source was opened successfully.
        failures: Why connections could not be made or broke, by cause.
        last_frame: Monotonic seconds of the last good frame's arrival.
        frames_decoded: Pictures that the decoder gave, including those dropped later.
        frames_inferred: Pictures for which detections left the engine stage.
        frames_dropped: Pictures that were not inferred, by cause: ``corrupt``, ``stride``,
            ``max_fps``, ``queue_full``, ``stale``, ``latency_budget``, ``late``,
            ``reconnect_flush``, ``cut_short``.
        anomalies: What was put right on the way, by kind: ``pts_missing``, ``pts_repeated``,
            ``pts_jump``, ``corrupt_packet`` and so on; and ``inexact``, frames for which a bound
            inside of the model's graph was too tight. Frames are not lost by these.
        decoded_by: What has decoded it last; None where nothing was to be decoded.
        offered_fps: Rate that the source declares or was measured to offer; None if unknown.
        source_seconds: Span of presentation time covered so far, in seconds.
        first_arrival, last_sunk: Monotonic seconds of the first decoded and the last sunk frame.
        latency: Arrival (decoder) to sink.
        transit: Camera to arrival, where the camera tells its time of day (RTCP); as wrong as
            its clock is against ours.
        pixels: Shares of the pictures by class; empty without a model that knows every pixel.
        glass_to_sink: From the clock painted in the picture to the sink, where that is read.
    """

    name: str
    live: bool = False
    state: State = "READY"
    error: str | None = None
    events: tuple[Event, ...] = ()
    connections: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    last_frame: float | None = None
    frames_decoded: int = 0
    frames_inferred: int = 0
    frames_dropped: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)
    decoded_by: DecodedBy | None = None
    offered_fps: float | None = None
    source_seconds: float = 0.0
    first_arrival: float | None = None
    last_sunk: float | None = None
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    transit: LatencyHistogram = field(default_factory=LatencyHistogram)
    glass_to_sink: LatencyHistogram = field(default_factory=LatencyHistogram)
    inferred_rate: RecentRate = field(default_factory=RecentRate)
    pixels: PixelShares = field(default_factory=PixelShares)

    def changed(self, state: State, cause: str | None = None, detail: str = "") -> None:
        """Enter a state and remember when and why.

        Args:
            state: The new state.
            cause: Why, in one word.
            detail: Why, in a sentence; must hold no secret.
        """
        # In this order: others look for the reason as soon as they see the state.
        self.events = (*self.events, Event(time.time(), state, cause, detail))[-EVENTS_KEPT:]
        self.state = state

    def came_after(self, transit: float) -> None:
        """A frame arrived so many seconds after the moment at which its camera says it took it."""
        if 0 <= transit < MOST_TRANSIT_SECONDS:
            self.transit.add(transit)
        else:
            self.anomalies["camera_clock_wrong"] += 1

    @property
    def recent_fps(self) -> float | None:
        """Inferred frames/s over the last ten seconds; None while the source gives none."""
        if self.state != "RUNNING":
            return None
        return self.inferred_rate.per_second(time.monotonic())

    @property
    def in_flight(self) -> int:
        """Decoded, but neither inferred nor dropped yet."""
        return self.frames_decoded - self.frames_inferred - self.dropped

    @property
    def dropped(self) -> int:
        """Dropped for whatever cause; of a copy, because another thread may add a cause."""
        return self.frames_dropped.copy().total()

    @property
    def fps(self) -> float | None:
        """Sunk frames over the time from the first arrival to the last of them.

        Frames that are inferred after all outputs have failed do not count.
        """
        if self.first_arrival is None or self.last_sunk is None:
            return None
        span = self.last_sunk - self.first_arrival
        return self.latency.count / span if span > 0 else None

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of source time handled per second of wall time, likewise of sunk frames."""
        if self.first_arrival is None or self.last_sunk is None or not self.source_seconds:
            return None
        sunk = self.latency.count / max(self.frames_inferred, self.latency.count)
        return sunk * self.source_seconds / max(self.last_sunk - self.first_arrival, 1e-9)


class Queue(Protocol):
    """What holds the items that a stage has made."""

    @property
    def mean_occupancy(self) -> float: ...
    @property
    def held(self) -> int: ...


@dataclass(eq=False)  # of two that have done nothing yet, each is still itself
class StageStats:
    """What one thread did. `busy_seconds` leaves out the time spent waiting for neighbours."""

    name: str
    items: int = 0
    busy_seconds: float = 0.0
    queue: Queue | None = None
    queue_mean_before: float = 0.0

    @property
    def queue_mean(self) -> float:
        """Mean number of items waiting behind this stage."""
        return self.queue.mean_occupancy if self.queue else self.queue_mean_before

    def absorb(self, other: StageStats) -> None:
        """Add what an ended stage of the same name did; its queue is not kept."""
        self.items += other.items
        self.busy_seconds += other.busy_seconds
        self.queue_mean_before = max(self.queue_mean_before, other.queue_mean)
