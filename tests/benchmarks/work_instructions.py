"""Machine instructions for a frame's pixels: run under valgrind by `tests.benchmarks.work`.

Decode, scale, read the answer, draw, encode: the stations of the line one after the other on one
thread, without the queues between them, so that two runs count the same.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FEW_FRAMES, MANY_FRAMES = 2, 10
_COLLECTED = re.compile(r"Collected : (\d+)")


def why_not() -> str | None:
    """What is missing to count instructions here."""
    return None if shutil.which("valgrind") else "valgrind is not installed (apt install valgrind)"


def instructions(clip: Path, model: Path) -> float:
    """Millions for each frame of the clip, from the decoder to the encoder."""
    runs = [_Counting(clip, model, n) for n in (FEW_FRAMES, MANY_FRAMES)]
    few, many = [run.result() for run in runs]
    return round((many - few) / (MANY_FRAMES - FEW_FRAMES) / 1e6, 3)


class _Counting:
    """One run under valgrind, started at once."""

    def __init__(self, clip: Path, model: Path, frames: int) -> None:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        command += [sys.executable, "-m", "tests.benchmarks.work_instructions"]
        # One thread, and a fixed order of sets: the same instructions each time.
        same = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [*command, str(clip), str(model), str(frames)],
            cwd=REPOSITORY,
            env=os.environ | same,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> int:
        """All instructions of the run."""
        _, said = self._process.communicate()
        found = _COLLECTED.findall(said)
        if self._process.returncode or not found:
            raise RuntimeError(f"valgrind failed: {said[-1500:]}")
        return int(found[-1])


def main() -> None:
    """Lead so many frames of a clip through the stations."""
    clip, file, frames = sys.argv[1], sys.argv[2], int(sys.argv[3])
    from pipeline.detect import detect
    from pipeline.engines import infer
    from pipeline.model_file import read_model_file
    from pipeline.preprocess import preprocess
    from pipeline.render import render
    from pipeline.settings import Settings
    from pipeline.sinks import open_sinks
    from pipeline.sources import open_sources
    from tests.benchmarks.fixed_answer import FixedAnswer

    model, settings = read_model_file(file), Settings()
    (source,) = open_sources([clip], max_frames=frames, decoder_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        (sink,) = open_sinks([f"{folder}/video.mp4"], source, model.class_names, settings.video, [])
        images = preprocess(([f] for f in source.frames()), model.input_size_hw, model.fit)
        results = detect(infer(images, FixedAnswer(model)), model, settings.detection)
        with sink:
            for result in render(results, model.class_names, settings.render):
                sink.write(result)
    if sink.frames != frames:
        raise SystemExit(f"{sink.frames} frames came through, not {frames}")


if __name__ == "__main__":
    main()
