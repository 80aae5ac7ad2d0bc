"""What is asked of the driver's libraries themselves, before FFmpeg and engines use them."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

CUDA = "libcuda.so.1"
DECODES, ENCODES = "libnvcuvid.so.1", "libnvidia-encode.so.1"  # FFmpeg loads them late

_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC: who waits for the GPU sleeps
_FIRST = 0  # FFmpeg's device and the engines'


def trouble_of_library(name: str) -> str | None:
    """Why the driver's library for video cannot be had; None if it loads.

    Containers are given ``compute,utility`` unless they ask for more: CUDA is there, these not.
    """
    if sys.platform != "linux":  # the names are others
        return None
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return f"the driver's {name} is missing, as in containers without `video` ({error})"
    return None


def share_primary_context(cuda: Any = None) -> None:
    """Have the context of CUDA that engines and torch share be one that FFmpeg takes, too.

    FFmpeg refuses it unless whoever waits in it sleeps. What is set before anybody works in it
    holds for all; afterwards drivers change it, too, but only since CUDA 11. Where it cannot be
    set, that costs memory and nothing else: each decoder then makes a context of its own.

    Args:
        cuda: The driver's library, after its `cuInit`; None: it is loaded already, by FFmpeg.
    """
    if cuda is None and sys.platform != "linux":
        return
    library = ctypes.CDLL(CUDA) if cuda is None else cuda
    device = ctypes.c_int()
    set_flags = getattr(library, "cuDevicePrimaryCtxSetFlags_v2", None)  # of CUDA 11
    if set_flags and not library.cuDeviceGet(ctypes.byref(device), _FIRST):
        set_flags(device, _BLOCKING_SYNC)
