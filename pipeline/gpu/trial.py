"""Whether a GPU draws as it should: tried once on a small picture, before the first one of a line.

It also has the kernels compiled, which takes some seconds the first time on a machine.
"""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import cache
from subprocess import SubprocessError

import av
import numpy as np

from pipeline.drawing.canvas import Canvas, Label, Rect
from pipeline.drawing.plane_canvas import PlaneCanvas
from pipeline.frame import Detections, PixelClasses, SegmentationMap
from pipeline.gpu.canvas import GpuCanvas
from pipeline.gpu.kernels import why_not_compiled
from pipeline.gpu.memory import Device, Own, ffmpegs_stream
from pipeline.gpu.pictures import in_memory, planes_on_gpu
from pipeline.placement import Placement
from pipeline.settings import OverlaySettings
from pipeline.yuv import Colours, own_yuv420p, planes

log = logging.getLogger(__name__)

_WIDTH, _HEIGHT = 192, 128
# What versions of Triton that nobody has tried here may raise.
_FAILURES = (
    *(ImportError, OSError, RuntimeError, SubprocessError, ValueError, TypeError),
    *(LookupError, AttributeError, AssertionError),
)


def can_be_drawn_on(picture: av.VideoFrame) -> bool:
    """Whether a picture on a GPU gets there what it would get in main memory.

    It must be NV12 of even size, as NVENC wants it, and the GPU must have passed its trial.
    """
    layout = picture.sw_format
    fits = layout is not None and layout.name == "nv12"
    return fits and not (picture.width % 2 or picture.height % 2) and not trouble_of_drawing()


@cache
def trouble_of_drawing() -> str | None:
    """Why pictures are not drawn on where they lie; None if the GPU has shown that it can."""
    try:
        import torch
        import triton
    except ImportError as error:
        return _told(f"{error.name or 'torch'} is not installed or cannot be loaded ({error})")
    if not torch.cuda.is_available():
        return _told("this torch finds no GPU")
    try:
        is_right = draws_alike(torch.device("cuda", torch.cuda.current_device()))
    except (*_FAILURES, triton.TritonError) as error:
        return _told(f"it fails on this GPU ({why_not_compiled(error)})")
    return None if is_right else _told("this GPU makes other pictures of it")


def _told(why: str) -> str:
    log.warning("pictures are copied from the GPU to be drawn on, because %s", why)
    return why


def draws_alike(device: Device) -> bool:
    """Whether everything that can be drawn looks the same there as in main memory."""
    noise = np.random.default_rng(1).integers(0, 256, (_HEIGHT * 3 // 2, _WIDTH), np.uint8)
    here = av.VideoFrame.from_ndarray(noise, "nv12")
    here.pts, here.time_base = 0, Fraction(1, 25)
    colours = Colours(1, full_range=False)
    colours.tag(here)
    with ffmpegs_stream(device):
        own = Own.copy_of(*(plane.to(device) for plane in planes_on_gpu(here)))
        there = own.picture(here, colours)
    canvases = GpuCanvas(there), PlaneCanvas(here)
    for canvas in canvases:
        _draw_everything(canvas)
    ours, theirs = (own_yuv420p(in_memory(canvas.picture())) for canvas in canvases)
    return all(map(np.array_equal, planes(ours), planes(theirs)))


def _draw_everything(canvas: Canvas) -> None:
    """All kinds of what is drawn, over one another."""
    settings, red, grey = OverlaySettings(), (82, 90, 240), (160, 128, 128)
    boxes = np.array([(5, 9, 80, 90), (60, 40, 190, 120)], np.float32)
    canvas.conceal(boxes)
    ids = np.tile(np.arange(48, dtype=np.uint8) // 9 % 3, (32, 1))
    meaning = PixelClasses(("void", "road", "car"), ((0, 0, 0), (128, 64, 128), (0, 0, 142)))
    placement = Placement.letterbox((_HEIGHT, _WIDTH), ids.shape)
    canvas.classes(SegmentationMap(ids, placement, meaning), settings)
    cover = np.tril(np.ones((2, 28, 28), np.float32))
    found = Detections(boxes, np.ones(2, np.float32), np.arange(2), cover)
    canvas.masks(found, {0: (255, 0, 0), 1: (0, 90, 255)}, settings)
    canvas.polygon(((0.1, 0.2), (0.9, 0.1), (0.6, 0.95)), 2, grey)
    canvas.frame(Rect(3, 7, 82, 92), 2, red)
    canvas.frame(Rect(58, 38, _WIDTH, 122), 3, grey)
    canvas.label(Label("car 0.87", Rect(60, 20, 130, 36)), 11, red)
    canvas.hud(("25.0 fps", "30 ms"), 11)
