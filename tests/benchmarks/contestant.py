"""One run of one program over one clip, in a process of its own; prints what it cost as JSON.

The clock runs from opening the clip to closing the output. Imports, loading the model and three
calls to warm it up come before; they are told apart as ``start_seconds``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.cost import Meter, peak_mb

PROGRAMS = ("boxstream", "opencv", "supervision")
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Job:
    """What is to be done, the same for all programs.

    Attributes:
        clip: Input file.
        model: Model file.
        folder: Where ``video.mp4`` and ``lines.jsonl`` go.
        precision: ``f32`` or ``bf16``.
        encoder: ``default``, ``mpeg4`` or ``x264``.
        x264: For ``x264`` in the loops: preset, crf, x264_params, threads.
        most: Frames to stop after.
        extra: More settings for boxstream, KEY=VALUE.
    """

    clip: Path
    model: Path
    folder: Path
    precision: str
    encoder: str
    x264: Mapping[str, Any] | None
    most: int
    extra: tuple[str, ...] = ()

    @property
    def video(self) -> Path:
        """Annotated video."""
        return self.folder / "video.mp4"

    @property
    def lines(self) -> Path:
        """Detections."""
        return self.folder / "lines.jsonl"


def main() -> None:
    """Do the job that stands on standard input as JSON."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.contestant")
    parser.add_argument("program", choices=PROGRAMS)
    arguments = parser.parse_args()
    entry = json.load(sys.stdin)
    for key in ("clip", "model", "folder"):
        entry[key] = Path(entry[key])
    job = Job(**entry)
    meter = Meter()
    frames, more = RUN[arguments.program](job, meter)
    cost = meter.cost(frames)
    outcome = {
        "frames": frames,
        "wall_seconds": cost.wall_seconds,
        "cpu_seconds": cost.cpu_seconds,
        "start_seconds": time.perf_counter() - started - cost.wall_seconds,
        "peak_mb": peak_mb(),
        "output_mb": job.video.stat().st_size / 1e6,
    }
    json.dump(outcome | more, sys.stdout)


def run_boxstream(job: Job, meter: Meter) -> tuple[int, dict[str, Any]]:
    """`run_stream.stream`, with its defaults but for what the job says."""
    from tests.benchmarks.ours import run_line, settings_for

    options = {
        "sources": [str(job.clip)],
        "out": [str(job.video), str(job.lines)],
        "model": str(job.model),
        "engine.precision": job.precision,
        "max_frames": job.most,
    }
    if job.encoder != "default":
        options["video.encoder"] = job.encoder
    run = run_line(settings_for(options, job.extra), meter)
    return run.frames, {"engine": run.engine, "encoding": run.sinks[0], "stages": run.stages}


def run_rival(name: str, job: Job, meter: Meter) -> tuple[int, dict[str, Any]]:
    """One of the loops in `rivals`."""
    from tests.benchmarks import rivals

    loop = {"opencv": rivals.opencv_loop, "supervision": rivals.supervision_loop}[name]
    detector = rivals.Detector(job.model, job.precision)
    for _ in range(WARM_UP_CALLS):
        detector(np.zeros((360, 640, 3), np.uint8))
    x264 = job.x264 if job.encoder == "x264" else None
    with meter:
        frames = loop(job.clip, job.video, job.lines, detector, job.most, x264)
    return frames, {"engine": f"openvino {job.precision} batch 1"}


RUN = {
    "boxstream": run_boxstream,
    "opencv": lambda job, meter: run_rival("opencv", job, meter),
    "supervision": lambda job, meter: run_rival("supervision", job, meter),
}


if __name__ == "__main__":
    main()
