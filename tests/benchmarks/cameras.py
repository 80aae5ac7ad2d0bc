"""So many replayed cameras in one line, in a process of its own; prints what they cost as JSON.

What is told is the difference between two moments: some seconds after the start, when all cameras
are open, and the end. So opening and loading are not in it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.crew import Crew
from pipeline.engines import Purpose, load_engine
from pipeline.garbage import keep_memory_together
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings
from pipeline.sources import Source
from tests.benchmarks.cost import Meter, cpu_seconds
from tests.benchmarks.ours import line_with, settings_for

WARM_UP_SHARE = 0.3
"""Of the time of a run; then memory has its size and every decoder is open."""


class Moment(NamedTuple):
    """What had been done and used up to a moment."""

    wall_seconds: float
    cpu_seconds: float
    decoded: int
    inferred: int
    dropped: int
    proportional_mb: float


class Moments:
    """Looks at the running line now and then; told by it a few times a second."""

    def __init__(self, every_seconds: float = 0.5) -> None:
        self.moments: list[Moment] = []
        self._every, self._due = every_seconds, 0.0

    def update(self, sources: Sequence[Source]) -> None:
        """Called by the running line."""
        now = time.perf_counter()
        if now < self._due:
            return
        self._due = now + self._every
        stats = [source.stats for source in sources]
        decoded = sum(each.frames_decoded for each in stats)
        inferred = sum(each.frames_inferred for each in stats)
        dropped = sum(sum(each.frames_dropped.values()) for each in stats)
        self.moments.append(
            Moment(now, cpu_seconds(), decoded, inferred, dropped, proportional_mb())
        )

    def warm(self, seconds: float) -> tuple[Moment, Moment]:
        """The first moment after the warm-up of a run of so many seconds, and the last one."""
        begin = self.moments[0].wall_seconds + WARM_UP_SHARE * seconds
        late = [moment for moment in self.moments if moment.wall_seconds >= begin]
        if len(late) < 2:
            raise SystemExit("the run was too short to be measured; give more --seconds")
        return late[0], late[-1]


def proportional_mb() -> float:
    """Memory of this process in 10^6 bytes, of what is shared with others its part (PSS)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/smaps_rollup has no Pss")


@dataclass(frozen=True)
class Watch:
    """What is to be watched.

    Attributes:
        clip: Replayed again and again by every camera.
        count: Number of cameras.
        seconds: Of the clip's own time.
        model: Model file.
        precision: Of the engine.
        patience_seconds: How old a frame may become; None: as usual. All cameras begin at the same
            time, so that all their frames come at the same time, too.
    """

    clip: str
    count: int
    seconds: float
    model: str
    precision: str = "auto"
    patience_seconds: float | None = None


def watch(job: Watch) -> dict[str, Any]:
    """Run the line; tell cost, drops, ages and memory once it was warm."""
    keep_memory_together()
    model = read_model_file(job.model)
    options = {
        "sources": [f"replay:{job.clip}#loop=true&name=camera{n}" for n in range(job.count)],
        "out": ["null:"],
        "duration": job.seconds,
    }
    if job.patience_seconds:
        options["latency.max_age_seconds"] = job.patience_seconds
    settings, seen = settings_for(options), Moments()
    engine_settings = EngineSettings(precision=job.precision)
    purpose: Purpose = "camera" if job.count == 1 else "cameras"
    with load_engine(model, engine_settings, purpose=purpose) as engine:
        run = line_with(Crew(model, engine), settings, Meter(), seen)
    begin, end = seen.warm(job.seconds)
    wall, cpu = end.wall_seconds - begin.wall_seconds, end.cpu_seconds - begin.cpu_seconds
    inferred, dropped = end.inferred - begin.inferred, end.dropped - begin.dropped
    ages = [stats.latency for stats in run.sources if stats.latency.count]
    worst = max(ages, key=lambda age: age.percentile_ms(95) or 0.0)
    return {
        "cameras": job.count,
        "engine": run.engine,
        "fps": round(inferred / wall, 2),
        "offered_fps": round((end.decoded - begin.decoded) / wall, 2),
        "dropped_percent": round(100 * dropped / max(1, inferred + dropped), 2),
        "cpu_ms": round(1e3 * cpu / max(1, inferred), 3),
        "cores_busy": round(cpu / wall, 3),
        "memory_mb": round(max(moment.proportional_mb for moment in seen.moments), 1),
        "p50_ms": worst.percentile_ms(50),
        "p99_ms": worst.percentile_ms(99),
    }


if __name__ == "__main__":
    json.dump(watch(Watch(**json.load(sys.stdin))), sys.stdout)
