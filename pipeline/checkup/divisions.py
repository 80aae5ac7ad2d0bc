"""Measure on drawn frames which division of the cores serves an engine best.

Three heats, because nobody can try everything. How threads are divided among calls, with one image
a call, decides what several cameras get; that winner with more images a call decides what a
recording gets; for a single camera the time of one call counts, and only threads can be varied.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pipeline.checkup.trial import drawn_frames
from pipeline.engines import Engine, Pending, load_engine
from pipeline.engines.contract import Images, Regions
from pipeline.engines.tuning import RULE, Division, Purpose
from pipeline.frame import Batch
from pipeline.gpu.images import host_images
from pipeline.model_file.reading import ModelFile
from pipeline.settings import EngineSettings

MARGIN = 0.05  # by which the rule must be beaten: less than that comes and goes with the weather
ROUNDS = 5
TRIAL_SECONDS = 0.25
LEFT_BEHIND = 0.75  # of the best in the first round; who is slower need not run again
BATCHES = (2, 4)  # beside one image a call

Load = Callable[[Division, Purpose], Engine]
Calls = list[tuple[Images, Regions | None]]


@dataclass(frozen=True)
class Trial:
    """One candidate, one round."""

    images_per_second: float
    cpu_ms: float
    """Processor time of all threads, an image."""
    waited: float
    """Share of the time in which threads of ours could have run, and others had the core."""


@dataclass
class Candidate:
    """A division under test.

    Attributes:
        division: What was asked of the engine.
        engine: What it made of that.
        calls: What it is given.
        trials: What came out, a round each.
        gain: Median over the rounds of its rate against the rule's in the same round, less 1.
    """

    division: Division
    engine: Engine
    calls: Calls
    trials: list[Trial] = field(default_factory=list)
    gain: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Threads (0: all), calls at once, images a call."""
        return self.division.threads, self.engine.in_flight, self.engine.batch

    def is_like(self, other: Candidate, cores: int) -> bool:
        """Whether they are the same under two names."""
        ours, theirs = self.shape, other.shape
        return (ours[0] or cores, *ours[1:]) == (theirs[0] or cores, *theirs[1:])


@dataclass(frozen=True)
class Row:
    """What came out for one candidate of a heat; the rule is the first."""

    purpose: Purpose
    division: Division
    threads: int
    streams: int
    batch: int
    images_per_second: float
    cpu_ms: float
    waited: float
    gain: float
    chosen: bool


def engine_loader(model: ModelFile, settings: EngineSettings) -> Load:
    """Loads a model for a division and a purpose, whatever was measured before."""
    fresh = replace(settings, cache=None)

    def load(division: Division, purpose: Purpose) -> Engine:
        return load_engine(model, division.asked_of(fresh), purpose=purpose)

    return load


def measure(
    model: ModelFile, load: Load, name: str, cores: int, rounds: int = ROUNDS
) -> Iterator[list[Row]]:
    """Yield the rows of each heat as it ends.

    Args:
        model: What is run.
        load: Makes engines.
        name: Of the engine; only OpenVINO has several calls at once.
        cores: That this process may use.
        rounds: How often each candidate runs.
    """
    frames = list(drawn_frames(model))
    several = name == "openvino"
    heat = Heat(load, frames, cores, rounds)
    shared = heat.run("cameras", divisions(cores, several))
    yield shared
    best = next(row.division for row in shared if row.chosen)
    yield heat.run("recording", [replace(best, batch=n) for n in (best.batch, *BATCHES)])
    yield heat.run("camera", [Division(n, 1 if several else 0, 1) for n in fewer(cores)])


