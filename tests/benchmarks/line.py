"""The whole line on recorded clips: boxstream, a plain OpenCV loop, supervision's threaded one.

Every program reads the clip, finds objects with the same model file on the same engine, draws
them, writes annotated video and one JSON line for each frame; each in a process of its own, in
alternating rounds. The loops write MPEG-4 part 2 by default, the only codec their OpenCV brings;
boxstream writes H.264. So each is also measured with the other's codec: H.264 with exactly the
parameters that boxstream chose, MPEG-4 with each program's own quality.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.model_file.content import content_sha256
from tests.benchmarks.agreement import Found, Tolerance, matched_share
from tests.benchmarks.contestant import Job
from tests.benchmarks.cost import Cost, in_turn, middle
from tests.benchmarks.files import STREET, best_precision, model_for_the_line
from tests.benchmarks.material import CLIPS, REPOSITORY, Recording, clip, synthetic_clip
from tests.benchmarks.outcome import aim, arguments, in_words, report, wanted

ROUNDS = 3
LONGEST_SECONDS = 900.0  # of one run of a program; compiling the slowest takes a few minutes
SIMILAR = Tolerance(iou=0.7, score=0.2)
"""The programs scale and convert the picture in their own ways, so scores differ a little."""

COLUMNS = {
    "name": "clip, program, codec",
    "fps": "frames/s",
    "spread": "spread",
    "cpu_ms": "CPU ms",
    "peak_mb": "peak MB",
    "output_mb": "output MB",
    "start_seconds": "start s",
    "objects": "objects",
    "agreement": "same objects",
}


class Entry(NamedTuple):
    """One program with one codec."""

    program: str
    codec: str
    encoder: str

    def name(self, clip_name: str) -> str:
        """As in the table."""
        own = " *" if self.encoder == "default" else ""
        return f"{clip_name} {self.program} {self.codec}{own}"


ENTRIES = (
    Entry("boxstream", "H.264", "default"),
    Entry("boxstream", "MPEG-4", "mpeg4"),
    Entry("opencv", "MPEG-4", "default"),
    Entry("opencv", "H.264", "x264"),
    Entry("supervision", "MPEG-4", "default"),
    Entry("supervision", "H.264", "x264"),
)


@dataclass
class Contest:
    """All programs on one clip with one model.

    Attributes:
        job: What each is given; the encoder differs.
        runs: What came out, by entry, the latest last.
        pythons: The interpreter of a program that has an environment of its own.
    """

    job: Job
    runs: dict[Entry, list[dict[str, Any]]]
    pythons: Mapping[str, Path] = field(default_factory=dict)

    def run(self, entry: Entry) -> Cost:
        """One run in a fresh process."""
        folder = self.job.folder / f"{entry.program}-{entry.encoder}"
        folder.mkdir(exist_ok=True)
        job = replace(self.job, folder=folder, encoder=entry.encoder)
        outcome = run_contestant(entry.program, job, self.pythons.get(entry.program))
        outcome["found"] = read_lines(folder / "lines.jsonl")
        self.runs.setdefault(entry, []).append(outcome)
        return Cost(outcome["frames"], outcome["wall_seconds"], outcome["cpu_seconds"])

    def agreement(self, entry: Entry, reference: Entry) -> float:
        """Share of objects that `entry` and `reference` both found; both must have all frames."""
        ours, theirs = self.runs[reference][-1]["found"], self.runs[entry][-1]["found"]
        if len(ours) != len(theirs):
            raise SystemExit(f"{reference} wrote {len(ours)} frames, {entry} {len(theirs)}")
        return matched_share(zip(ours, theirs, strict=True), SIMILAR)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write down."""
    asked = arguments(
        "line",
        __doc__,
        ROUNDS,
        argv,
        model={"default": STREET, "help": "street (bundled), mobilenet_v3_large_320_fpn or a file"},
        precision={"choices": ("f32", "bf16"), "help": "of the engine; the same for all"},
        frames={"type": int, "help": "of each clip, at most"},
        set={"nargs": "+", "default": [], "metavar": "KEY=VALUE", "help": "for boxstream only"},
    )
    model = model_for_the_line(asked.model)
    precision = asked.precision or best_precision()
    rows: list[dict[str, Any]] = []
    aims: list[dict[str, Any]] = []
    clips = {"small": None} if asked.smoke else CLIPS
    for name, recording in clips.items():
        with tempfile.TemporaryDirectory() as folder:
            job = _job(recording, model, Path(folder), precision, asked.frames, asked.set)
            table = measure(name, job, asked.rounds, asked.only)
        rows += table
        aims += aims_of(name, {row["entry"]: row for row in table})
    report(
        f"line_{Path(asked.model).stem}",
        asked,
        rows,
        COLUMNS,
        title=f"The whole line with {asked.model}, OpenVINO {precision}",
        notes=[
            "* what the program writes by default",
            "frames/s from opening the clip to closing the output; start = imports, model, warm-up",
            "same objects: share found by boxstream's default as well (IoU > 0.7, score +- 0.2)",
            *in_words(aims),
        ],
        aims=aims,
        precision=precision,
        model_sha256=content_sha256(model),
    )


