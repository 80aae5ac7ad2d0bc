"""From 1 to 64 cameras: what one more costs, and whether the forecast of their number holds.

Two questions, for each size of picture and each model:

- *One more camera.* 24 frames a second altogether, shared by 1 to 64 replayed cameras. The work is
  the same, so whatever a frame costs more, and the memory that is added, is the price of a camera.
- *How many?* `pipeline.capacity` measures each station alone and says how many cameras of 25
  frames/s the machine carries. So many, and two more, are replayed: the first must lose no frames,
  the second must.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.capacity import forecast
from pipeline.cores import usable_cores
from pipeline.engines import load_engine
from pipeline.frame_cost import FrameCost, measure
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings
from tests.benchmarks.cameras import Watch
from tests.benchmarks.files import STREET, best_precision, model_for_the_line
from tests.benchmarks.material import REPOSITORY, at_rate, synthetic_clip
from tests.benchmarks.outcome import Row, arguments, report, wanted

SIZES = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920)}
MODELS = (STREET, "mobilenet_v3_large_320_fpn")
COUNTS = (1, 4, 16, 64)
CLIP_FRAMES = 150
TOTAL_FPS, CAMERA_FPS = 24.0, 25.0
SECONDS = 7.0
LOST_PERCENT = 1.0
PATIENCE_SECONDS = 5.0  # 64 frames at once are waited for
FLAT = 1.15
"""What the dearest frame may cost of the cheapest, whatever the number of cameras."""
COLUMNS = {
    "name": "model, size, cameras",
    "fps": "inferred/s",
    "dropped_percent": "dropped %",
    "cpu_ms": "CPU ms/frame",
    "predicted_ms": "predicted",
    "cores_busy": "cores busy",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "memory_mb": "PSS MB",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "scale",
        __doc__,
        None,
        argv,
        seconds={"type": float, "default": SECONDS, "help": "of each run"},
        counts={"type": int, "nargs": "+", "default": COUNTS, "metavar": "N", "help": "cameras"},
        sizes={"nargs": "+", "default": list(SIZES), "choices": SIZES, "help": "of the pictures"},
        models={"nargs": "+", "default": MODELS, "help": "names or model files"},
    )
    if asked.smoke:
        asked.seconds, asked.counts, asked.sizes, asked.models = 3.0, (2, 3), ["small"], (STREET,)
    rows: list[Row] = []
    verdicts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model_name in asked.models:
            for size in asked.sizes:
                if wanted(f"{model_name} {size}", asked.only):
                    case = Case(model_name, size, asked.seconds, Path(folder), asked.smoke)
                    found = list(case.rows(asked.counts))
                    rows += found
                    verdicts.append(case.verdict(found))
    report(
        "scale",
        asked,
        rows,
        COLUMNS,
        title=f"Replayed cameras on {usable_cores()} cores, nothing written",
        notes=[
            f"shared: {TOTAL_FPS:g} frames/s altogether; others: {CAMERA_FPS:g} frames/s each",
            "predicted: each station alone, added up (python -m pipeline.capacity)",
            *map(in_words, verdicts),
        ],
        verdicts=verdicts,
    )


class Case:
    """One model and one size of picture."""

    def __init__(self, model: str, size: str, seconds: float, folder: Path, smoke: bool) -> None:
        self.name, self.seconds, self.folder = f"{model} {size}", seconds, folder
        self.model = model_for_the_line(model)
        size_hw, frames = ((180, 320), 25) if smoke else (SIZES[size], CLIP_FRAMES)
        self.clip = synthetic_clip(size_hw, frames)
        self.precision = best_precision()
        self.cost = self._measured(frames if smoke else 50)
        self.forecast = forecast(self.cost, cores=usable_cores(), fps=CAMERA_FPS)

    def rows(self, counts: Sequence[int]) -> Iterator[Row]:
        """One for each run."""
        for count in counts:
            slow = at_rate(self.clip, TOTAL_FPS / count, self.folder / f"{count}.mp4")
            yield self._watched(slow, count, f"{self.name} {count}, shared", shared=True)
        for count in (max(1, self.forecast.cameras), self.forecast.cameras + 2):
            yield self._watched(self.clip, count, f"{self.name} {count}", shared=False)

    def verdict(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What one more camera costs, and whether the forecast held."""
        whole = [row for row in rows if not row["shared"]]
        # A single camera has all cores for one image, which is sooner there and costs more.
        several = [row for row in rows if row["shared"] and row["cameras"] > 1]
        costs = [row["cpu_ms"] for row in several]
        return {
            "name": self.name,
            "ms": {name: round(value, 2) for name, value in asdict(self.cost).items()},
            "predicted_cameras": round(self.forecast.by_processor, 2),
            "carried": whole[0]["dropped_percent"] <= LOST_PERCENT,
            "two_more_are_too_many": whole[1]["dropped_percent"] > LOST_PERCENT,
            "predicted_over_measured_ms": round(
                self.cost.total(recorded=False) / whole[0]["cpu_ms"], 3
            ),
            "dearest_over_cheapest": round(max(costs) / min(costs), 3) if costs else None,
            "mb_for_one_more": slope([(row["cameras"], row["memory_mb"]) for row in several]),
        }

    def _measured(self, frames: int) -> FrameCost:
        model = read_model_file(self.model)
        settings = EngineSettings(precision=self.precision)
        with load_engine(model, settings) as engine:
            return measure(str(self.clip), model, engine, frames)

    def _watched(self, clip: Path, count: int, name: str, *, shared: bool) -> Row:
        patience = PATIENCE_SECONDS if shared else None
        job = Watch(str(clip), count, self.seconds, str(self.model), self.precision, patience)
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.cameras"],
            input=json.dumps(asdict(job)),
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            check=True,
        )
        predicted = round(self.cost.total(recorded=False), 2)
        return {
            "name": name,
            "shared": shared,
            "predicted_ms": predicted,
            **json.loads(done.stdout),
        }


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Of a straight line through (x, y); None if there are fewer than two."""
    if len(points) < 2:
        return None
    x, y = zip(*points, strict=True)
    return round(float(np.polyfit(x, y, 1)[0]), 2)


def in_words(verdict: dict[str, Any]) -> str:
    """A line under the table."""
    holds = verdict["carried"] and verdict["two_more_are_too_many"]
    flat = (verdict["dearest_over_cheapest"] or 1.0) <= FLAT
    more = (
        f"; with several cameras a frame costs at most {verdict['dearest_over_cheapest']:.2f} of "
        f"the least, and one camera more {verdict['mb_for_one_more']:.1f} MB"
        if verdict["mb_for_one_more"] is not None
        else ""
    )
    return (
        f"{'met   ' if holds and flat else 'MISSED'} {verdict['name']}: "
        f"{verdict['predicted_cameras']:.1f} cameras predicted, so many "
        f"{'lose no frames' if verdict['carried'] else 'lose frames'}, two more "
        f"{'do' if verdict['two_more_are_too_many'] else 'do not either'}{more}"
    )


if __name__ == "__main__":
    main()
