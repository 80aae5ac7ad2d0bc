"""Where a reader leaves the latest picture, and its source finds it together with the counts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass

import av

from pipeline.bookkeeping.metrics import DecodedBy, SourceStats
from pipeline.frame import Truth
from pipeline.placement import SQUARE
from pipeline.sources.live.arrival_rate import ArrivalRate


@dataclass(frozen=True, eq=False)
class Arrival:
    """A good picture that has just been decoded.

    Attributes:
        picture: Upright.
        pts: On the source's clock, see `LiveClock`.
        arrival: Monotonic seconds.
        truth: The true boxes, where they are known.
        transit: Seconds from the camera's own time of day until `arrival`; None unless it tells.
        painted: Monotonic seconds at which a clock was painted in it; None unless that was read.
        pixel_hw: The shape of its pixels, see `Frame`.
    """

    picture: av.VideoFrame
    pts: int
    arrival: float
    truth: Truth | None = None
    transit: float | None = None
    painted: float | None = None
    pixel_hw: tuple[int, int] = SQUARE


class Closed(Exception):
    """Nobody waits for this reader any more; unwind quietly."""


class Mailbox:
    """Between the reader of one connection and its source: latest picture wins, all is counted.

    Every method of the reader raises `Closed` once the source has turned to another connection,
    so nothing of an old one can get through. Counts lie here until the source moves them into
    its statistics, which therefore have one writer.

    Args:
        desk: What the source waits on; shared with all that can interrupt it.
    """

    def __init__(self, desk: threading.Condition) -> None:
        self._desk = desk
        self._latest: Arrival | None = None
        self._decoded = 0
        self._dropped: Counter[str] = Counter()
        self._anomalies: Counter[str] = Counter()
        self._decoder: DecodedBy | None = None
        self._closed = self._has_just_opened = False
        self._rate = ArrivalRate()
        self.opened_at: float | None = None
        self.first_good: float | None = None
        self.last_good: float | None = None
        self.last_sign: float | None = None
        self.offered_fps: float | None = None
        self.damaged_since_good = 0
        self.end: BaseException | None = None

    # For the reader.

    def opened(self) -> None:
        """The connection stands."""
        with self._reading():
            self.opened_at = self.last_sign = time.monotonic()
            self._has_just_opened = True
            self._desk.notify_all()

    def came(self, arrival: float) -> None:
        """The camera has sent a picture, whatever becomes of it."""
        with self._reading():
            self._rate.add(arrival)

    def put(self, arrival: Arrival) -> None:
        """Deliver a good picture; one that still lies here is dropped as ``queue_full``."""
        with self._reading():
            if self._latest is not None:
                self._dropped["queue_full"] += 1
            self._latest = arrival
            self.offered_fps = self._rate.per_second(arrival.arrival)
            self._decoded += 1
            self._good(arrival.arrival)
            self._desk.notify_all()

    def drop(self, cause: str, arrival: float | None = None) -> None:
        """Count a decoded picture that is not delivered; a good one if it has an `arrival`."""
        with self._reading():
            self._decoded += 1
            self._dropped[cause] += 1
            if arrival is not None:
                self._good(arrival)
            elif cause == "corrupt":
                self.damaged_since_good += 1

    def count(self, anomaly: str) -> None:
        """Count something that was put right."""
        with self._reading():
            self._anomalies[anomaly] += 1

    def sign_of_life(self) -> None:
        """The stream goes on, though it was asked to give no picture just now."""
        with self._reading():
            self.last_sign = time.monotonic()

    def spared(self) -> None:
        """The camera has sent a picture that was not decoded, because it would not be wanted."""
        with self._reading():
            self.last_sign = time.monotonic()
            self._rate.add(self.last_sign)
            self._anomalies["spared"] += 1

    def decoded_by(self, decoder: DecodedBy) -> None:
        """Something else decodes from now on."""
        with self._reading():
            self._decoder = decoder

    def wait_until(self, due: float) -> None:
        """Return at a moment of the monotonic clock, or raise `Closed` before."""
        with self._reading():
            while (rest := due - time.monotonic()) > 0:
                self._desk.wait_for(lambda: self._closed, timeout=rest)
                if self._closed:
                    raise Closed

    def ended(self, error: BaseException) -> None:
        """The reader is done, because of `error`."""
        with self._desk:
            self.end = error
            self._desk.notify_all()

    # For the source, which holds the desk.

    @property
    def has_news(self) -> bool:
        """Whether there is something that the source does not know yet."""
        return self._latest is not None or self.end is not None or self._has_just_opened

    def take_opening(self) -> bool:
        """Whether the connection stands now, and did not at the last look."""
        opened, self._has_just_opened = self._has_just_opened, False
        return opened

    def take(self) -> Arrival | None:
        """The latest picture, once."""
        latest, self._latest = self._latest, None
        return latest

    def settle(self, stats: SourceStats) -> None:
        """Move the counts into the statistics of the source."""
        stats.frames_decoded += self._decoded
        stats.frames_dropped.update(self._dropped)
        stats.anomalies.update(self._anomalies)
        stats.decoded_by = self._decoder or stats.decoded_by
        stats.last_frame = self.last_good if self.last_good is not None else stats.last_frame
        if self.offered_fps is not None:
            stats.offered_fps = self.offered_fps
        self._decoded = 0
        self._dropped.clear()
        self._anomalies.clear()

    def close(self, stats: SourceStats) -> None:
        """Take nothing more; what still lies here is counted as ``reconnect_flush``."""
        with self._desk:
            if self.take() is not None:
                self._dropped["reconnect_flush"] += 1
            self.settle(stats)
            self._closed = True
            self._desk.notify_all()

    def _good(self, arrival: float) -> None:
        self.first_good = arrival if self.first_good is None else self.first_good
        self.last_good = self.last_sign = arrival
        self.damaged_since_good = 0

    def _reading(self) -> threading.Condition:
        """The desk, if the reader is still wanted."""
        if self._closed:  # looked at without the lock: it only ever becomes true
            raise Closed
        return self._desk