def _job(
    recording: Recording | None,
    model: Path,
    folder: Path,
    precision: str,
    frames: int | None,
    extra: Sequence[str],
) -> Job:
    if recording is None:  # a smoke test
        path, most = synthetic_clip((180, 320), 12), 12
    else:
        path, most = clip(recording), frames or recording.frames
    return Job(path, model, folder, precision, "default", None, most, tuple(extra))


def measure(name: str, job: Job, rounds: int, only: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one clip, in the order of `ENTRIES`."""
    reference = ENTRIES[0]
    rehearsal = Contest(job, {})
    rehearsal.run(reference)  # fills the file cache, and says which H.264 the others shall write
    x264 = rehearsal.runs[reference][0]["encoding"]
    contest = Contest(replace(job, x264=x264), {})
    entries = [e for e in ENTRIES if wanted(e.name(name), only)]
    costs = in_turn(rounds, {e.name(name): lambda e=e: contest.run(e) for e in entries})
    contest.runs.setdefault(reference, rehearsal.runs[reference])
    return [row(e, e.name(name), costs[e.name(name)], contest, reference) for e in entries]


def row(
    entry: Entry, name: str, costs: Sequence[Cost], contest: Contest, reference: Entry
) -> dict[str, Any]:
    """Medians over the rounds."""
    runs = contest.runs[entry]
    last = {key: runs[-1].get(key) for key in ("engine", "encoding", "stages")}
    return {
        "name": name,
        "entry": f"{entry.program} {entry.codec}",
        **middle(costs),
        "peak_mb": round(statistics.median(run["peak_mb"] for run in runs)),
        "output_mb": round(statistics.median(run["output_mb"] for run in runs), 2),
        "start_seconds": round(statistics.median(run["start_seconds"] for run in runs), 2),
        "objects": round(float(np.mean([len(found) for found in runs[-1]["found"]])), 2),
        "agreement": round(contest.agreement(entry, reference), 4),
        **last,
    }


def aims_of(clip_name: str, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the design asks of the line, as far as the rows are there."""

    def best(codec: str, key: str, choose: Any) -> float | None:
        names = (f"opencv {codec}", f"supervision {codec}")
        values = [rows[name][key] for name in names if name in rows]
        return choose(values) if values else None

    def ratio(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a / b

    def ours(codec: str, key: str) -> float | None:
        return rows[f"boxstream {codec}"][key] if f"boxstream {codec}" in rows else None

    h264, mpeg4 = "H.264", "MPEG-4"
    aims = []
    for codec in (h264, mpeg4):
        faster = ratio(ours(codec, "fps"), best(codec, "fps", max))
        cheaper = ratio(best(codec, "cpu_ms", min), ours(codec, "cpu_ms"))
        aims.append(aim(f"{clip_name}: frames/s over the best loop's, {codec}", faster, 1.4))
        aims.append(aim(f"{clip_name}: CPU of the best loop over ours, {codec}", cheaper, 1.0))
    across = ratio(ours(h264, "fps"), best(mpeg4, "fps", max))
    what = f"{clip_name}: frames/s, our H.264 over the best loop's MPEG-4"
    aims.append(aim(what, across, 1.2))
    return [each for each in aims if each["value"] is not None]


def run_contestant(program: str, job: Job, python: Path | None = None) -> dict[str, Any]:
    """Start it, hand it the job, wait, and read what it says.

    Raises:
        subprocess.SubprocessError: it failed, or hangs.
    """
    done = subprocess.run(
        [python or sys.executable, "-m", "tests.benchmarks.contestant", program],
        input=json.dumps(asdict(job), default=str),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        check=True,
        timeout=LONGEST_SECONDS,
    )
    # Some libraries greet on the standard output.
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def read_lines(path: Path) -> list[Found]:
    """What a program wrote about each frame."""
    found = []
    for line in path.read_text().splitlines():
        objects = json.loads(line)["detections"]
        found.append(
            Found(
                np.array([o["box"] for o in objects], np.float64).reshape(-1, 4),
                np.array([o["class_id"] for o in objects], np.int64),
                np.array([o["score"] for o in objects], np.float64),
            )
        )
    return found


if __name__ == "__main__":
    main()
