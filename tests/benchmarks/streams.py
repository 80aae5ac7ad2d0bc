"""How many cameras one machine can carry: ``python -m tests.benchmarks.streams``.

A recording is replayed as 1 to 16 cameras at its own pace, all detected by one line. As long as
the machine keeps up, nothing is dropped; beyond that frames are dropped, and the age of results
must stay flat. Each run is a program of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.cost import Meter
from tests.benchmarks.files import best_precision
from tests.benchmarks.material import REPOSITORY, ROAD, clip, synthetic_clip
from tests.benchmarks.outcome import arguments, report

COUNTS = (1, 2, 3, 4, 5, 6, 8, 16)
SECONDS = 20.0
COLUMNS = {
    "name": "cameras",
    "threads": "threads each",
    "offered_fps": "offered/s",
    "fps": "inferred/s",
    "dropped_percent": "dropped %",
    "slowest_fps": "least of one",
    "fastest_fps": "most of one",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "cpu_ms": "CPU ms/inferred",
    "cores": "cores busy",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "streams",
        __doc__,
        None,
        argv,
        seconds={"type": float, "default": SECONDS, "help": "of each run"},
        counts={"type": int, "nargs": "+", "default": COUNTS, "metavar": "N", "help": "cameras"},
        threads={"type": int, "nargs": "+", "default": [1], "help": "of each decoder"},
    )
    path, counts, seconds = clip(ROAD), asked.counts, asked.seconds
    if asked.smoke:
        path, counts, seconds = synthetic_clip((180, 320), 25), (2,), 3.0
    rows = [watch(path, count, threads, seconds) for count in counts for threads in asked.threads]
    report(
        "streams",
        asked,
        rows,
        COLUMNS,
        title=f"{path.name} replayed as cameras, model street, {seconds:g} s each, no output",
        notes=[
            "latency: from leaving the decoder until the result is there, of the worst camera",
            "CPU and cores: of the whole run, half a second to start it included",
        ],
    )


def watch(recording: Path, count: int, threads: int, seconds: float) -> dict[str, Any]:
    """One run with so many cameras, each decoded with so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        sources = [f"replay:{recording}#loop=true&name=camera{n + 1}" for n in range(count)]
        options = ["--out", "null:", "--report", str(path), "--quiet", "--duration", str(seconds)]
        options += ["--set", f"decoder_threads={threads}"]
        options += ["--set", f"engine.precision={best_precision()}"]
        with Meter() as meter:
            subprocess.run(
                [sys.executable, "run_stream.py", *sources, *options], cwd=REPOSITORY, check=True
            )
        written = json.loads(path.read_text())
    return {"name": str(count), "threads": threads} | _row(written, meter)


def _row(written: dict[str, Any], meter: Meter) -> dict[str, Any]:
    sources = list(written["sources"].values())
    decoded = sum(source["frames_decoded"] for source in sources)
    inferred = sum(source["frames_inferred"] for source in sources)
    cost = meter.cost(max(inferred, 1))
    rates = [source["fps"] or 0.0 for source in sources]
    worst = max((source["latency_ms"] for source in sources), key=lambda ms: ms["p95"] or 0.0)
    return {
        "offered_fps": round(sum(source["offered_fps"] or 0.0 for source in sources), 1),
        "fps": round(sum(rates), 1),
        "dropped_percent": round(100 * (decoded - inferred) / max(decoded, 1), 1),
        "slowest_fps": round(min(rates), 1),
        "fastest_fps": round(max(rates), 1),
        **{f"{name}_ms": worst[name] for name in ("p50", "p95", "p99")},
        "cpu_ms": round(cost.cpu_ms, 1),
        "cores": round(cost.cpu_seconds / cost.wall_seconds, 2),
        "sources": written["sources"],
    }


if __name__ == "__main__":
    main()
