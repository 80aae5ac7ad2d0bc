"""One picture through `render`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import av

from pipeline.drawing.render import render
from pipeline.frame import Detections, Result, SegmentationMap
from pipeline.settings import RenderSettings
from tests.pipeline.frames import frame_of


def draw(
    picture: av.VideoFrame,
    detections: Detections,
    class_names: Sequence[str],
    settings: RenderSettings,
    hud_lines: Sequence[str] = (),
    segmentation: SegmentationMap | None = None,
) -> av.VideoFrame:
    """A copy of `picture` with boxes, labels and figures on it."""
    result = Result(frame_of(picture), detections, segmentation=segmentation)
    settings = replace(settings, hud=bool(hud_lines))
    (drawn,) = render([result], class_names, settings, lambda _result: hud_lines)
    assert drawn.annotated is not None
    return drawn.annotated
