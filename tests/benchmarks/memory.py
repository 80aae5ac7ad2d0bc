"""Memory of the whole line over ten thousand frames: is it flat?

A recorded clip is repeated, packets copied, until it is long enough; the line runs over it with
its defaults, and the resident memory is noted a few times a second. The slope is that of a
straight line through the notes of the last three quarters of the frames.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.sources import Source
from tests.benchmarks.cost import Meter, peak_mb, resident_mb
from tests.benchmarks.files import STREET, best_precision, model_for_the_line
from tests.benchmarks.material import CLIPS, clip, over_and_over, synthetic_clip
from tests.benchmarks.ours import run_line, settings_for
from tests.benchmarks.outcome import arguments, report

FRAMES = 10_000
WARM_UP_SHARE = 0.25
MOST_GROWTH_MB = 10.0  # over 10,000 frames; an index entry for each written frame is allowed
COLUMNS = {
    "name": "clip",
    "frames": "frames",
    "fps": "frames/s",
    "warm_mb": "MB when warm",
    "last_mb": "MB at the end",
    "peak_mb": "peak MB",
    "slope_mb": "MB per 10,000 frames",
}


class Notes:
    """Resident memory by the number of frames done."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.megabytes: list[float] = []

    def update(self, sources: Sequence[Source]) -> None:
        """Called by the running line."""
        self.frames.append(sum(source.stats.frames_inferred for source in sources))
        self.megabytes.append(resident_mb())

    def warm(self, share: float) -> tuple[list[int], list[float]]:
        """The notes after that share of the frames."""
        start = int(np.searchsorted(self.frames, share * self.frames[-1]))
        return self.frames[start:], self.megabytes[start:]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "memory",
        __doc__,
        None,
        argv,
        frames={"type": int, "default": FRAMES},
        model={"default": STREET, "help": "street (bundled), mobilenet_v3_large_320_fpn or a file"},
    )
    clip_name, path, frames = "540p", None, asked.frames
    if asked.smoke:
        clip_name, path, frames = "small", synthetic_clip((180, 320), 12), 24
    notes, meter = Notes(), Meter()
    with tempfile.TemporaryDirectory() as folder:
        long_clip = over_and_over(path or clip(CLIPS["540p"]), frames, Path(folder) / "long.mp4")
        options = {
            "sources": [str(long_clip)],
            "out": [f"{folder}/video.mp4", f"{folder}/lines.jsonl"],
            "model": str(model_for_the_line(asked.model)),
            "engine.precision": best_precision(),
            "max_frames": frames,
        }
        notes.frames.append(0)
        notes.megabytes.append(resident_mb())
        run = run_line(settings_for(options), meter, notes)
    done, megabytes = notes.warm(WARM_UP_SHARE)
    slope = float(np.polyfit(done, megabytes, 1)[0]) * 1e4 if len(done) > 2 else 0.0
    row = {
        "name": clip_name,
        "frames": run.frames,
        "fps": round(meter.cost(run.frames).fps, 1),
        "warm_mb": round(megabytes[0], 1),
        "last_mb": round(megabytes[-1], 1),
        "peak_mb": round(peak_mb(), 1),
        "slope_mb": round(slope, 2),
    }
    flat = slope <= MOST_GROWTH_MB
    verdict = f"{'met   ' if flat else 'MISSED'} growth of at most {MOST_GROWTH_MB:g} MB"
    report(
        "memory",
        asked,
        [row],
        COLUMNS,
        title=f"Memory of the line with {asked.model}, {run.engine}",
        notes=[f"{verdict} per 10,000 frames, after the first quarter of the frames"],
        notes_by_frame=list(zip(notes.frames, notes.megabytes, strict=True))[::10],
        met=flat,
    )


if __name__ == "__main__":
    main()
