"""What this machine is: processor, cores, memory, and the versions that figures depend on.

Nothing here fails. What a system does not tell is None.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from pipeline.cores import CPU_INFO, processor_fact, processor_flags, usable_cores

PACKAGES = ("numpy", "av", "opencv-python-headless", "openvino", "onnxruntime", "tensorrt")

_INSTRUCTIONS = {  # what matters to an engine -> names in Linux's list, of any maker
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni", "asimddp"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "amx": ("amx_tile",),
}


def machine() -> dict[str, Any]:
    """Processor, cores, memory and the versions that the figures depend on."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed_version(name))},
    }


def cpu_name(cpu_info: Path = CPU_INFO) -> str | None:
    """What its maker calls it; some kernels and most ARM machines do not tell."""
    return processor_fact("model name", cpu_info) or platform.processor() or None


def memory_gib() -> float | None:
    """Memory of the machine, whatever a container may use of it."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not everywhere, not under these names
        return None


def instruction_sets(cpu_info: Path = CPU_INFO) -> dict[str, bool] | None:
    """Which of the instructions that make an engine fast the processor has."""
    flags = set(processor_flags(cpu_info).split())
    if not flags:
        return None
    return {name: not flags.isdisjoint(names) for name, names in _INSTRUCTIONS.items()}


def installed_version(package: str) -> str | None:
    """The version of a distribution, without importing it."""
    # It brings a parser of e-mails with it, and is not needed before the end.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
