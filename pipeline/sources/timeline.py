"""Timestamps as files have them -> timestamps that rise.

Sane timestamps pass untouched, so variable frame rates are kept to the tick. What is missing,
repeated or jumps is put right and counted.
"""

from __future__ import annotations

from collections import Counter, deque
from fractions import Fraction

_FALLBACK_RATE = 25  # frames/s, for a stream that says nothing about its time
_SLACK_SECONDS = 0.5  # what can be made up; a clock that is farther behind was set back
_RECENT = 32  # timestamps that the measured frame distance is taken from


class Timeline:
    """Place the pictures of one stream on a clock that starts at the file's beginning.

    A timestamp is *sane* when it lies after the last one, by no more than the longest gap. A
    jump (in either direction) shifts the clock so that the stream goes on one frame later; as
    soon as a timestamp makes sense on the original clock again, that one is used, so a stray
    timestamp leaves no lasting shift between picture and sound. Where pictures were put in
    for which the file has no room, the next ones follow a tick apart until it is made up.

    Args:
        time_base: Seconds per unit of the timestamps.
        rate: Declared frames/s, None if unknown.
        origin: The timestamp that becomes 0.
        longest_gap: Seconds; a larger step forward is a jump, not a pause.
        anomalies: Where ``pts_missing``, ``pts_repeated`` and ``pts_jump`` are counted.
    """

    def __init__(
        self,
        time_base: Fraction,
        rate: Fraction | None,
        *,
        origin: int = 0,
        longest_gap: float = 3600.0,
        anomalies: Counter[str] | None = None,
    ) -> None:
        self.anomalies: Counter[str] = Counter() if anomalies is None else anomalies
        self._nominal_step = max(1, round(1 / ((rate or _FALLBACK_RATE) * time_base)))
        self._longest_gap = max(int(longest_gap / time_base), 10 * self._nominal_step)
        self._slack = max(int(_SLACK_SECONDS / time_base), 3 * self._nominal_step)
        self._home = -origin  # what to add to a timestamp, on the original clock
        self._shift = -origin  # the same, since the last jump
        self._last: int | None = None
        self._last_given: int | None = None
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT)  # (picture, given timestamp)
        self._pictures = 0

    @property
    def step(self) -> int:
        """Units from one picture to the next: as declared, or as measured where that is less."""
        if len(self._recent) > 1:
            (first, begin), (last, end) = self._recent[0], self._recent[-1]
            measured = round((end - begin) / (last - first))
            if measured > 0:
                return min(measured, self._nominal_step)
        return self._nominal_step

    def place(self, given: int | None) -> int:
        """The next picture's timestamp on this clock; greater than all before.

        Args:
            given: Its timestamp in the file, None if there is none.
        """
        self._last = self._first(given) if self._last is None else self._next(given, self._last)
        if given is not None:
            self._last_given = given
            self._recent.append((self._pictures, given))
        self._pictures += 1
        return self._last

    def _first(self, given: int | None) -> int:
        if given is None:
            self.anomalies["pts_missing"] += 1
            return 0
        if not 0 <= given + self._home <= self._longest_gap:
            self.anomalies["pts_jump"] += 1
            self._home = self._shift = -given
        return given + self._home

    def _next(self, given: int | None, last: int) -> int:
        if given is None:
            self.anomalies["pts_missing"] += 1
            return last + self.step
        if given == self._last_given:
            self.anomalies["pts_repeated"] += 1
            return last + self.step
        rises = self._last_given is None or given > self._last_given
        nearly: int | None = None
        for clock in (self._home, self._shift):
            if last < given + clock <= last + self._longest_gap:
                self._shift = clock
                return given + clock
            if last - self._slack <= given + clock <= last:
                self._shift = nearly = clock
                break
        if rises and nearly is not None:  # it is us who are early
            return last + 1
        self.anomalies["pts_jump"] += 1
        landing = last + self.step
        if nearly is None:
            self._shift = landing - given
            self._recent.clear()
        return landing
