"""The table on the terminal and the JSON file beside it; the command line all scripts share."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.machine import instruction_sets, machine

RESULTS = Path(__file__).parent / "results"
SCHEMA = "boxstream.benchmark/1"
PACKAGES = ("torch", "torchvision", "onnx", "supervision")

Row = Mapping[str, Any]


def arguments(
    name: str,
    description: str | None,
    rounds: int | None,
    argv: Sequence[str] | None,
    package: str = "tests.benchmarks",
    **extra: Any,
) -> argparse.Namespace:
    """Read ``--rounds --only --smoke --json`` and the `extra` options, given as flag=keywords.

    rounds: unless told otherwise; None: everything is run once, whatever is handed on to all.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {package}.{name}", description=description)
    add = parser.add_argument
    told = f"alternating rounds; medians are shown ({rounds})" if rounds else argparse.SUPPRESS
    add("--rounds", type=int, metavar="N", help=told)
    add("--only", metavar="TEXT", nargs="+", default=[], help="rows whose name has one of these")
    add("--smoke", action="store_true", help="seconds only: does it run? figures mean nothing")
    add("--json", type=Path, metavar="FILE", help="where the figures go (results/ in this folder)")
    for flag, keywords in extra.items():
        add(f"--{flag.replace('_', '-')}", **keywords)
    found = parser.parse_args(argv)
    found.rounds = (found.rounds or (1 if found.smoke else rounds)) if rounds else 1
    return found


def wanted(name: str, only: Sequence[str]) -> bool:
    """Tell whether a row is asked for."""
    return not only or any(text in name for text in only)


def report(
    name: str,
    asked: argparse.Namespace,
    rows: Sequence[Row],
    columns: Mapping[str, str],
    *,
    title: str,
    notes: Iterable[str] = (),
    **more: Any,
) -> None:
    """Print the rows as a table, and write them down with the machine they were measured on.

    Args:
        columns: Heading of each column by the key of a row; other keys go to the file only.
        notes: Sentences under the table: aims, formulas, what was left out.
        more: Further entries of the file.
    """
    console = Console(highlight=False, width=max(Console().width, 130))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, heading in enumerate(columns.values()):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    console.print(table)
    notes = list(notes)
    for note in notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    path = asked.json or (None if asked.smoke or asked.only else RESULTS / f"{name}.json")
    if path is None:
        console.print("  (not written: part of the rows only; give --json FILE)", markup=False)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {
        "schema": SCHEMA,
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": asked.rounds,
        "smoke": asked.smoke,
        "load_average_at_end": [round(load, 2) for load in os.getloadavg()],
        "machine": _machine(),
        "title": title,
        "rows": list(rows),
        "notes": notes,
        **more,
    }
    path.write_text(json.dumps(entry, indent=2) + "\n")


def aim(what: str, value: float | None, least: float) -> dict[str, Any]:
    """How a measured ratio stands to what was aimed at."""
    return {
        "what": what,
        "value": None if value is None else round(value, 3),
        "least": least,
        "met": value is not None and value >= least,
    }


def in_words(aims: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each aim that could be measured."""
    return [
        f"{'met   ' if aim['met'] else 'MISSED'} {aim['what']}: "
        f"{aim['value']:.2f} (aim: at least {aim['least']:g})"
        for aim in aims
        if aim["value"] is not None
    ]


def _machine() -> dict[str, Any]:
    entry = machine()
    versions = dict(entry["versions"])
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return entry | {
        "instructions": instruction_sets(),  # makers call very different processors alike
        "commit": _commit(),
        "versions": versions,
    }


def _commit() -> str | None:
    """The state of the code, with a plus where files differ from it; None outside a clone."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"
    return str(value)
