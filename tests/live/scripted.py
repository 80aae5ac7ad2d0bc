"""Connections that do what a test says, and ways to watch a source that reads them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from pipeline.frame import Frame
from pipeline.graph import Background, background
from pipeline.network.backoff import Backoff
from pipeline.network.causes import Cause, Trouble
from pipeline.settings import LiveSettings
from pipeline.sources import close_sources
from pipeline.sources.delivery import Limits
from pipeline.sources.live import CameraSource
from pipeline.sources.live.connection import Ledger, Picture
from pipeline.sources.live.decoder import Effort
from tests.clips import as_frame, numbered_picture
from tests.waiting import until

Step = float | Picture | Trouble | str | Callable[[], object] | None


class Script:
    """What the connections of one source do, told while they do it.

    A number is a picture with that timestamp in seconds, None one without, a `Picture` itself; a
    `Trouble` breaks the connection; a string drops a picture for that cause; a function is called,
    on the reader's thread, and may block.
    """

    def __init__(self, *refusals: Trouble, on_open: Callable[[], object] = lambda: None) -> None:
        self.refusals = list(refusals)
        self.on_open = on_open
        self.steps: queue.Queue[Step] = queue.Queue()
        self.opened = self.closed = 0

    def give(self, *steps: Step) -> None:
        for step in steps:
            self.steps.put(step)

    def __enter__(self) -> Script:
        self.on_open()
        if self.refusals:
            raise self.refusals.pop(0)
        self.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def pictures(self, ledger: Ledger) -> Iterator[Picture]:
        while True:
            try:
                step = self.steps.get(timeout=0.02)
            except queue.Empty:
                ledger.wait_until(0.0)  # notices when nobody is interested any more
                continue
            if isinstance(step, Trouble):
                raise step
            if isinstance(step, str):
                ledger.drop(step)
            elif isinstance(step, Picture):
                yield step
            elif callable(step):
                step()
            else:
                yield Picture(a_picture(), step)


def a_picture(size: tuple[int, int] = (32, 24)):
    return as_frame(numbered_picture(7, size), "yuv420p")


def ended() -> Trouble:
    return Trouble(Cause.ENDED, "the server ended the stream")


def refused() -> Trouble:
    return Trouble(Cause.REFUSED, "connection refused")


class Impatient(Backoff):
    """Tries again at once."""

    def wait_after(self, cause: Cause, now: float, good_seconds: float) -> float:
        return min(0.02, super().wait_after(cause, now, good_seconds))


def camera(
    script: Script, *, max_frames: int | None = None, duration: float | None = None, **live: object
) -> CameraSource:
    return CameraSource(
        name="cam",
        url="rtsp://cam/front",
        connect=lambda: script,
        live=LiveSettings(**live),
        limits=Limits(max_frames, duration),
        effort=Effort(),
        backoff=Impatient(),
    )


class Watched:
    """A source that is read on another thread, and what came of it.

    Attributes:
        error: What ended it, if it failed.
    """

    def __init__(self, source: CameraSource) -> None:
        self.source = source
        self.frames: list[Frame] = []
        self.error: BaseException | None = None
        self.returned = threading.Event()
        self._thread: Background = background(self._run, "watched source")

    def _run(self) -> None:
        try:
            for frame in self.source.frames():
                self.frames.append(frame)
        except BaseException as error:  # the test looks at it
            self.error = error
        self.returned.set()

    @property
    def states(self) -> list[str]:
        return [event.state for event in self.source.stats.events]

    @property
    def causes(self) -> list[str]:
        """Of every failure, in order."""
        events = self.source.stats.events
        return [str(event.cause) for event in events if event.state in ("BACKOFF", "FAILED")]

    def wait_for(self, state: str, within: float = 30.0) -> float:
        """Seconds until the source was in that state at least once more than before."""
        return until(lambda: self.source.stats.state == state, within, f"the state {state}")

    def wait_for_frames(self, count: int, within: float = 30.0) -> float:
        """Seconds until `count` frames have come in all."""
        return until(lambda: len(self.frames) >= count, within, f"frame {count}")

    def end(self) -> float:
        """End the source; how many seconds that took."""
        begin = time.monotonic()
        self.source.end()
        assert self.returned.wait(30)
        return time.monotonic() - begin

    def check(self) -> None:
        """What must hold for every source at its end."""
        stats = self.source.stats
        assert stats.in_flight == len(self.frames), "every picture is delivered or counted"
        assert all(a.pts < b.pts for a, b in pairwise(self.frames))
        assert all(a.generation <= b.generation for a, b in pairwise(self.frames))
        assert [frame.index for frame in self.frames] == list(range(len(self.frames)))
        assert stats.state in ("ENDED", "FAILED")


@contextmanager
def watched(source: CameraSource) -> Iterator[Watched]:
    """Read a source inside the block; afterwards check what must hold always."""
    watch = Watched(source)
    try:
        yield watch
    finally:
        source.end()
        assert watch.returned.wait(30), "frames() did not return"
        close_sources([source])
    watch.check()


def luma(frame: Frame) -> np.ndarray:
    return frame.picture.to_ndarray(format="gray")
