"""Lines of our own Python that run for each frame, counted over all threads of the line."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.crew import Crew
from pipeline.model_file.reading import read_model_file
from tests.benchmarks.cost import Meter
from tests.benchmarks.files import STREET_FILE
from tests.benchmarks.fixed_answer import FixedAnswer
from tests.benchmarks.material import REPOSITORY
from tests.benchmarks.ours import line_with, settings_for

FEW_FRAMES, MANY_FRAMES = 24, 72


class LineCounter:
    """Count the lines of our own code that run in threads started inside the block.

    Attributes:
        lines: How often a line ran, by (thread, file).
    """

    def __init__(self) -> None:
        self.lines: Counter[tuple[int, str]] = Counter()
        self._ours = (str(REPOSITORY / "pipeline"), str(REPOSITORY / "run_stream.py"))

    def __enter__(self) -> LineCounter:
        threading.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)

    @property
    def by_file(self) -> Counter[str]:
        """Over all threads; files as seen from the repository."""
        total: Counter[str] = Counter()
        for (_, file), count in self.lines.items():
            total[Path(file).relative_to(REPOSITORY).as_posix()] += count
        return total

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self._ours) else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.lines[threading.get_ident(), frame.f_code.co_filename] += 1
        return self._line


def run(clip: Path, frames: int, *options: str) -> None:
    """So many frames of the clip through the whole line, into a video and JSON lines.

    Args:
        options: More settings, KEY=VALUE.
    """
    model = read_model_file(STREET_FILE)
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "sources": [str(clip)],
            "out": [f"{folder}/video.mp4", f"{folder}/lines.jsonl"],
            "max_frames": frames,
        }
        done = line_with(Crew(model, FixedAnswer(model)), settings_for(asked, options), Meter())
    if done.frames != frames:
        raise RuntimeError(f"{done.frames} frames came through, not {frames}")


def lines_by_file(clip: Path, *options: str) -> dict[str, float]:
    """Lines of Python for each frame, by file, the busiest first."""
    run(clip, 2, *options)  # what is imported or made once
    counts = []
    for frames in (FEW_FRAMES, MANY_FRAMES):
        with LineCounter() as counter:
            run(clip, frames, *options)
        counts.append(counter.by_file)
    few, many = counts
    slopes = {file: (many[file] - few[file]) / (MANY_FRAMES - FEW_FRAMES) for file in many}
    return {file: round(n, 1) for file, n in sorted(slopes.items(), key=lambda x: -x[1]) if n > 0.5}
