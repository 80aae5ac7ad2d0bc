"""Pictures that NVDEC has left in the GPU's memory.

A copy of FFmpeg's own: its decoder copies each picture out of the surfaces of the chip, of which
there are few, so that pictures may be kept (unless ``unsafe_output`` is asked for).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from pipeline.errors import SourceError, reason

ON_GPU = "cuda"  # FFmpeg's pixel format of pictures that lie in a GPU's memory

# Layouts of theirs that are read there: 4:2:0 with its chroma woven, and samples that fill the
# upper bits of their bytes. The others (4:2:2 and 4:4:4) are rare, and PyAV does not export them.
LAYOUTS = ("nv12", "p010le", "p016le")


class Planes(NamedTuple):
    """A picture's planes as tensors that share its memory, and keep it from being given back.

    Attributes:
        luma: (H, W) uint8 or uint16.
        chroma: (H // 2, W // 2, 2) of the same type, U and V. The last column and row of a
            picture of odd size are not counted, but lie in memory behind the others.
    """

    luma: Any
    chroma: Any


def is_on_gpu(picture: av.VideoFrame) -> bool:
    """Whether a picture lies in a GPU's memory."""
    return picture.format.name == ON_GPU


def is_readable_there(picture: av.VideoFrame) -> bool:
    """Whether a picture on the GPU is in one of `LAYOUTS`, and its chroma is more than nothing."""
    layout = picture.sw_format
    has_chroma = picture.width > 1 and picture.height > 1  # as PyAV counts
    return layout is not None and layout.name in LAYOUTS and has_chroma


def in_memory(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture itself, or a copy in main memory of one that lies on the GPU.

    A copy is in the layout that the picture has there (``nv12``, ``p010le``, ...), with its
    times, colours, rotation and all else that is known of it.

    Raises:
        SourceError: The GPU fails.
    """
    if not is_on_gpu(picture):
        return picture
    # PyAV copies a picture of the GPU before it converts it; there is nothing to convert then.
    # (A decoder that brings pictures down itself makes the same call of FFmpeg's.)
    layout = picture.sw_format
    assert layout is not None  # pictures on a GPU have one
    try:
        copy: av.VideoFrame = picture.reformat(format=layout.name, threads=1)
    except av.FFmpegError as error:
        raise SourceError(
            f"a picture cannot be brought from the GPU's memory ({reason(error)}); "
            "look at nvidia-smi and at the system's log, or decode with `decoder: software`"
        ) from error
    return copy


def planes_on_gpu(picture: av.VideoFrame) -> Planes:
    """The planes of a picture on the GPU that `is_readable_there`."""
    from torch.utils.dlpack import from_dlpack

    # Given the picture itself, torch names its stream, and PyAV orders none: it is the same one.
    luma, chroma = (from_dlpack(plane.__dlpack__()) for plane in picture.planes)
    return Planes(luma, chroma)


def luma_corner(picture: av.VideoFrame, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """(rows, columns) uint8 luma of the top left corner, brought to main memory; no more of it."""
    corner = np.asarray(planes_on_gpu(picture).luma[:rows, :columns].cpu())
    return (corner if corner.dtype == np.uint8 else corner >> 8).astype(np.uint8)


def enter_shared_context() -> bool:
    """Make the context of CUDA that torch and engines share the one that this thread is in.

    Returns:
        Whether that has worked; else the GPU has no memory, or fails.
    """
    import torch

    try:
        torch.zeros(1, device=ON_GPU)  # work is what makes it so, in all versions of CUDA
    except (RuntimeError, AssertionError):  # the latter from a torch built without CUDA
        return False
    return True
