"""Where a picture is drawn on: on its GPU or in main memory."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.drawing.canvas import Canvas
from pipeline.drawing.plane_canvas import PlaneCanvas
from pipeline.frame import Frame
from pipeline.gpu.pictures import is_on_gpu


def canvas_for(frame: Frame, stays: Callable[[str], bool]) -> Canvas:
    """A copy of the frame's picture: on its GPU if it lies there, else in main memory.

    Args:
        stays: Asked, with the name of the source, for pictures on a GPU only: whether this one
            may stay there.
    """
    if is_on_gpu(frame.picture) and stays(frame.source):
        from pipeline.gpu.canvas import GpuCanvas
        from pipeline.gpu.trial import can_be_drawn_on

        if can_be_drawn_on(frame.picture):
            return GpuCanvas(frame.picture)
    return PlaneCanvas(frame.in_memory)
