"""An engine that hangs is noticed, and so is its answer; on a clock of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.engines import EngineWatch
from pipeline.engines.watch import SILENT_SECONDS

IMAGES = np.zeros((1, 2, 2, 3), np.uint8)


class Clock:
    """Stands still unless it is moved; `seen` is told each second."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.seen: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.seen()


class Engine:
    """Takes so many seconds to take a call, and so many more to answer it."""

    def __init__(self, clock: Clock, taking: int = 0, answering: int = 0) -> None:
        self._clock, self._taking, self._answering = clock, taking, answering

    def submit(self, images: Any, regions: Any = None) -> Engine:
        self._clock.pass_seconds(self._taking)
        return self

    def result(self) -> dict[str, Any]:
        self._clock.pass_seconds(self._answering)
        return {"boxes": 1}


@pytest.mark.parametrize("where", ["taking", "answering"])
def test_silence_grows_while_a_call_is_waited_for_and_ends_with_its_answer(where):
    clock, silences = Clock(), list[float]()
    watch = EngineWatch(Engine(clock, **{where: 14}), clock)
    clock.seen = lambda: silences.append(watch.silent_seconds)
    assert watch.submit(IMAGES).result() == {"boxes": 1}
    assert silences == [float(n) for n in range(1, 15)]
    assert watch.silent_seconds == 0.0


def test_an_answer_that_nobody_has_asked_for_is_no_silence():
    clock = Clock()
    watch = EngineWatch(Engine(clock), clock)
    pending = watch.submit(IMAGES)
    clock.pass_seconds(60)
    assert watch.silent_seconds == 0.0
    pending.result()


def test_an_engine_that_fails_is_not_waited_for():
    class Failing:
        def submit(self, images: Any, regions: Any = None) -> Any:
            raise RuntimeError("out of memory")

    clock = Clock()
    watch = EngineWatch(Failing(), clock)
    with pytest.raises(RuntimeError):
        watch.submit(IMAGES)
    clock.pass_seconds(60)
    assert watch.silent_seconds == 0.0


def test_every_silence_is_said_once_and_so_is_its_end(caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    slow, quick = (EngineWatch(Engine(clock, answering=seconds), clock) for seconds in (40, 9))
    for _ in range(2):
        for watch in (slow, quick):
            clock.seen = watch.update
            watch.submit(IMAGES).result()
            watch.update()
    said = [(entry.levelname, entry.getMessage()) for entry in caplog.records]
    first = f"the engine has not answered for {SILENT_SECONDS + 1:.0f} s"
    assert said == 2 * [("WARNING", first), ("INFO", "the engine answers again")]
