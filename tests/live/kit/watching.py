"""Watch a live source as the line would, and note what comes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sources import LiveSource, is_live, open_sources
from tests.live.kit.painting import Painter
from tests.live.kit.reading import Painted, Unreadable, read_painted
from tests.waiting import until

SEES_NOTHING = 1e9


@dataclass(frozen=True)
class Seen:
    """One frame.

    Attributes:
        generation, pts_seconds, index: As the frame says.
        at: Monotonic seconds at which it was handed over.
        size_wh: Width and height.
        number: Painted in it; None if that cannot be read.
        age: Seconds since it was painted, when it was looked at; None likewise.
        age_at_arrival: The same when it arrived.
        fault: Mean difference from what was painted, in grey levels of 255.
    """

    generation: int
    pts_seconds: float
    index: int
    at: float
    size_wh: tuple[int, int]
    number: int | None
    age: float | None
    age_at_arrival: float | None
    fault: float


class Watcher:
    """Reads one source on a thread of its own until the block ends.

    Args:
        url: Of the source; our options behind a ``#``.
        call_seconds: How long each frame is worked on.
    """

    def __init__(self, url: str, call_seconds: float = 0.0) -> None:
        (source,) = open_sources([url])
        assert is_live(source)
        self.source: LiveSource = source
        self.stats = source.stats
        self.seen: list[Seen] = []
        self.error: BaseException | None = None
        self._call_seconds = call_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def states(self) -> list[str]:
        """All states so far."""
        return [event.state for event in list(self.stats.events)]

    @property
    def causes(self) -> list[str]:
        """The causes of all events that have one."""
        return [str(event.cause) for event in list(self.stats.events) if event.cause]

    def wait_frames(self, more: int, within: float = 30.0) -> Sequence[Seen]:
        """Wait for that many frames from now on; return them."""
        begin = len(self.seen)
        until(lambda: len(self.seen) >= begin + more, within, f"{more} frames of {self.stats}")
        return self.seen[begin : begin + more]

    def wait_generation(self, number: int, within: float = 30.0) -> float:
        """Return the seconds until there was a frame of that connection or a later one."""
        wanted = f"a frame of connection {number} of {self.stats}"
        return until(lambda: self.seen[-1].generation >= number, within, wanted)

    def wait_state(self, state: str, within: float = 30.0) -> float:
        """Return the seconds until the source was in that state."""
        return until(lambda: self.stats.state == state, within, f"{state} of {self.stats}")

    def wait_failure(self, cause: str, times: int = 1, within: float = 30.0) -> float:
        """Return the seconds until the source has failed so often for that cause."""
        wanted = f"failure {cause} of {self.stats}"
        return until(lambda: self.stats.failures[cause] >= times, within, wanted)

    def end(self) -> float:
        """End the source; return the seconds it took."""
        begin = time.monotonic()
        self.source.end()
        self._ended.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "frames() did not end"
        return time.monotonic() - begin

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end()
        self.source.close()
        if error is None:
            dropped = sum(self.stats.frames_dropped.values())
            assert self.stats.frames_decoded == self.stats.frames_inferred + dropped

    def _watch(self) -> None:
        try:
            for frame in self.source.frames():
                self.stats.frames_inferred += 1
                picture = frame.picture
                luma = picture.to_ndarray(format="gray")
                painted, fault = judged(luma)
                self.seen.append(
                    Seen(
                        frame.generation,
                        frame.pts_seconds,
                        frame.index,
                        time.monotonic(),
                        (picture.width, picture.height),
                        painted and painted.number,
                        painted and painted.age_seconds,
                        painted and painted.age_at(frame.arrival),
                        fault,
                    )
                )
                self._ended.wait(self._call_seconds)
        except Exception as error:  # the test looks at it
            self.error = error


_painters: dict[tuple[int, int], Painter] = {}


def judged(luma: np.ndarray) -> tuple[Painted | None, float]:
    """What stands in the picture, and how far it is from what was painted under that number."""
    height, width = luma.shape
    try:
        painted = read_painted(luma)
    except Unreadable:
        return None, SEES_NOTHING
    if (width, height) not in _painters:
        _painters[width, height] = Painter(width, height)
    planes = _painters[width, height].picture(painted.number, painted.clock_ms)
    expected = np.frombuffer(planes, np.uint8)[: width * height].reshape(height, width)
    difference = np.abs(luma.astype(np.int16) - expected).mean()
    return painted, float(difference)
