"""Timestamps as cameras send them -> one clock that rises, whatever the camera does.

A live source has a second witness that a file lacks: the moment of arrival. A camera's own
timestamps are finer, so they are followed as long as they agree with it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

TIME_BASE = Fraction(1, 90_000)
"""Of every live source, so that it stays the same whatever comes after a reconnect."""

_TICKS = TIME_BASE.denominator
_AHEAD_SECONDS = 2.0  # farther than this timestamps do not run ahead of the time that passed
_WINDOW_SECONDS = 30.0  # twice this long the fastest transit is remembered
_PATIENCE_SECONDS = 1.0  # pictures that come late for so long, without catching up, are the norm
_CATCHING_UP = 0.25  # seconds of delay made up in a second

Count = Callable[[str], None]


class LiveClock:
    """Place the pictures of one connection on the source's clock, in ticks of `TIME_BASE`.

    The first one lands where real time is: as long after `epoch` as it arrived. From then on the
    camera's timestamps say the distances. A timestamp that goes back, or farther ahead than the
    time that passed, is a jump: the clock is set anew, so that this distance is the one between
    the arrivals, and ``pts_jump`` counted. Missing and repeated timestamps are replaced likewise.
    A camera whose clock runs fast is followed at half speed, and ``clock_fast`` counted, whenever
    it has got too far ahead of the arrivals; where it runs slow, see `Lateness`.

    Attributes:
        settings: How often the clock was set.

    Args:
        epoch: Monotonic seconds at which the source's clock was 0.
        after: Ticks that every picture must exceed.
        count: Called with the kind of every anomaly.
    """

    def __init__(self, epoch: float, after: int, count: Count) -> None:
        self._epoch, self._last, self._count = epoch, after, count
        self.settings = 0
        self._shift: float | None = None  # what to add to a timestamp
        self._given = 0.0
        self._seconds, self._arrival = 0.0, epoch  # of the last picture

    def place(self, given: float | None, arrival: float) -> int:
        """The next picture's time.

        Args:
            given: Its timestamp in seconds, None without one.
            arrival: Monotonic seconds.
        """
        waited = arrival - self._arrival
        seconds = self._seconds + waited
        if given is None:
            self._count("pts_missing")
        elif self._shift is not None and given == self._given:
            self._count("pts_repeated")
        else:
            if self._shift is None or self._jumped(given, waited):
                self._shift = seconds - given
                self.settings += 1
            elif given + self._shift > arrival - self._epoch + _AHEAD_SECONDS:
                self._count("clock_fast")
                self._shift = self._seconds + min(given - self._given, waited / 2) - given
            self._given, seconds = given, given + self._shift
        self._seconds, self._arrival = seconds, arrival
        return self._rising(seconds)

    def arrived(self, arrival: float) -> int:
        """The next picture's time, where a connection has no clock: when it arrived."""
        return self._rising(arrival - self._epoch)

    def catch_up(self, seconds: float) -> None:
        """Add a delay that has come to stay to all timestamps from now on."""
        if self._shift is not None:
            self._shift += seconds
            self._seconds += seconds

    def _jumped(self, given: float, waited: float) -> bool:
        if 0 < given - self._given <= waited + _AHEAD_SECONDS:
            return False
        self._count("pts_jump")
        return True

    def _rising(self, seconds: float) -> int:
        self._last = max(self._last + 1, round(seconds * _TICKS))
        return self._last


class Lateness:
    """Tells pictures that were held up on the way from those that come as they are taken.

    A server that was silent often sends what it kept as soon as it can. Such pictures took
    longer from their timestamp to their arrival than others did. When all pictures keep coming
    late and the delay does not shrink, it is not a delay but another clock: it becomes the norm.

    Args:
        limit: Seconds later than the fastest of the last half minute that are still in time.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._setting = 0
        self._best: float | None = None  # of the present window
        self._best_before: float | None = None  # of the window before
        self._window_end = 0.0
        self._late_since: float | None = None
        self._late_by = 0.0

    def of(self, time: float, arrival: float, setting: int) -> float:
        """How much later than usual a picture comes, in seconds; 0 if that is within the limit.

        Args:
            time: When it was taken.
            arrival: When it came, on another clock.
            setting: Of the clock of `time`; with another one all is measured anew.
        """
        if setting != self._setting:
            self._setting = setting
            self.forget()
        transit = arrival - time
        late = self._over_best(transit, arrival)
        if late <= self._limit:
            self._late_since = None
            return 0.0
        if self._late_since is None:
            self._late_since, self._late_by = arrival, late
        return late

    def has_become_the_norm(self, late: float, arrival: float) -> bool:
        """Tell whether a delay has come to stay; if so it counts as none from now on."""
        if self._late_since is None or arrival - self._late_since < _PATIENCE_SECONDS:
            return False
        made_up = self._late_by - late
        if made_up >= _CATCHING_UP * (arrival - self._late_since):
            self._late_since, self._late_by = arrival, late
            return False
        self.forget()
        return True

    def forget(self) -> None:
        """Begin anew."""
        self._best = self._best_before = self._late_since = None

    def _over_best(self, transit: float, arrival: float) -> float:
        if arrival >= self._window_end:
            self._best_before, self._best = self._best, None
            self._window_end = arrival + _WINDOW_SECONDS
        self._best = transit if self._best is None else min(self._best, transit)
        before = self._best if self._best_before is None else self._best_before
        return transit - min(self._best, before)


class DueTimes:
    """When pictures that can be had at any time are due, so that they come at their own pace.

    For recordings, and for servers that hand out what they have as fast as it is fetched (HLS).

    Args:
        longest_pause: Seconds; a larger step of the timestamps, or one back, begins anew.
        may_be_behind: Seconds behind its time from which a picture begins anew; None: never, so
            that what was lost on a slow machine is made up.
    """

    def __init__(self, longest_pause: float = 10.0, may_be_behind: float | None = None) -> None:
        self._longest_pause, self._may_be_behind = longest_pause, may_be_behind
        self._zero: float | None = None  # monotonic time of timestamp 0
        self._last = 0.0

    def of(self, given: float, now: float) -> float:
        """Monotonic time at which the picture with the timestamp `given` (seconds) is due."""
        step, self._last = given - self._last, given
        if self._zero is None or not 0 <= step <= self._longest_pause:
            self._zero = now - given
        if self._may_be_behind is not None and now - self._zero - given > self._may_be_behind:
            self._zero = now - given
        return self._zero + given
