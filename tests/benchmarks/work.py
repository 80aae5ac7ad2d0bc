"""The work for one frame, counted and not timed: ``python -m tests.benchmarks.work [--renew]``.

Times differ from machine to machine and from minute to minute, so no test can hold the line to
one. What can be counted is the same everywhere:

- *lines* of our own Python that run for each frame, by file, in the whole line. A loop over boxes
  that becomes a loop over pixels shows here.
- *instructions* of the machine for each frame between the decoder and the encoder, counted by
  valgrind in a processor of its own making. A picture that is converted once more shows here.

Loading and opening do not count. The engine answers at once with ten objects, always the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.machine import installed_version
from tests.benchmarks.files import STREET_FILE
from tests.benchmarks.material import synthetic_clip
from tests.benchmarks.work_instructions import instructions, why_not
from tests.benchmarks.work_lines import MANY_FRAMES, lines_by_file

BASELINE = Path(__file__).with_name("work.json")
MAY_GROW = 1.2
FEW_LINES = 10
"""So many more lines in one file are never complained about."""
SIZE_HW = (180, 320)
RENEW = "python -m tests.benchmarks.work --renew"
PACKAGES = ("av", "numpy", "opencv-python-headless")


def counted(*, machine_too: bool) -> dict[str, Any]:
    """The work of a frame as it is now; instructions only if asked for, which takes a minute."""
    clip = synthetic_clip(SIZE_HW, MANY_FRAMES)
    work: dict[str, Any] = {"lines": lines_by_file(clip)}
    if machine_too:
        work["million_instructions"] = instructions(clip, STREET_FILE)
    return work | {"versions": versions()}


def versions() -> dict[str, str | None]:
    """Of the packages whose instructions are counted, too."""
    return {name: installed_version(name) for name in PACKAGES}


def lines_grown(now: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """A sentence for each file, and one for all of them, that runs too many more lines."""
    totals = {"all files": (sum(now.values()), sum(before.values()))}
    pairs = {file: (count, before.get(file, 0.0)) for file, count in now.items()}
    return [
        f"{name}: {count:.0f} lines a frame, {was:.0f} before"
        for name, (count, was) in (totals | pairs).items()
        if count > MAY_GROW * was + FEW_LINES
    ]


def advice(grown: Sequence[str], versions_before: Mapping[str, str | None]) -> str:
    """What to do about it."""
    changed = [
        f"{name} {was} -> {now}"
        for (name, now), was in zip(versions().items(), versions_before.values(), strict=True)
        if now != was
    ]
    also = f" Packages changed, too: {', '.join(changed)}." if changed else ""
    return (
        f"the work of a frame has grown: {'; '.join(grown)}.{also} If that is meant, renew "
        f"tests/benchmarks/work.json with `{RENEW}` and say in the commit what it buys"
    )


def baseline() -> dict[str, Any]:
    """What was counted when the work was last accepted."""
    work: dict[str, Any] = json.loads(BASELINE.read_text())
    return work


def main(argv: Sequence[str] | None = None) -> None:
    """Count, show, and write down if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.work", description=__doc__)
    parser.add_argument("--renew", action="store_true", help=f"write {BASELINE.name}")
    asked = parser.parse_args(argv)
    if missing := why_not():
        if asked.renew:
            raise SystemExit(missing)
        print(missing, file=sys.stderr)
    work = counted(machine_too=not missing)
    before = baseline() if BASELINE.exists() else {"lines": {}}
    for file, count in work["lines"].items():
        print(f"{count:9.1f} {before['lines'].get(file, 0.0):9.1f}  {file}")
    print(f"{sum(work['lines'].values()):9.1f} {sum(before['lines'].values()):9.1f}  lines")
    if not missing:
        was = before.get("million_instructions", 0.0)
        print(f"{work['million_instructions']:9.3f} {was:9.3f}  million instructions")
    if asked.renew:
        BASELINE.write_text(json.dumps(work, indent=2) + "\n")


if __name__ == "__main__":
    main()
