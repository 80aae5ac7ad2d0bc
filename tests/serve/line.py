"""A line without cameras, engine or files: what the page needs of one, moved by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np

from pipeline.bookkeeping.metrics import SinkStats, SourceStats
from pipeline.errors import ConfigError
from pipeline.frame import Detections, Frame, Result
from pipeline.serve import NameTaken, UnknownSource

CLASSES = ("car", "person")


def result(
    name: str = "front",
    index: int = 0,
    size_wh: tuple[int, int] = (64, 48),
    colour: tuple[int, int, int] | None = None,
    found: Sequence[tuple[int, float]] = (),
    age: float = 0.0,
) -> Result:
    """A picture of one colour (red, green, blue; else one of its index) with some detections."""
    width, height = size_wh
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:] = colour or ((index * 29) % 256, (index * 71) % 256, (index * 113) % 256)
    picture = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p")
    frame = Frame(picture, name, index, index, Fraction(1, 25), time.monotonic() - age)
    boxes = np.tile(np.array([1, 1, 20, 20], np.float32), (len(found), 1))
    scores = np.array([score for _, score in found], np.float32)
    class_ids = np.array([class_id for class_id, _ in found], np.int64)
    return Result(frame, Detections(boxes, scores, class_ids))


class FakeControl:
    """Does what it is told, and remembers it."""

    def __init__(self, *names: str) -> None:
        self.stats = {name: running(name) for name in names}
        self.urls: list[str] = []
        self.threshold: float | None = 0.5
        self.class_thresholds: dict[str, float] = {}
        self.own_thresholds: dict[str, tuple[float | None, Mapping[str, float] | None]] = {}
        self.loaded = True
        self.silent_seconds = 0.0
        self.outputs: list[SinkStats] = []
        self.budget: dict[str, Any] | None = None

    def sources(self) -> list[SourceStats]:
        return list(self.stats.values())

    def sinks(self) -> list[SinkStats]:
        return self.outputs

    def add(self, url: str, name: str | None) -> str:
        if "refuse" in url:
            raise ConfigError(f"cannot use {url}; try another")
        name = name or "camera"
        if name in self.stats:
            raise NameTaken(f"there is a source {name!r} already; choose another name")
        self.urls.append(url)
        self.stats[name] = SourceStats(name)
        self.stats[name].changed("CONNECTING")
        return name

    def remove(self, name: str) -> None:
        self._known(name)
        del self.stats[name]

    def pause(self, name: str, paused: bool) -> None:
        self._known(name).changed("PAUSED" if paused else "CONNECTING", "asked")

    def set_threshold(self, value: float | None, by_class: Mapping[str, float]) -> None:
        for label in by_class:
            if label not in CLASSES:
                raise ConfigError(f"the model knows no {label!r}; it knows {', '.join(CLASSES)}")
        self.threshold, self.class_thresholds = value, dict(by_class)

    def source_thresholds(self, name: str) -> tuple[float | None, Mapping[str, float] | None]:
        return self.own_thresholds.get(name, (None, None))

    def set_source_threshold(
        self, name: str, value: float | None, by_class: Mapping[str, float] | None
    ) -> None:
        self._known(name)
        for label in by_class or ():
            if label not in CLASSES:
                raise ConfigError(f"the model knows no {label!r}; it knows {', '.join(CLASSES)}")
        self.own_thresholds[name] = (value, by_class)

    def engine(self) -> dict[str, Any]:
        if not self.loaded:
            return {}
        return {
            "name": "fake",
            "precision": "f32",
            "model": "street",
            "calls": 10,
            "busy_seconds": 1.5,
            "silent_seconds": self.silent_seconds,
            "class_names": list(CLASSES),
            "threshold": 0.5 if self.threshold is None else self.threshold,
            "class_thresholds": self.class_thresholds,
        }

    def latency_budget(self) -> dict[str, Any] | None:
        return self.budget

    def readers_hanging(self) -> int:
        return 3

    def queues(self) -> dict[str, float]:
        return {"preprocess": 1.0, "infer": 2.0}

    def _known(self, name: str) -> SourceStats:
        if name not in self.stats:
            raise UnknownSource(f"there is no source {name!r}")
        return self.stats[name]


def running(name: str) -> SourceStats:
    """The books of a source that runs well."""
    stats = SourceStats(name, offered_fps=25.0, connections=1)
    stats.changed("RUNNING")
    now = time.monotonic()
    for ago in range(100):
        stats.inferred_rate.add(now - 4 + ago / 25)
    return stats


@contextmanager
def repeatedly(work: Any, every_seconds: float) -> Iterator[None]:
    """Inside the block call ``work(n)`` over and over on a thread of its own."""
    stop = threading.Event()

    def loop() -> None:
        number = 0
        while not stop.wait(every_seconds):
            work(number)
            number += 1

    thread = threading.Thread(target=loop, name="repeatedly")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
