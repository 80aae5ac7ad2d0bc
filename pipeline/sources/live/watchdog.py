"""Judges a connection from outside its thread, by the pictures that came of it."""

from __future__ import annotations

from enum import Enum

from pipeline.network.causes import Cause, Trouble
from pipeline.settings import LiveSettings
from pipeline.sources.live.mailbox import Mailbox

_SILENCE_SECONDS = 2.0  # without a picture: the source counts as stalled
_GRACE_SECONDS = 0.3  # for a reader to report its own deadline, which tells more


class Verdict(Enum):
    """What a connection looks like."""

    OPENING = "opening"
    WAITING = "waiting"  # open, but no picture yet
    GOOD = "good"
    STALLED = "stalled"


class Watchdog:
    """Watches one connection.

    Args:
        mailbox: Of the connection; its desk must be held when asking.
        live: The deadlines.
        begin: Monotonic seconds at which the connection was begun.
    """

    def __init__(self, mailbox: Mailbox, live: LiveSettings, begin: float) -> None:
        self._mailbox, self._live, self._begin = mailbox, live, begin

    def judge(self, now: float) -> Verdict:
        """Look at the connection.

        Raises:
            Trouble: It is to be given up.
        """
        box = self._mailbox
        if box.opened_at is None:
            if now >= self._open_deadline:
                deadline = self._live.open_seconds
                raise Trouble(Cause.TIMEOUT, f"no usable answer within {deadline:g} s")
            return Verdict.OPENING
        silent = now - self._last_sign(box.opened_at)
        if silent >= self._longest_silence:
            raise self._silence()
        if silent >= self._silence_seconds and box.last_good is not None:
            return Verdict.STALLED
        return Verdict.GOOD if box.last_good is not None else Verdict.WAITING

    def looks_again_in(self, now: float) -> float:
        """Seconds after which the verdict may be another although nothing has come."""
        opened = self._mailbox.opened_at
        if opened is None:
            return max(0.0, self._open_deadline - now)
        last = self._last_sign(opened)
        due = (last + self._silence_seconds, last + self._longest_silence)
        return max(0.001, min((at - now for at in due if at > now), default=0.0))

    @property
    def _open_deadline(self) -> float:
        return self._begin + self._live.open_seconds + _GRACE_SECONDS

    @property
    def _silence_seconds(self) -> float:
        fps = self._mailbox.offered_fps
        return max(_SILENCE_SECONDS, 2 / fps) if fps else _SILENCE_SECONDS

    @property
    def _longest_silence(self) -> float:
        return max(self._live.stall_seconds, self._silence_seconds)

    def _last_sign(self, opened: float) -> float:
        return opened if self._mailbox.last_sign is None else self._mailbox.last_sign

    def _silence(self) -> Trouble:
        seconds = f"for {self._longest_silence:g} s"
        if self._mailbox.damaged_since_good:
            return Trouble(Cause.CORRUPT, f"every picture is damaged {seconds}")
        return Trouble(Cause.STALLED, f"no good picture {seconds}")
