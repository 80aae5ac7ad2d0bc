"""What the page shows: the newest picture and the last detections of every source.

The line pins results on the board; viewers look at it whenever they have time. So a slow viewer
sees fewer pictures, and nobody waits for anybody. A picture becomes a JPEG when the first viewer
wants it, and stays one for the others.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.bookkeeping.metrics import RECENT_SECONDS
from pipeline.frame import Result
from pipeline.serve.jpeg import to_jpeg

PAGE_WIDTH = 1280  # pixels; wider pictures are scaled down
_LATENCIES_KEPT = 1200  # of each source: ten seconds of 120 frames/s


class Shot:
    """A result, and its JPEG once somebody has asked for it.

    Attributes:
        result: What the line found.
        serial: Rises from shot to shot, whichever source they are of.
        pinned: Monotonic seconds.
    """

    def __init__(self, result: Result, serial: int) -> None:
        self.result = result
        self.serial = serial
        self.pinned = time.monotonic()
        self._jpeg: bytes | None = None
        self._encoding = threading.Lock()

    @property
    def jpeg(self) -> bytes | None:
        """The picture for the page if it has been encoded."""
        return self._jpeg

    def encode(self) -> bytes:
        """The picture for the page; only the first call does any work."""
        with self._encoding:
            if self._jpeg is None:
                self._jpeg = to_jpeg(self.result, widest=PAGE_WIDTH)
            return self._jpeg

    @property
    def age(self) -> float:
        """Seconds since the picture came from the decoder."""
        return time.monotonic() - self.result.frame.arrival


@dataclass
class Sighting:
    """When a class was seen last.

    Attributes:
        wall_time: Seconds since the epoch.
        count: Objects in that picture.
        score: Of the surest of them.
    """

    wall_time: float
    count: int
    score: float


class Feed:
    """One source's place on the board; written by one thread."""

    def __init__(self, name: str, class_names: Sequence[str]) -> None:
        self.name = name
        self.class_names = tuple(class_names)
        self.shot: Shot | None = None
        self.sightings: dict[str, Sighting] = {}
        self._latencies: tuple[tuple[float, float], ...] = ()

    def note(self, shot: Shot) -> None:
        """Put up a new shot and remember what is on it."""
        found = shot.result.detections
        seen: dict[str, Sighting] = {}
        now = time.time()
        for class_id, score in zip(found.class_ids.tolist(), found.scores.tolist(), strict=True):
            sighting = seen.setdefault(self.class_names[class_id], Sighting(now, 0, 0.0))
            sighting.count += 1
            sighting.score = max(sighting.score, score)
        self.sightings = self.sightings | seen
        self._latencies = (*self._latencies[1 - _LATENCIES_KEPT :], (shot.pinned, shot.age))
        self.shot = shot

    def latency_ms(self) -> dict[str, float] | None:
        """p50, p95 and p99 from decoder to board over the last seconds; None without any."""
        begin = time.monotonic() - RECENT_SECONDS
        recent = sorted(age for pinned, age in self._latencies if pinned >= begin)
        if not recent:
            return None
        ranks = {p: math.ceil(len(recent) * p / 100) - 1 for p in (50, 95, 99)}
        return {f"p{p}": round(recent[rank] * 1e3, 2) for p, rank in ranks.items()}


class Board:
    """The newest shot of every source; safe to use from any thread."""

    def __init__(self) -> None:
        self._feeds: dict[str, Feed] = {}
        self._wakers: dict[Callable[[], None], bool] = {}  # wants to hear of every shot
        self._serials = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """There will be no more shots."""
        return self._closed.is_set()

    @property
    def viewers(self) -> int:
        """Streams of pictures that are being sent."""
        return sum(self._wakers.copy().values())

    def names(self) -> list[str]:
        """The sources that have a place here."""
        with self._lock:
            return list(self._feeds)

    def feed(self, name: str) -> Feed | None:
        """A source's place, if it has one."""
        return self._feeds.get(name)

    def open(self, name: str, class_names: Sequence[str]) -> Feed:
        """Give a source a place, in which nothing is shown yet."""
        feed = Feed(name, class_names)
        with self._lock:
            self._feeds[name] = feed
        return feed

    def pin(self, feed: Feed, result: Result) -> None:
        """Show a result, and tell the viewers."""
        feed.note(Shot(result, next(self._serials)))
        self._wake(new_shot=True)

    def forget(self, feed: Feed) -> None:
        """Take a source's place away; what is still pinned there is seen by nobody."""
        with self._lock:
            if self._feeds.get(feed.name) is feed:
                del self._feeds[feed.name]
        self._wake()

    def close(self) -> None:
        """Let every viewer go."""
        self._closed.set()
        self._wake()

    @contextmanager
    def watched(self, wake: Callable[[], None], *, shots: bool = True) -> Iterator[None]:
        """Inside the block `wake` is called, from any thread, when a source or the board goes.

        With `shots` also whenever there is a new one.
        """
        with self._lock:
            self._wakers[wake] = shots
        try:
            yield
        finally:
            with self._lock:
                del self._wakers[wake]

    def _wake(self, new_shot: bool = False) -> None:
        with self._lock:
            wakers = [wake for wake, shots in self._wakers.items() if shots or not new_shot]
        for wake in wakers:
            wake()
