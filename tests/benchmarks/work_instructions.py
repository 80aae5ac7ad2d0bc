"""Machine instructions for a frame's pixels: run under valgrind by `tests.benchmarks.work`.

Scale, read the answer, draw: what is ours between the decoder and the encoder, at 720p, on one
thread, without the queues between, so that two runs count the same. Importing, decoding and the
first frames are not counted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
WARM_UP_FRAMES, FRAMES = 2, 12
SIZE_HW = (720, 1280)
MARK = "tzset"
"""A function of the C library that nothing else calls: from here on valgrind counts anew."""
_COLLECTED = re.compile(r"Collected : (\d+)")


def why_not() -> str | None:
    """What is missing to count instructions here."""
    return None if shutil.which("valgrind") else "valgrind is not installed (apt install valgrind)"


def instructions(clip: Path, model: Path) -> float:
    """Millions for each frame of the clip, brought to 720p.

    Raises:
        RuntimeError: The run under valgrind failed.
    """
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [f"--zero-before={MARK}", sys.executable, "-m", "tests.benchmarks.work_instructions"]
    # One thread, and a fixed order of sets: the same instructions each time.
    same = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, clip, model],
        cwd=REPOSITORY,
        env=os.environ | same,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = _COLLECTED.findall(done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"valgrind failed: {done.stderr[-1500:]}")
    return round(int(found[-1]) / (FRAMES - WARM_UP_FRAMES) / 1e6, 3)


def main() -> None:
    """Lead the frames of a clip through the stations, and end before anything is cleared away."""
    clip, file = sys.argv[1:]
    from pipeline.detect import detect
    from pipeline.drawing.render import render
    from pipeline.engines import infer
    from pipeline.model_file.reading import read_model_file
    from pipeline.preprocess import preprocess
    from pipeline.settings import Settings
    from pipeline.sources import open_sources
    from tests.benchmarks.fixed_answer import FixedAnswer

    model, settings = read_model_file(Path(file)), Settings()
    height, width = SIZE_HW
    (source,) = open_sources([clip], max_frames=FRAMES, decoder_threads=1)
    held = [
        replace(frame, picture=frame.picture.reformat(width, height, threads=1))
        for frame in source.frames()
    ]
    images = preprocess(([frame] for frame in held), model.input_size_hw, model.fit)
    results = detect(infer(images, FixedAnswer(model)), model, settings.detection)
    for number, _ in enumerate(render(results, model.class_names, settings.render), 1):
        if number == WARM_UP_FRAMES:
            time.tzset()
    os._exit(0 if number == FRAMES else 1)


if __name__ == "__main__":
    main()
