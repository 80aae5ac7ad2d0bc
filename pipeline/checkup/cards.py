"""NVIDIA's cards as the kernel knows them, whether or not their driver's libraries are there."""

from __future__ import annotations

import re
from pathlib import Path

_BUS, _VERSION = Path("/sys/bus/pci/devices"), Path("/sys/module/nvidia/version")
_NVIDIA, _DISPLAY = "0x10de", "0x03"


def cards_on_the_bus(bus: Path = _BUS) -> int | None:
    """How many graphics cards of NVIDIA's the machine has; None where nobody tells."""
    try:
        devices = list(bus.iterdir())
    except OSError:
        return None
    return sum(
        _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY)
        for device in devices
    )


def driver_version(file: Path = _VERSION) -> str | None:
    """Of the kernel's module, such as 580.95.05."""
    found = re.fullmatch(r"[\d.]+", _read(file))
    return found[0] if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
