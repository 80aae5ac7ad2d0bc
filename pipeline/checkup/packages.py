"""Which packages are installed, whether they can be imported, and what installs the others."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires
from itertools import takewhile
from pathlib import Path
from typing import Any

from pipeline.checkup.isolation import Finding, isolated
from pipeline.checkup.questions import import_package
from pipeline.machine import installed_version

# Distribution -> module. OpenVINO, ONNX Runtime and PyAV are looked at more closely elsewhere.
CORE = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "rich": "rich",
    "setproctitle": "setproctitle",
}
_FOR_DEVELOPERS = {"test", "bench"}
_PROJECT = Path(__file__).parents[2] / "pyproject.toml"

Extras = Mapping[str, list[str]]
"""Requirements, such as ``redis>=5.2``, by the extra's name."""


def core_packages(ask: Callable[..., Finding] = isolated) -> dict[str, Finding]:
    """Version of each package that everything needs, and what keeps it from being imported."""
    return {
        name: {"version": installed_version(name), **ask(import_package, module=module)}
        for name, module in CORE.items()
    }


def extras(project: Path = _PROJECT) -> dict[str, Any]:
    """Every optional extra: whether it is installed, what it lacks, and the line that helps."""
    found = {}
    for name, wanted in known_extras(project).items():
        lacking = [requirement for requirement in wanted if not is_met(requirement)]
        found[name] = {
            "installed": not lacking,
            "lacking": lacking,
            "install": install_line(name, project),
        }
    return found


def known_extras(project: Path = _PROJECT) -> Extras:
    """From the checkout's own file, or from what was installed; those for developers left out."""
    try:
        listed: Extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        listed = _installed_extras()
    return {name: list(wanted) for name, wanted in listed.items() if name not in _FOR_DEVELOPERS}


def install_line(extra: str, project: Path = _PROJECT) -> str:
    """What to type for an extra in the folder of the source, which stays editable if it was."""
    editable = "-e " if project.exists() else ""
    return f'pip install {editable}".[{extra}]"'


def is_met(requirement: str) -> bool:
    """Whether ``name``, ``name>=2.1`` or ``name>=2,<3`` is installed.

    >>> is_met("a-package-that-nobody-has>=1")
    False
    """
    match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*)", requirement)
    found = installed_version(match[1]) if match else None
    if match is None or found is None:
        return False
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", match[2])
    return all((_numbers(found) >= _numbers(bound)) is (sign == ">=") for sign, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    """``2.10.1+cpu`` -> (2, 10, 1)."""
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) for part in takewhile(str.isdigit, parts))


def _installed_extras() -> Extras:
    try:
        lines = requires("boxstream") or []
    except PackageNotFoundError:
        return {}
    listed: dict[str, list[str]] = {}
    for line in lines:
        if match := re.search(r"extra\s*==\s*['\"]([\w-]+)", line):
            listed.setdefault(match[1], []).append(line.partition(";")[0].strip())
    return listed
