"""What there is of NVIDIA here: the driver, its GPUs, and which TensorRT is installed.

Nothing of TensorRT or of CUDA's packages is imported for these questions. The driver is asked
first by all who use them: a TensorRT runtime that is made without one ends the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

from pipeline.errors import EngineUnavailable
from pipeline.gpu.driver import CUDA, share_primary_context

LIBRARY = CUDA  # comes with the driver and with nothing else
INSTALL = "`pip install -e '.[tensorrt]'`"
NEWER_DRIVER = (
    "the driver must be made for its CUDA or a newer one (see nvidia-smi): install driver 580 or "
    "newer, or, in place of what is for CUDA 13, "
    "`pip install tensorrt-cu12 tensorrt-lean-cu12-libs 'cuda-bindings<13'`"
)

_MAJOR, _MINOR = 75, 76  # CUdevice_attribute: compute capability


@dataclass(frozen=True)
class Gpu:
    """One device.

    Attributes:
        name: What its maker calls it.
        compute_capability: Major and minor number.
        memory_bytes: All that it has, used or not.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """A driver that answers.

    Attributes:
        cuda_version: Major and minor number of the newest CUDA that it can run.
        gpus: At least one; work goes to the first (``CUDA_VISIBLE_DEVICES`` chooses).
    """

    cuda_version: tuple[int, int]
    gpus: tuple[Gpu, ...]


class TensorRtPackage(NamedTuple):
    """A TensorRT that can be imported.

    Attributes:
        module: Name of the module.
        version: As its distribution tells it; empty when that is unknown.
        can_build: Whether it makes plans, not only runs them.
    """

    module: str
    version: str
    can_build: bool


# The full package first; the lean one runs plans that were built elsewhere to be portable.
_MODULES = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_lean": ("tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12"),
}


def driver() -> Driver:
    """Ask the driver what it has, and see to it that FFmpeg can share its first GPU's context.

    Raises:
        EngineUnavailable: There is none, it refuses, or it has no GPU; the message says which.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise EngineUnavailable(
            f"there is no NVIDIA driver here ({error}); install it, or start the container with "
            "its GPUs (--gpus all)"
        ) from error
    _ask(library, "cuInit", 0)
    number, count = ctypes.c_int(), ctypes.c_int()
    _ask(library, "cuDriverGetVersion", ctypes.byref(number))
    _ask(library, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise EngineUnavailable(
            "the NVIDIA driver has no GPU; look at nvidia-smi and at CUDA_VISIBLE_DEVICES"
        )
    share_primary_context(library)
    cuda_version = number.value // 1000, number.value % 1000 // 10
    return Driver(cuda_version, tuple(_gpu(library, index) for index in range(count.value)))


def tensorrt_package() -> TensorRtPackage | None:
    """The TensorRT that would be used; None if none is installed. Imports nothing."""
    for module, distributions in _MODULES.items():
        if _exists(module):
            return TensorRtPackage(module, _version(distributions), module == "tensorrt")
    return None


def cuda_bindings_version() -> str | None:
    """Version of the package that TensorRT's engine allocates and copies with; None without it."""
    try:
        return version("cuda-bindings")
    except PackageNotFoundError:
        return None


def _gpu(library: Any, index: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    _ask(library, "cuDeviceGet", ctypes.byref(device), index)
    _ask(library, "cuDeviceGetName", name, len(name), device)
    _ask(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    _ask(library, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    _ask(library, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    shown = name.value.decode("utf-8", "replace")
    return Gpu(shown, (major.value, minor.value), memory.value)


def _ask(library: Any, function: str, *arguments: Any) -> None:
    """One call of the driver; `EngineUnavailable` with its own words unless it succeeds."""
    code = getattr(library, function)(*arguments)
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        words = text.value.decode("utf-8", "replace") if text.value else "no words for it"
        raise EngineUnavailable(
            f"the NVIDIA driver does not work ({function} gave {code}: {words}); look at nvidia-smi"
        )


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # it was imported by somebody who gave it no description
        return True


def _version(distributions: Sequence[str]) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""
