"""From pictures on the GPU to a batch of images on the GPU, without the host's memory.

The twin of `pipeline.preprocess`: the same matrix and range, the same averages, the same bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from subprocess import SubprocessError
from typing import Any, NamedTuple

from pipeline.errors import EngineError
from pipeline.frame import Frame
from pipeline.gpu.images import DeviceImages
from pipeline.gpu.kernels import COLUMNS, ROWS, letterbox, why_not_compiled
from pipeline.gpu.pictures import Planes, planes_on_gpu
from pipeline.placement import PADDING, Placement
from pipeline.yuv import Colours

# Samples of chroma stand at the left one of two of luma, a quarter of their distance off the
# middle: so in H.264 and H.265 unless they say otherwise, which PyAV does not tell. VP9 says
# nothing, and swscale takes the middle then: 0.2 grey levels apart in the most colourful clip.
CHROMA_SHIFT_X = 0.25

# A compiler may give up in any way, and that is no reason to end the run.
_GIVES_UP = (
    *(ImportError, OSError, RuntimeError, SubprocessError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError),
)


def images_on_gpu(
    frames: Sequence[Frame], placements: Sequence[Placement], input_hw: tuple[int, int]
) -> DeviceImages:
    """(N, H, W, 3) images of frames whose pictures all lie on the GPU; returns at once.

    Args:
        frames: N of them.
        placements: Where each lies in its image; around it are grey bars.
        input_hw: Size of the images.

    Raises:
        EngineError: The GPU fails, or has no memory.
    """
    try:
        return _images_on_gpu(frames, placements, input_hw)
    except RuntimeError as error:
        raise EngineError(
            f"the GPU cannot make images ({_first_line(error)}); look at nvidia-smi and at the "
            "system's log, or decode with `decoder: software`"
        ) from error


def _images_on_gpu(
    frames: Sequence[Frame], placements: Sequence[Placement], input_hw: tuple[int, int]
) -> DeviceImages:
    import torch

    planes = [planes_on_gpu(frame.picture) for frame in frames]
    shape = (len(frames), *input_hw, 3)
    images = torch.empty(shape, dtype=torch.uint8, device=planes[0].luma.device)
    for image, each, frame, placement in zip(images, planes, frames, placements, strict=True):
        write(image, each, placement, Colours.of(frame.picture))
    if not images.is_cuda:  # a stand-in's
        return DeviceImages(images)
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
    ready.record()
    return DeviceImages(images, ready)


def write(
    image: Any, planes: Planes, placement: Placement, colours: Colours, *, tile: Any = None
) -> None:
    """Have the GPU scale and convert a picture into its `image` (H, W, 3), on torch's stream.

    Args:
        tile: Rows and columns that one program writes; None: as suits a GPU.
    """
    rows, columns = tile or (ROWS, COLUMNS)
    height, width, _ = image.shape
    steps = _steps(placement)
    taps = (math.ceil(max(step, 1.0)) + 1 for step in steps)
    letterbox()[-(-height // rows), -(-width // columns)](
        *(image, planes.luma, planes.chroma, planes.luma.stride(0), planes.chroma.stride(0)),
        *(*placement.frame_hw, *placement.top_left, *placement.scaled_hw),
        *(*steps, *taps, CHROMA_SHIFT_X),
        1.0 if planes.luma.element_size() == 1 else 1 / 256,
        *Conversion.of(colours),
        *(height, width, PADDING, rows, columns),
    )


def _steps(placement: Placement) -> tuple[float, float, float, float]:
    """Samples of luma, then of chroma, that a pixel is high and wide."""
    sides = list(zip(placement.frame_hw, placement.scaled_hw, strict=True))
    luma_y, luma_x = (side / scaled for side, scaled in sides)
    chroma_y, chroma_x = ((side + 1) // 2 / scaled for side, scaled in sides)
    return luma_y, luma_x, chroma_y, chroma_x


class Conversion(NamedTuple):
    """From YUV to RGB: ``(y - black) * gain``, and by how much of u and v that is off.

    All numbers run from 0 to 255, u and v from -128 to 127.
    """

    black: float
    gain: float
    red_v: float
    green_u: float
    green_v: float
    blue_u: float

    @classmethod
    def of(cls, colours: Colours) -> Conversion:
        """By the weights of a matrix (ITU-T H.273, 8.3)."""
        kr, kb = colours.luma_weights
        kg = 1 - kr - kb
        luma, chroma = (255, 255) if colours.full_range else (219, 224)
        red, blue = 2 * (1 - kr) * 255 / chroma, 2 * (1 - kb) * 255 / chroma
        black = 0.0 if colours.full_range else 16.0
        return cls(black, 255 / luma, red, -blue * kb / kg, -red * kr / kg, blue)


@cache
def trouble_of_kernels() -> str | None:
    """Why the GPU cannot prepare images here; None if it has shown that it can.

    Asked once, which compiles the kernel, too.
    """
    try:
        import torch
        import triton
    except ImportError as error:
        return f"{error.name or 'torch'} is not installed or cannot be loaded ({error})"
    if not torch.cuda.is_available():
        return "this torch finds no GPU"
    try:
        wrong = [str(kind) for kind in (torch.uint8, torch.uint16) if not _is_right(torch, kind)]
    except (*_GIVES_UP, triton.TritonError) as error:
        return f"Triton cannot compile for it ({why_not_compiled(error)})"
    return f"Triton makes wrong pictures of {' and '.join(wrong)}" if wrong else None


def _is_right(torch: Any, dtype: Any, device: str = "cuda") -> bool:
    """Whether a picture of one orange comes out as it, between its bars."""
    luma = torch.full((32, 48), 143, dtype=torch.int32, device=device)
    pairs = torch.tensor([69, 181], dtype=torch.int32, device=device)
    factor = 1 if dtype == torch.uint8 else 256
    chroma = pairs.expand(16, 24, 2).contiguous()
    planes = Planes((luma * factor).to(dtype), (chroma * factor).to(dtype))
    image = torch.zeros((24, 24, 3), dtype=torch.uint8, device=device)
    placement = Placement.letterbox((32, 48), (24, 24))
    write(image, planes, placement, Colours(1, full_range=False))
    top, height = placement.top_left[0], placement.scaled_hw[0]
    inside, (bar, *_) = image[top : top + height], image
    wanted = torch.tensor([243, 132, 23], dtype=torch.uint8, device=device)
    return bool((inside == wanted).all() and (bar == PADDING).all())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
