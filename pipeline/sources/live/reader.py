"""The blocking half of a live source: runs one connection on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import av

from pipeline.bookkeeping.metrics import MOST_TRANSIT_SECONDS
from pipeline.errors import UnsupportedCodec
from pipeline.network.causes import Cause, Trouble
from pipeline.settings import LiveSettings
from pipeline.sources.delivery import Thinning
from pipeline.sources.live.clock import TIME_BASE, Lateness, LiveClock
from pipeline.sources.live.connection import Connection, Picture
from pipeline.sources.live.mailbox import Arrival, Closed, Mailbox
from pipeline.sources.painted import Unreadable, read_picture
from pipeline.sources.upright import Upright

_CLOCK_STEP = 0.002  # seconds; painted clocks count milliseconds

Connect = Callable[[], Connection]


class Reader:
    """Reads one connection into a mailbox until it breaks, or the mailbox is closed.

    Args:
        connect: Makes the connection; nothing is done before it is entered.
        mailbox: Takes pictures, counts, and the end.
        clock: Places the pictures in time.
        thinning: Which pictures are wanted at all.
        live: From which delay on a picture is too old; whether a clock is painted in them.
    """

    def __init__(
        self,
        connect: Connect,
        mailbox: Mailbox,
        clock: LiveClock,
        thinning: Thinning,
        live: LiveSettings,
    ) -> None:
        self._connect, self._mailbox, self._clock = connect, mailbox, clock
        self._thinning, self._lateness = thinning, Lateness(live.late_seconds)
        self._reads_clock = live.painted_clock
        self._upright = Upright()

    def run(self) -> None:
        """Read to the end, whatever it is; what it was is left in the mailbox."""
        try:
            with self._connect() as connection:
                self._mailbox.opened()
                for picture in connection.pictures(self._mailbox):
                    self._deliver(picture)
            end: BaseException = Trouble(Cause.ENDED, "the stream ended")
        except av.FFmpegError:  # its text may hold the address
            end = Trouble(Cause.CORRUPT, "its pictures cannot be used")
        except (Trouble, Closed) as foreseen:
            # A traceback's frames would keep decoder and pictures, megabytes of them, until the
            # garbage collector comes by; which it rarely does in a program that makes little.
            end = foreseen.with_traceback(None)
        except BaseException as error:  # for the source to judge, on its own thread
            end = error
        self._mailbox.ended(end)

    def _deliver(self, picture: Picture) -> None:
        arrival = time.monotonic()
        date = time.time()
        transit = None if picture.taken is None else date - picture.taken
        self._mailbox.came(arrival)
        if picture.is_timed:
            pts = self._clock.place(picture.seconds, arrival)
            late = self._lateness.of(float(pts * TIME_BASE), arrival, self._clock.settings)
            if late and not self._is_norm(late, arrival):
                self._mailbox.drop("late")
                return
        else:
            pts = self._clock.arrived(arrival)
        cause = self._thinning.reason_to_drop(float(pts * TIME_BASE))
        if cause is not None:
            self._mailbox.drop(cause, arrival)
            return
        upright = self._turned(picture.picture)
        painted = self._painted(upright, date, arrival) if self._reads_clock else None
        pixel_hw = self._upright.turned(picture.pixel_hw)
        self._mailbox.put(Arrival(upright, pts, arrival, picture.truth, transit, painted, pixel_hw))

    def _turned(self, picture: av.VideoFrame) -> av.VideoFrame:
        try:
            return self._upright(picture)
        except UnsupportedCodec as error:
            trouble = Trouble(Cause.UNSUPPORTED_CODEC, str(error))
        raise trouble  # out here, so that it keeps no picture

    def _painted(self, picture: av.VideoFrame, date: float, arrival: float) -> float | None:
        """When a clock was painted in a picture that came at a date (Unix), both monotonic."""
        try:
            age = read_picture(picture).age_at(date)
        except Unreadable:
            self._mailbox.count("painted_clock_unreadable")
            return None
        if not -_CLOCK_STEP <= age < MOST_TRANSIT_SECONDS:
            self._mailbox.count("painted_clock_wrong")
            return None
        return arrival - max(0.0, age)

    def _is_norm(self, late: float, arrival: float) -> bool:
        if not self._lateness.has_become_the_norm(late, arrival):
            return False
        self._clock.catch_up(late)
        self._mailbox.count("clock_slipped")
        return True
