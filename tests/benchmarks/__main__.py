"""Run benchmarks, each in a process of its own: ``python -m tests.benchmarks [NAME ...]``.

Without names it runs all, some forty minutes on two cores; nothing else should run meanwhile.
Options come after the names and are handed on: ``--rounds N``, ``--smoke``.
"""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.material import REPOSITORY

BIG = "mobilenet_v3_large_320_fpn"
ALL = (
    ("engines",),
    ("line", "--model", "street"),
    ("line", "--model", BIG),
    ("limits", "--model", "street"),
    ("limits", "--model", BIG),
    ("memory",),
    ("critical_path",),
    ("cold_start",),
    ("streams",),
    ("scale",),
    ("privacy",),
    ("live",),
)


def main() -> int:
    """Return the worst exit code."""
    worst, given = 0, sys.argv[1:]
    first_option = next((i for i, word in enumerate(given) if word.startswith("-")), len(given))
    names, handed_on = given[:first_option], given[first_option:]
    unknown = set(names) - {name for name, *_ in ALL}
    if unknown:
        raise SystemExit(f"no benchmark is called {', '.join(sorted(unknown))}")
    for name, *options in ALL:
        if names and name not in names:
            continue
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options, *handed_on]
        print(f"\n$ {' '.join(['python', *command[1:]])}", flush=True)
        worst = max(worst, subprocess.run(command, cwd=REPOSITORY, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
