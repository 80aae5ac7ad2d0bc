"""Let the line watch cameras that fail, for as long as you like, and see whether it stays flat.

    python -m tests.soak --minutes 60 --sources 4 --faults random --seed 1
    python -m tests.soak --minutes 10 --sources 1 --fps 50 --call-ms 100 --faults none  # overload

Every camera is an RTSP server of its own (`tests/live/kit`), asks for a password, and now and
then is killed, stalls, freezes, hangs up, changes its picture, or sends garbage, as the seed
says. `run_stream.py` watches all of them as a child process. At the end: frames add up, nothing
is in flight, every camera was seen again, the password stands nowhere, and memory, threads and
descriptors are what they were after the warm-up. With an engine that takes `--call-ms` for each
call, results are no older than the age allowed in the line and one call.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.settings import LatencySettings
from tests.benchmarks.material import REPOSITORY
from tests.benchmarks.outcome import arguments, report
from tests.live.kit.cameras import CameraServer, why_no_cameras
from tests.live.kit.faults import Plan
from tests.live.kit.vitals import Vitals

USER, PASSWORD = "viewer", "s0ak:p@ss/word"
SPELLINGS = (PASSWORD, quote(PASSWORD, safe=""))  # the second one stands in every address
SAMPLE_SECONDS = 5.0
QUIET_SECONDS = 45.0  # without faults at the end, so that every camera can be seen again
WARM_UP_SHARE, WARM_UP_SECONDS = 0.2, 60.0  # whichever is longer
LEAST_SECONDS = 90.0  # after the warm-up, to judge threads and descriptors
MOST_MB_PER_HOUR = 1.0
LEAST_HOURS = 0.4  # a shorter run cannot tell so small a slope from noise
MOST_NEW_THREADS, MOST_NEW_DESCRIPTORS = 3, 8
COLUMNS = {
    "name": "camera",
    "faults": "faults",
    "connections": "connections",
    "failures": "failures",
    "frames_decoded": "decoded",
    "frames_inferred": "inferred",
    "dropped": "dropped",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "max": "max ms",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print a table, write the JSON; 1 when a promise was broken."""
    asked = arguments(
        "soak",
        __doc__,
        None,
        argv,
        package="tests",
        minutes={"type": float, "default": 60.0},
        sources={"type": int, "default": 4},
        faults={"choices": ("random", "none"), "default": "random"},
        seed={"type": int, "default": 1},
        fps={"type": int, "default": 15},
        call_ms={"type": float, "help": "make every call of the engine take as long"},
        out={"nargs": "+", "default": ["null:"], "help": "outputs of the line (null:)"},
        set={"nargs": "+", "default": [], "help": "settings of the line, KEY=VALUE"},
        report={"type": Path, "help": "the same as --json"},
    )
    asked.json = asked.json or asked.report
    missing = why_no_cameras()
    if missing:
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(asked, Path(folder))
    rows = [row(name, source, outcome) for name, source in outcome["report"]["sources"].items()]
    broken = [promise for promise, kept in outcome["promises"].items() if not kept]
    report(
        "soak",
        asked,
        rows,
        COLUMNS,
        title=f"{asked.sources} cameras, {asked.minutes:g} minutes, faults: {asked.faults}",
        notes=[
            *(f"{'kept  ' if ok else 'BROKEN'} {what}" for what, ok in outcome["promises"].items()),
            *outcome["remarks"],
        ],
        **{key: outcome[key] for key in ("vitals", "slopes", "injected", "report")},
    )
    return 1 if broken else 0


def soak(asked: Any, folder: Path) -> dict[str, Any]:
    """Start cameras and line, break cameras, take notes, stop, judge."""
    with ExitStack() as stack:
        cameras = [
            stack.enter_context(CameraServer(user=USER, password=PASSWORD)).add(
                f"cam{number}", fps=asked.fps, seed=number
            )
            for number in range(asked.sources)
        ]
        words = folder / "words.txt"
        line = stack.enter_context(started_line([c.url for c in cameras], asked, folder, words))
        stack.callback(line.kill)
        plan = Plan(cameras, asked.seed) if asked.faults == "random" else None
        vitals = watch(line, plan, asked.minutes * 60)
        line.send_signal(signal.SIGINT)
        code = line.wait(timeout=60)
    path = folder / "report.json"
    line_report = json.loads(path.read_text()) if path.exists() else {"sources": {}}
    injected = plan.done if plan else []
    told = words.read_text(errors="replace") + json.dumps(line_report)
    outcome = {"report": line_report, "injected": injected, "vitals": vitals.samples}
    return outcome | judged(code, line_report, vitals, told, asked)


