"""An environment for each contestant, so that none has to bear the packages of another.

`contestants/NAME.txt` pins every package of an environment. It is made once, under
``build/benchmarks/environments``, and again when its file changes. What cannot be installed is
left out of the race, and the report says why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.material import WORKSHOP, fingerprint

PINS = Path(__file__).with_name("contestants")
ROOT = WORKSHOP / "environments"
INSTALL_SECONDS = 1800
_SHOWN = 300
_LIST = """
import json
from importlib.metadata import distributions
print(json.dumps({one.metadata["Name"].lower(): one.version for one in distributions()}))
"""


class Missing(NamedTuple):
    """Why there is no such environment."""

    why: str


def environment(name: str, *, may_install: bool = True) -> Path | Missing:
    """The Python of the environment `name`, made if it is not there yet."""
    pins = PINS / f"{name}.txt"
    folder = ROOT / f"{name}-{fingerprint([pins], sys.version)}"
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    if not may_install:
        return Missing(f"not installed; python -m tests.benchmarks.full --install {name}")
    shutil.rmtree(folder, ignore_errors=True)  # the rest of an installation that was cut off
    print(f"installing {pins.name} (some are gigabytes) ...", file=sys.stderr, flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "install", "--quiet", "--no-deps", "-r", pins],
            check=True,
            stderr=subprocess.PIPE,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        return Missing(_last_words(error.stderr))
    except subprocess.TimeoutExpired:
        return Missing(f"installing took longer than {INSTALL_SECONDS} s")
    (folder / "ready").touch()
    return python


def versions(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of those of the packages that an environment has."""
    done = subprocess.run([python, "-c", _LIST], stdout=subprocess.PIPE, check=True, text=True)
    listed: dict[str, str] = json.loads(done.stdout)
    return {name: listed[name] for name in packages if name in listed}


def _last_words(complaint: str | None) -> str:
    """The error in what pip said, without addresses."""
    lines = [line for line in (complaint or "").splitlines() if line.startswith("ERROR")]
    return (lines[-1] if lines else "pip failed")[:_SHOWN]
