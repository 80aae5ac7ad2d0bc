"""The chart and the table of the README, made from results/full.json: ``python -m ...chart``.

Both are a function of that file alone, and a test holds the README against it, so that neither can
say anything that was not measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tests.benchmarks.material import REPOSITORY
from tests.benchmarks.outcome import RESULTS

FIGURES = RESULTS / "full.json"
CHART = REPOSITORY / ".github" / "bench-full.svg"
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- full.json: made by tests.benchmarks.chart -->", "<!-- end of full.json -->"
WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 860, 18, 10, 300, 150, 64
HEADING = "Frames a second of the whole line"
OURS, OTHERS, FLOOR, DOUBTED = "#1a7f5a", "#5b7fb5", "#a0a0a0", "#d0a0a0"

Entry = Mapping[str, Any]


def svg(entry: Entry) -> str:
    """Horizontal bars, frames/s; whiskers reach over (max - min) of the rounds."""
    rows: Sequence[Entry] = entry["rows"]
    height = TOP + len(rows) * (BAR + GAP) + 26
    scale = (WIDTH - LEFT - RIGHT) / max(row["fps"] for row in rows if row["finds"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="26" font-size="15" fill="#222222">{HEADING}</text>',
        f'<text x="12" y="46" font-size="12" fill="#555555">{escape(entry["title"])}</text>',
    ]
    for number, row in enumerate(rows):
        parts += _bar(row, TOP + number * (BAR + GAP), scale)
    foot = f"medians of {entry['rounds']} alternating rounds, whiskers max - min; {where(entry)}"
    parts.append(
        f'<text x="12" y="{height - 10}" font-size="11" fill="#555555">{escape(foot)}</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: Entry, y: int, scale: float) -> list[str]:
    most = WIDTH - LEFT - RIGHT
    off_the_scale = row["fps"] * scale > most + 0.1  # who detects nothing may be
    length = most if off_the_scale else row["fps"] * scale
    half = 0 if off_the_scale else min(row["spread"] * length / 2, RIGHT / 3)
    middle, end = y + BAR / 2, LEFT + length
    doubt = "" if row["believed"] else " (not believed)"
    label = f"{row['fps']:.1f}{' (off the scale)' if off_the_scale else doubt}"
    whisker = f'y1="{middle:g}" y2="{middle:g}" stroke="#222222"'
    return [
        f'<text x="{LEFT - 8}" y="{middle + 4:g}" text-anchor="end" fill="#222222">'
        f"{escape(row['name'])}</text>",
        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{_colour(row)}"/>',
        f'<line x1="{end - half:.1f}" x2="{end + half:.1f}" {whisker}/>',
        f'<text x="{end + half + 6:.1f}" y="{middle + 4:g}" fill="#222222">{label}</text>',
    ]


def _colour(row: Entry) -> str:
    if not row["believed"]:
        return DOUBTED
    if not row["finds"]:
        return FLOOR
    return OURS if row["program"] == "boxstream" else OTHERS


def markdown(entry: Entry) -> str:
    """The same as a table, for those who want the numbers."""
    lines = [
        f"![{HEADING}]({CHART.relative_to(REPOSITORY).as_posix()})",
        "",
        f"{HEADING}: {entry['title']}; {where(entry)}.",
        f"Medians of {entry['rounds']} alternating rounds.",
        "",
        "| program | frames/s | spread | CPU ms a frame | peak MB | objects | same objects |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in entry["rows"]:
        same = "-" if row["agreement"] is None else f"{row['agreement']:.2f}"
        objects = "-" if row["objects"] is None else f"{row['objects']:.1f}"
        if "agreement_on_street" in row:
            same += f"; {row['agreement_on_street']:.2f} on `street`"
        doubt = "" if row["believed"] else " (not believed)"
        lines.append(
            f"| {row['name']}{doubt} | {row['fps']:.1f} | {100 * row['spread']:.0f} % | "
            f"{row['cpu_ms']:.1f} | {row['peak_mb']:.0f} | {objects} | {same} |"
        )
    out = [f"Left out: {program} ({why})." for program, why in entry["missing"].items()]
    return "\n".join([*lines, *(["", *out] if out else [])])


def where(entry: Entry) -> str:
    """Date and machine."""
    machine = entry["machine"]
    known = machine["instructions"] or {}
    has = ", ".join(name for name, there in known.items() if there)
    cpu = f"{machine['cpu']} ({has})" if has else machine["cpu"]
    return f"{entry['date'][:10]}, {machine['cores_usable']} cores of {cpu}"


def figures() -> Entry | None:
    """What was measured last; None before."""
    if not FIGURES.exists():
        return None
    entry: Entry = json.loads(FIGURES.read_text())
    return entry


def in_readme(text: str) -> str:
    """What stands between the marks of the README."""
    return _parted(text)[1].strip("\n")


def with_table(text: str, entry: Entry) -> str:
    """The README with the table of `entry` between the marks, and all else as it was."""
    before, _, after = _parted(text)
    return f"{before}\n{markdown(entry)}\n{after}"


def _parted(text: str) -> tuple[str, str, str]:
    """Up to the first mark, between the two, from the second one on."""
    before, begin, rest = text.partition(BEGIN)
    between, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README needs the lines {BEGIN!r} and {END!r}; put them back")
    return before + begin, between, end + after


def main() -> None:
    """Write the chart, and the table into the README."""
    argparse.ArgumentParser(
        prog="python -m tests.benchmarks.chart", description=__doc__
    ).parse_args()
    entry = figures()
    if entry is None:
        raise SystemExit(f"{FIGURES.name} is not there yet; run `make bench-full` first")
    CHART.write_text(svg(entry), encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8"), entry), encoding="utf-8")
    print(f"wrote {CHART.relative_to(REPOSITORY)} and the table in {README.name}")


if __name__ == "__main__":
    main()
