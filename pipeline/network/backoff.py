"""How long to wait before a camera is tried again."""

from __future__ import annotations

import random

from pipeline.network.causes import Cause

# Trying often would lock the account, fill the camera's log, or just not help.
_SLOW = {Cause.UNAUTHORISED, Cause.NOT_FOUND, Cause.UNSUPPORTED_CODEC, Cause.NO_VIDEO}
# A server that has just come back does not have its streams in place at once.
_PASSING = {Cause.NOT_FOUND, Cause.NO_VIDEO}

_FIRST, _LONGEST = 1.0, 30.0
_SLOW_FIRST, _SLOW_LONGEST = 15.0, 60.0
_AT_ONCE = 0.25
_JITTER = 0.25  # a share, so that many cameras behind one switch do not all come at once


class Backoff:
    """Waits that grow from one failure to the next, 1 to 30 s; 15 to 60 s for the slow causes.

    A camera that was there a moment ago is mostly back soon: the first try follows at once, and
    for `fresh_seconds` the tries stay about a second apart, so that a restart of the camera
    costs no more than itself. Only after that they grow.

    Attributes:
        failures: Attempts in a row that have failed; the end of a good connection is none.

    Args:
        stable_seconds: A connection that gave pictures for so long was a good one.
        fresh_seconds: How long after a good connection the camera is expected back any moment.
        chance: Where the jitter comes from.
    """

    def __init__(
        self,
        stable_seconds: float = 10.0,
        fresh_seconds: float = 30.0,
        chance: random.Random | None = None,
    ) -> None:
        self.failures = 0
        self._stable, self._fresh = stable_seconds, fresh_seconds
        self._chance = chance or random.Random()
        self._broke: float | None = None  # when the last good connection did
        self._longer = 0  # how often the wait was doubled

    def wait_after(self, cause: Cause, now: float, good_seconds: float) -> float:
        """How many seconds to wait after a failure.

        Args:
            cause: Of the failure.
            now: Monotonic seconds.
            good_seconds: From the connection's first good picture to its last; 0 if none came.
        """
        if good_seconds >= self._stable or (good_seconds > 0 and self._broke is None):
            self.failures, self._longer, self._broke = 0, 0, now
            return self._jittered(_AT_ONCE)
        self.failures += 1
        fresh = self._broke is not None and now - self._broke < self._fresh
        if cause in _SLOW and not (fresh and cause in _PASSING):
            return self._doubled(_SLOW_FIRST, _SLOW_LONGEST)
        return self._jittered(_FIRST) if fresh else self._doubled(_FIRST, _LONGEST)

    def _doubled(self, first: float, longest: float) -> float:
        wait = min(first * 2.0**self._longer, longest)
        self._longer = min(self._longer + 1, 16)
        return min(self._jittered(wait), longest)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._chance.uniform(1 - _JITTER, 1 + _JITTER)
