"""What torch needs of a machine to compile a program, and to use its GPU."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from pipeline.engines.nvidia import driver
from pipeline.engines.program_graph import Torch
from pipeline.errors import EngineUnavailable

# The second comes with nvcc, and is included by the first's companions.
CUDA_HEADERS = ("cuda.h", "crt/host_defines.h")


def cpp_compiler() -> str | None:
    """The C++ compiler that torch would use; None without one that starts."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        return str(get_cpp_compiler())
    except (ImportError, RuntimeError, OSError):
        return None


def cuda_home() -> str | None:
    """The folder of CUDA's toolkit, as torch finds it; None without one."""
    try:
        from torch.utils import cpp_extension
    except ImportError:
        return None
    found: str | None = cpp_extension.CUDA_HOME
    return found


def missing_tools(torch: Torch, *, on_gpu: bool) -> str | None:
    """Why torch cannot compile here, and what to do about it; None if nothing is known to miss.

    It would find out by itself, after half a minute.
    """
    if cpp_compiler() is None:
        return "there is no C++ compiler that starts: install g++, or let CXX name one"
    if not on_gpu:
        return None
    home = cuda_home()
    remedy = f"install that of CUDA {torch.version.cuda}, or let CUDA_HOME name its folder"
    if home is None:
        return f"for a GPU torch compiles with CUDA's toolkit, which is not here: {remedy}"
    folders = [Path(home, "include"), *map(Path, filter(None, [os.environ.get("CUDA_INC_PATH")]))]
    for header in CUDA_HEADERS:
        if not any((folder / header).exists() for folder in folders):
            return (
                f"for a GPU torch compiles with CUDA's toolkit, and that in {home} has no "
                f"include/{header}: {remedy}"
            )
    return None


def tools(*, on_gpu: bool) -> dict[str, object]:
    """What a failure to compile depends on, so that with other tools it is tried once more."""
    compiler = cpp_compiler()
    path = shutil.which(compiler) if compiler else None
    facts = Path(path).stat() if path else None
    return {
        "compiler": [path, facts.st_size, facts.st_mtime_ns] if facts else compiler,
        "python_headers": Path(sysconfig.get_path("include"), "Python.h").exists(),
        "cuda_home": cuda_home() if on_gpu else None,
    }


def unused_gpu(torch: Torch) -> str | None:
    """Why torch does not use the GPU that the driver tells of; None if it does, or there is none.

    One for the CPU, or for a newer CUDA than the driver's, finds no GPU and does not say so.
    """
    if torch.cuda.is_available():
        return None
    try:
        found = driver()
    except EngineUnavailable:
        return None
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    newest = "{}.{}".format(*found.cuda_version)
    return (
        f"this torch ({torch.__version__}, built {built}) cannot use the {found.gpus[0].name}: "
        f"install one that is built for CUDA, {newest} at the newest"
    )