def fewer(cores: int) -> list[int]:
    """Numbers of threads worth a trial: all, and one for each pair of hyper-threads."""
    return sorted({cores, max(1, cores // 2)}, reverse=True)


def divisions(cores: int, several: bool) -> list[Division]:
    """Threads and calls at once, with one image a call."""
    if not several:
        return [Division(threads, 0, 1) for threads in fewer(cores)]
    return [
        Division(threads, streams, 1)
        for threads in fewer(cores)
        for streams in sorted({1, max(1, threads // 4), max(1, threads // 2), threads})
    ]


@dataclass(frozen=True)
class Heat:
    """Lets candidates run in turn, so that a noisy second strikes all alike."""

    load: Load
    frames: Sequence[Batch]
    cores: int
    rounds: int

    def run(self, purpose: Purpose, divisions: Sequence[Division]) -> list[Row]:
        """One row for the rule and for each division that is not the same."""
        with ExitStack() as stack:
            racers: list[Candidate] = []
            for division in dict.fromkeys([RULE, *divisions]):
                engine = stack.enter_context(self.load(division, purpose))
                racer = Candidate(division, engine, calls_of(self.frames, engine.batch))
                if not any(racer.is_like(other, self.cores) for other in racers):
                    racers.append(racer)
            self._race(racers, alone=purpose == "camera")
            return _rows(purpose, racers)

    def _race(self, racers: list[Candidate], alone: bool) -> None:
        for racer in racers:  # what an engine makes ready at its first calls is not to count
            trial(racer.engine, racer.calls, alone, seconds=0)
        for turn in range(self.rounds):
            best = max((racer.trials[0].images_per_second for racer in racers if turn), default=0.0)
            for racer in racers if turn % 2 == 0 else reversed(racers):
                first = racer.trials[0].images_per_second if turn else best
                if racer is racers[0] or first >= LEFT_BEHIND * best:
                    racer.trials.append(trial(racer.engine, racer.calls, alone, TRIAL_SECONDS))


def calls_of(frames: Sequence[Batch], size: int) -> Calls:
    """The frames gone through until they fill whole batches."""
    count = size * max(1, len(frames) // size)
    some = [frames[i % len(frames)] for i in range(count)]
    groups = [some[i : i + size] for i in range(0, count, size)]
    return [
        (
            np.concatenate([host_images(one.images) for one in group]),
            None
            if group[0].regions is None
            else np.concatenate([one.regions for one in group if one.regions is not None]),
        )
        for group in groups
    ]


def trial(engine: Engine, calls: Calls, alone: bool, seconds: float) -> Trial:
    """Run for some time, and long enough for every place to have had two calls.

    Args:
        engine: Does the work.
        calls: Gone through again and again.
        alone: Wait for each answer before the next call; else as the line does: as many calls as
            the engine likes under way, and one more at hand.
        seconds: When to stop.
    """
    under_way: deque[Pending] = deque()
    ahead, made = 0 if alone else engine.in_flight, 0
    started, cpu, waited = time.perf_counter(), time.process_time(), seconds_waited()
    while made < 2 * (ahead + 1) or time.perf_counter() - started < seconds:
        under_way.append(engine.submit(*calls[made % len(calls)]))
        made += 1
        if len(under_way) > ahead:
            under_way.popleft().result()
    for pending in under_way:
        pending.result()
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    waited = seconds_waited() - waited
    images = made * engine.batch
    return Trial(images / wall, 1e3 * cpu / images, waited / (waited + cpu))


def seconds_waited(tasks: Path = Path("/proc/self/task")) -> float:
    """How long the threads of this process have waited for a core; 0 where nobody tells."""
    nanoseconds = 0
    for task in tasks.glob("*/schedstat"):
        with suppress(OSError, IndexError, ValueError):  # it has ended, or another system
            nanoseconds += int(task.read_text().split()[1])
    return nanoseconds / 1e9


def _rows(purpose: Purpose, racers: Sequence[Candidate]) -> list[Row]:
    rule = racers[0]
    for racer in racers:
        pairs = zip(racer.trials, rule.trials, strict=False)
        racer.gain = statistics.median(a.images_per_second / b.images_per_second for a, b in pairs)
        racer.gain -= 1
    best = winner([racer.gain for racer in racers])
    return [
        Row(
            purpose,
            racer.division,
            *racer.shape,
            statistics.median(trial.images_per_second for trial in racer.trials),
            statistics.median(trial.cpu_ms for trial in racer.trials),
            statistics.median(trial.waited for trial in racer.trials),
            racer.gain,
            racer is racers[best],
        )
        for racer in racers
    ]


def winner(gains: Sequence[float]) -> int:
    """Which one is taken: the first, which is the rule, unless another beats it by the margin."""
    best = max(range(len(gains)), key=lambda one: gains[one])
    return best if gains[best] > MARGIN else 0
