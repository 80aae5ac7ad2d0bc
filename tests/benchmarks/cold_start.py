"""From the command to the first detection: ``python -m tests.benchmarks.cold_start``.

Each start is a program of its own (`first_frame`), for a recording and for a camera (a recording
replayed), on each engine; on OpenVINO without a cache of compiled models, with an empty one, and
with one that an earlier start has filled. Minima over the rounds are shown: a start does the same
every time, and whatever else the machine does only adds to it. Bytecode is at hand, as for an
installed program, and files are in the system's memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.files import STREET, model_for_the_line
from tests.benchmarks.first_frame import COMPILING, FIRST_CALL, READING, SOURCE
from tests.benchmarks.material import REPOSITORY, ROAD, clip, synthetic_clip
from tests.benchmarks.outcome import arguments, report, wanted

ROUNDS = 7
MOST_SECONDS = 1.5
"""Aim for the first detection."""
COLUMNS = {
    "name": "start of",
    "interpreter": "interpreter",
    "imports": "imports",
    SOURCE: "source",
    READING: "reading",
    COMPILING: "compiling",
    FIRST_CALL: "first call",
    "first detection": "CPU to detection",
    "first detection wall": "wall",
    "first frame at the sink": "CPU to sink",
    "first frame at the sink wall": "wall",
}
_IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| *([^.\s]+)")


@dataclass(frozen=True)
class Case:
    """One way to start.

    Attributes:
        source: ``"recording"`` or ``"camera"``.
        engine: As in the settings.
        cache: ``"no"``, ``"empty"`` or ``"filled"``; None where the engine keeps nothing.
    """

    source: str
    engine: str
    cache: str | None

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.source}, {self.engine}" + (f", {self.cache} cache" if self.cache else "")


CASES = [
    Case(source, engine, cache)
    for source in ("recording", "camera")
    for engine, cache in (
        *(("openvino", cache) for cache in ("no", "empty", "filled")),
        ("onnxruntime", None),
    )
]


class Starts:
    """Starts the program with what all cases share.

    Args:
        path: The clip.
        model: The model file.
        folder: For caches and bytecode.
    """

    def __init__(self, path: Path, model: Path, folder: Path) -> None:
        self._path, self._model, self._folder = path, model, folder
        self.environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def first_frame(self, case: Case) -> dict[str, float]:
        """Milliseconds of one start, by step and by moment."""
        if case.cache == "empty":
            with tempfile.TemporaryDirectory(dir=self._folder) as empty:
                return self._started(case, empty)
        return self._started(case, "null" if case.cache == "no" else str(self._folder / "filled"))

    def _started(self, case: Case, cache: str) -> dict[str, float]:
        source = f"{'replay:' if case.source == 'camera' else ''}{self._path}"
        words = [source, "--model", str(self._model), "--engine", case.engine, "--out", "null:"]
        words += ["--set", f"engine.cache={cache}", "--set", "report=null"]
        words += ["--quiet", "--max-frames", "3"]
        begin = time.monotonic()
        command = [sys.executable, "-m", "tests.benchmarks.first_frame", str(begin), *words]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        told = json.loads(done.stdout)
        taken = {step: cpu for step, (_, cpu) in told["steps"].items()}
        for moment, (wall, cpu) in told["moments"].items():
            taken |= {moment: cpu, f"{moment} wall": wall}
        return taken

    def imports(self) -> Counter[str]:
        """Milliseconds spent in each package's own lines, on OpenVINO."""
        modules = "import run_stream, pipeline.engines.ov"
        command = [sys.executable, "-X", "importtime", "-c", modules]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True
        )
        spent: Counter[str] = Counter()
        for microseconds, package in _IMPORTED.findall(done.stderr):
            spent[package] += int(microseconds)
        return Counter({package: round(us / 1e3, 1) for package, us in spent.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "cold_start",
        __doc__,
        ROUNDS,
        argv,
        model={"default": STREET, "help": "street (bundled), mobilenet_v3_large_320_fpn or a file"},
    )
    path = synthetic_clip((180, 320), 12) if asked.smoke else clip(ROAD)
    cases = [case for case in CASES if wanted(case.name, asked.only)]
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(path, model_for_the_line(asked.model), Path(folder))
        for case in cases:  # fills the caches
            starts.first_frame(case)
        rounds = [{case: starts.first_frame(case) for case in cases} for _ in range(asked.rounds)]
        imports = least(starts.imports() for _ in range(asked.rounds))
    rows = [{"name": case.name, **least(one[case] for one in rounds)} for case in cases]
    slowest = max(row["first detection wall"] for row in rows) / 1e3
    verdict = "met   " if slowest <= MOST_SECONDS else "MISSED"
    packages = sorted(imports.items(), key=lambda item: -item[1])[:8]
    report(
        "cold_start",
        asked,
        rows,
        COLUMNS,
        title=f"Start with {asked.model} on {path.name}, ms, least of {asked.rounds}",
        notes=[
            f"{verdict} first detection within {MOST_SECONDS} s: {slowest:.2f} s at most",
            "imports by package: " + ", ".join(f"{name} {ms:g}" for name, ms in packages),
        ],
        met=slowest <= MOST_SECONDS,
        imports=imports,
    )


def least(rounds: Iterable[dict[str, float]]) -> dict[str, float]:
    """The least of each figure over the rounds."""
    found = list(rounds)
    return {name: min(one[name] for one in found) for name in found[0]}


if __name__ == "__main__":
    main()
