"""A picture of our own in a GPU's memory, and the order in which it is read and written there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import CudaContext

from pipeline.gpu.pictures import planes_on_gpu
from pipeline.yuv import Colours, label_like

PITCH = 256  # bytes, of which the length of a line is a multiple, as FFmpeg has it for CUDA
Tensor = Any
Device = Any


@contextmanager
def ffmpegs_stream(device: Device) -> Iterator[None]:
    """Work in the stream in which FFmpeg decodes and NVENC reads: the legacy default stream.

    What is given to it there comes after the decoder's work on a picture and before the
    encoder's, so that nobody has to wait on the host.
    """
    import torch

    if device.type == "cpu":  # of tests
        yield
        return
    stream = torch.cuda.default_stream(device)
    before = torch.cuda.current_stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield


def on_device(array: npt.NDArray[Any], device: Device) -> Tensor:
    """A copy of the array there, ready for what follows in FFmpeg's stream."""
    import torch

    with ffmpegs_stream(device):
        return torch.from_numpy(np.array(array)).to(device)


@dataclass(frozen=True, eq=False)
class Own:
    """NV12 in one piece of memory, as NVENC wants it: it is told of luma's address alone.

    Attributes:
        memory: (3/2 H, pitch) uint8: luma, then U and V in turn.
        height, width: In pixels, both even.
        pitch: Bytes of a line.
    """

    memory: Tensor
    height: int
    width: int
    pitch: int

    @classmethod
    def copy_of(cls, luma: Tensor, chroma: Tensor) -> Own:
        """A copy of luma (H, W) and chroma (H/2, W/2, 2), made in the current stream."""
        height, width = luma.shape
        pitch = -(-width // PITCH) * PITCH
        memory = luma.new_empty((height * 3 // 2, pitch))
        memory[:height, :width].copy_(luma)
        memory[height:, :width].view(chroma.shape).copy_(chroma)
        return cls(memory, height, width, pitch)

    def picture(self, like: av.VideoFrame, colours: Colours) -> av.VideoFrame:
        """The same memory as FFmpeg's picture, with the times and colours of another one."""
        luma = self.memory[: self.height, : self.width]
        chroma = self.memory[self.height :, : self.width]
        picture = _picture(luma, chroma)
        label_like(picture, like, colours)
        return picture


def same_memory(picture: av.VideoFrame) -> av.VideoFrame:
    """Another picture of the same memory on a GPU, for a time and a type of its own."""
    luma, chroma = planes_on_gpu(picture)
    other = _picture(luma, chroma)
    label_like(other, picture, Colours.of(picture))
    return other


def _picture(luma: Tensor, chroma: Tensor) -> av.VideoFrame:
    context = None if luma.device.type == "cpu" else _context(luma.device.index)
    return av.VideoFrame.from_dlpack((luma, chroma), format="nv12", cuda_context=context)


@cache
def _context(index: int) -> CudaContext:
    """FFmpeg's side of torch's context, which is the thread's current one after any work of it.

    Asked for as the primary one it would be refused where torch was there first.
    """
    return CudaContext(index, primary_ctx=False, current_ctx=True)
