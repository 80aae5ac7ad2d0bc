"""Keep a latency budget by giving things up, and take them back when there is room again.

First frame rate, because a camera's next frame says nearly the same; then what decoding costs,
because that shows in the picture; at last a smaller input of the network, where the model file
has one, because then small things are not found any more. What was given up, and for how long, is
in the report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.bookkeeping.metrics import LatencyHistogram, SourceStats
from pipeline.sources.live.decoder import DecodeEffort

WINDOW_SECONDS = 2.0  # between two judgements at least; long enough for a concession to show
LONGEST_SECONDS = 10.0  # while nothing is given up: an outage would spoil the rate that is measured
FEWEST_FRAMES = 8  # that a judgement is based on
ROOM = 0.6  # of the budget; below it there may be room for what was given up
CALM_SECONDS = (6.0, 96.0)  # before something is taken back: at first, and at most

# Books of each source, with its latency and frames so far.
Counts = dict[str, tuple[SourceStats | None, LatencyHistogram, int]]
NOTHING = (None, LatencyHistogram(), 0)


@dataclass(frozen=True)
class Concession:
    """One step of giving up.

    Attributes:
        words: What it is, for people.
        rate: Share of the frame rate that the line had before the first step.
        effort: How well the cameras' pictures are decoded.
        input_hw: Height and width in pixels at which the network looks at them; None: the usual.
    """

    words: str
    rate: float
    effort: DecodeEffort = DecodeEffort.FULL
    input_hw: tuple[int, int] | None = None


LADDER = (
    Concession("nothing", 1.0),
    Concession("a quarter of the frame rate", 3 / 4),
    Concession("half of the frame rate", 1 / 2),
    Concession("two thirds of the frame rate", 1 / 3),
    Concession(
        "two thirds of the frame rate, and the loop filter", 1 / 3, DecodeEffort.NO_LOOP_FILTER
    ),
    Concession(
        "three quarters of the frame rate, and the loop filter", 1 / 4, DecodeEffort.NO_LOOP_FILTER
    ),
    Concession("all but reference frames", 1 / 4, DecodeEffort.REFERENCES),
    Concession("all but an eighth of the frame rate", 1 / 8, DecodeEffort.REFERENCES),
)


def ladder(smaller_hw: Sequence[tuple[int, int]]) -> tuple[Concession, ...]:
    """All steps, with one more for each smaller input that the model file has."""
    last = LADDER[-1]
    smaller = [
        replace(last, words=f"{last.words}, and an input larger than {h}x{w}", input_hw=(h, w))
        for h, w in smaller_hw
    ]
    return *LADDER, *smaller


class Governor:
    """Watches the live sources' latency; call `update` a few times a second.

    Args:
        budget_ms: What 95 of 100 frames may take from arrival to sink; None: whatever it takes.
        sources: All that are in the line; may change.
        clock: Monotonic seconds.
        smaller_hw: Other sizes of the network's input that there are, ever smaller.
    """

    def __init__(
        self,
        budget_ms: float | None,
        sources: Callable[[], Iterable[SourceStats]],
        clock: Callable[[], float] = time.monotonic,
        smaller_hw: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._ladder = ladder(smaller_hw)
        self._budget_ms, self._sources, self._clock = budget_ms, sources, clock
        self._limit_fps: Callable[[float | None], None] = lambda _fps: None
        self._set_effort: Callable[[DecodeEffort], None] = lambda _effort: None
        self._level = 0
        self._full_fps = 0.0  # of the fastest source, when there was no trouble yet
        self._earlier: Counts = {}
        self._judged = self._stepped = clock()
        self._calm_seconds, self._calm_since = CALM_SECONDS[0], clock()
        self._took_back = -CALM_SECONDS[1]
        self._windows, self._windows_kept = 0, 0
        self._seconds = dict.fromkeys(self._ladder, 0.0)

    @property
    def given_up(self) -> Concession:
        """The concession in force. May be asked for at any time, from any thread."""
        return self._ladder[self._level]

    def input_hw(self) -> tuple[int, int] | None:
        """Height and width at which the network shall look at frames; None: the usual."""
        return self.given_up.input_hw

    def steer(
        self, limit_fps: Callable[[float | None], None], set_effort: Callable[[DecodeEffort], None]
    ) -> None:
        """Say what to turn.

        Args:
            limit_fps: Takes the most frames/s of each source, or None for all.
            set_effort: Takes what decoders shall do.
        """
        self._limit_fps, self._set_effort = limit_fps, set_effort

    def update(self) -> None:
        """Judge the time since the last judgement, if enough has happened in it."""
        now = self._clock()
        if self._budget_ms is None or now - self._judged < WINDOW_SECONDS:
            return
        latency, fps, measured = self._measure(now - self._judged)
        enough = latency.count >= FEWEST_FRAMES
        if not enough and latency.count and (self._level or now - self._judged < LONGEST_SECONDS):
            return  # slow cameras: the window grows until there is enough to judge by
        self._judged, self._earlier = now, measured
        if not enough:
            return
        share = (latency.percentile_ms(95) or 0.0) / self._budget_ms
        self._windows += 1
        self._windows_kept += share <= 1
        if share > 1:
            self._give_up(now, fps)
        elif share > ROOM:
            self._calm_since = now
        elif now - self._calm_since >= self._calm_seconds:
            self._take_back(now)

    def report(self) -> dict[str, Any] | None:
        """What was promised, how often it was kept, and what that cost; None without a budget.

        May be asked for at any time, from any thread.
        """
        if self._budget_ms is None:
            return None
        kept = self._windows_kept / self._windows if self._windows else None
        given_up, seconds = self.given_up, self._seconds.copy()
        seconds[given_up] += self._clock() - self._stepped
        return {
            "budget_ms": self._budget_ms,
            "kept": None if kept is None else round(kept, 4),
            "given_up": given_up.words,
            "seconds_given_up": {
                step.words: round(spent, 1)
                for step, spent in seconds.items()
                if spent and step is not LADDER[0]
            },
        }

    def _measure(self, seconds: float) -> tuple[LatencyHistogram, float, Counts]:
        """Latency of all live sources in this window, the fastest one's frames/s, all counts."""
        total, fastest = LatencyHistogram(), 0.0
        measured: Counts = {}
        for stats in self._sources():
            if stats.live:
                books, latency, inferred = self._earlier.get(stats.name, NOTHING)
                if books is not stats:  # it is new, or has come back under its name
                    _, latency, inferred = NOTHING
                now = stats, stats.latency.copy(), stats.frames_inferred
                total.absorb(now[1].since(latency))
                fastest = max(fastest, (now[2] - inferred) / seconds)
                measured[stats.name] = now
        return total, fastest, measured

    def _give_up(self, now: float, fps: float) -> None:
        if self._level == 0:
            self._full_fps = fps
        if now - self._took_back < CALM_SECONDS[1]:  # that was too early
            self._calm_seconds = min(2 * self._calm_seconds, CALM_SECONDS[1])
        self._took_back = -CALM_SECONDS[1]
        self._calm_since = now
        self._enter(min(self._level + 1, len(self._ladder) - 1))

    def _take_back(self, now: float) -> None:
        if self._level == 0:
            self._calm_seconds = CALM_SECONDS[0]
            return
        self._took_back = self._calm_since = now
        self._enter(self._level - 1)

    def _enter(self, level: int) -> None:
        if level == self._level:
            return
        now = self._clock()
        self._seconds[self.given_up] += now - self._stepped
        self._stepped = now
        self._level = level
        self._limit_fps(self.given_up.rate * self._full_fps if level else None)
        self._set_effort(self.given_up.effort)