def started_line(
    urls: Sequence[str], asked: Any, folder: Path, words: Path
) -> subprocess.Popen[bytes]:
    """`run_stream.py` on all cameras; what it says goes to the file `words`."""
    program = ["-m", "tests.live.kit.slow_line", str(asked.call_ms)]
    program = program if asked.call_ms else ["run_stream.py"]
    command = [sys.executable, *program, *urls, "--out", *asked.out]
    command += ["--report", str(folder / "report.json"), "--quiet"]
    for setting in asked.set:
        command += ["--set", setting]
    with words.open("wb") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)


def watch(line: subprocess.Popen[bytes], plan: Plan | None, seconds: float) -> Vitals:
    """Note the line's vital signs every few seconds, and let the plan do its worst meanwhile."""
    vitals, started = Vitals(line.pid), time.monotonic()
    quiet_from = max(seconds / 2, seconds - QUIET_SECONDS)
    due = 0.0
    while (now := time.monotonic() - started) < seconds and line.poll() is None:
        if now >= due:
            vitals.take(now)
            due += SAMPLE_SECONDS
        if plan is not None:
            plan.go_on(now, may_begin=now < quiet_from)
        wait_until = min(due, seconds, plan.next_at if plan else due)
        try:
            line.wait(timeout=max(0.05, wait_until - (time.monotonic() - started)))
        except subprocess.TimeoutExpired:
            continue
    return vitals


def judged(
    code: int, line_report: dict[str, Any], vitals: Vitals, told: str, asked: Any
) -> dict[str, Any]:
    """Each promise and whether it was kept."""
    sources = line_report["sources"]
    warm_from = max(WARM_UP_SHARE * asked.minutes * 60, WARM_UP_SECONDS)
    judged_seconds = asked.minutes * 60 - warm_from
    slope, noise = vitals.slope_per_hour("rss_mb", warm_from)
    threads, descriptors = (vitals.growth(key, warm_from) for key in ("threads", "descriptors"))
    promises = {
        "it ran until it was stopped, and stopped properly": code == 128 + signal.SIGINT,
        "every decoded frame was inferred or dropped for a cause": len(sources) == asked.sources
        and all(adds_up(source) for source in sources.values()),
        "every camera was seen, and again after its last fault": bool(sources)
        and all(was_seen_at_the_end(source) for source in sources.values()),
        "the password stands in no report and in nothing said": not any(
            spelling in told for spelling in SPELLINGS
        ),
    }
    if asked.call_ms:
        oldest = 1e3 * LatencySettings().max_age_seconds + asked.call_ms
        p99 = max((source["latency_ms"]["p99"] for source in sources.values()), default=math.inf)
        promises[f"p99 of the age is {p99:.0f} ms, less than {oldest:.0f}"] = p99 < oldest
    over_time = {
        f"threads stay flat (+{threads:g})": threads <= MOST_NEW_THREADS,
        f"descriptors stay flat (+{descriptors:g})": descriptors <= MOST_NEW_DESCRIPTORS,
    }
    remarks: list[str] = []
    if judged_seconds >= LEAST_SECONDS:
        promises |= over_time
    else:
        remarks += [f"too short to judge: {what}" for what in over_time]
    grows = f"memory grows by {slope:.2f} MB/h (± {noise:.2f}), less than {MOST_MB_PER_HOUR:g}"
    if judged_seconds < LEAST_HOURS * 3600:
        remarks.append(f"too short to judge: {grows}")
    elif abs(slope - MOST_MB_PER_HOUR) <= noise:
        remarks.append(f"too noisy to judge: {grows}")
    else:
        promises[grows] = slope < MOST_MB_PER_HOUR
    slopes = {"rss_mb_per_hour": slope, "threads": threads, "descriptors": descriptors}
    return {"promises": promises, "remarks": remarks, "slopes": slopes}


def adds_up(source: dict[str, Any]) -> bool:
    """decoded = inferred + dropped, and nothing is left under way."""
    dropped = sum(source["frames_dropped"].values())
    whole = source["frames_decoded"] == source["frames_inferred"] + dropped
    return whole and source["frames_in_flight"] == 0 and source["frames_decoded"] > 0


def was_seen_at_the_end(source: dict[str, Any]) -> bool:
    """Running was the last thing it did before the end."""
    states = [event["state"] for event in source["events"] if event["state"] != "ENDED"]
    return bool(states) and states[-1] == "RUNNING"


def row(name: str, source: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """One camera's line of the table."""
    faults = sum(1 for fault in outcome["injected"] if name.endswith(fault["camera"]))
    return {
        "name": name,
        "faults": faults,
        "connections": source["connections"],
        "failures": ", ".join(f"{n} {cause}" for cause, n in source["failures"].items()) or "none",
        "frames_decoded": source["frames_decoded"],
        "frames_inferred": source["frames_inferred"],
        "dropped": ", ".join(f"{n} {cause}" for cause, n in source["frames_dropped"].items()),
        **{key: source["latency_ms"][key] for key in ("p50", "p99", "max")},
    }


if __name__ == "__main__":
    sys.exit(main())
