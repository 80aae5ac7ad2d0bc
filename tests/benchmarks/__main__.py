"""Run every benchmark, each in a process of its own: ``python -m tests.benchmarks``.

Options are handed on: ``--rounds N``, ``--smoke``. Some half an hour on two cores; nothing else
should run meanwhile.
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
    ("streams",),
    ("live",),
)


def main() -> int:
    """Return the worst exit code."""
    worst = 0
    for name, *options in ALL:
        command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options, *sys.argv[1:]]
        print(f"\n$ {' '.join(['python', *command[1:]])}", flush=True)
        worst = max(worst, subprocess.run(command, cwd=REPOSITORY, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
