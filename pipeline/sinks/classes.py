"""The classes of pixels alone: as a folder of class maps, and as a video of their colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from pipeline.drawing.overlay import Tables, colour_planes
from pipeline.errors import SinkError
from pipeline.frame import PixelClasses, Result, SegmentationMap
from pipeline.png import palette_png
from pipeline.sinks.images import FileNames
from pipeline.sinks.protocol import SinkTarget, writing
from pipeline.sinks.video import VideoSink
from pipeline.yuv import Colours, planes, stamped


class ClassMapsSink:
    """Write each frame's class map as PNG at the size of the frame; pixel values are class ids.

    Names are those of `ImagesSink`. The palette holds the classes' colours, for looking at it.
    """

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(self, folder: Path, target: SinkTarget, meaning: PixelClasses) -> None:
        self.folder, self.name = folder, f"{folder}/"
        self.frames = 0
        self._palette = meaning.colours
        self._bytes = 0
        self._names = FileNames()

    def __enter__(self) -> ClassMapsSink:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *ended: object) -> None:
        pass  # every picture was closed when it was written

    def write(self, result: Result) -> None:
        """Encode and write one map."""
        data = palette_png(_map_of(result).at_frame(), self._palette)
        path = self.folder / self._names.of(result.frame, ".png")
        with writing(path):
            path.write_bytes(data)
        self.frames += 1
        self._bytes += len(data)

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes."""
        return {"path": self.name, "frames": self.frames, "bytes": self._bytes}


class ClassVideoSink:
    """Write a video of the classes' colours, and nothing of the picture.

    Args:
        video: Encodes it.
        meaning: The colours.
    """

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(self, video: VideoSink, meaning: PixelClasses) -> None:
        self.name, self.frames = video.name, 0
        self._video, self._meaning = video, meaning

    def __enter__(self) -> ClassVideoSink:
        self._video.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._video.__exit__(kind, error, trace)

    def write(self, result: Result) -> None:
        """Encode the colours of one frame, at its own time."""
        frame = result.frame
        colours = Colours.of(frame.picture)
        picture = av.VideoFrame(*_even_wh(frame.size_hw), "yuv420p")
        colours.tag(picture)
        colour_planes(planes(picture), _map_of(result), Tables.of(self._meaning, colours))
        self._video.write(result.with_annotated(stamped(picture, frame.pts, frame.time_base)))
        self.frames = self._video.frames

    def report(self) -> dict[str, Any]:
        """As of a video."""
        return self._video.report()


def _map_of(result: Result) -> SegmentationMap:
    if result.segmentation is None:
        raise SinkError(f"frame {result.frame.index} came without the classes of its pixels")
    return result.segmentation


def _even_wh(size_hw: tuple[int, int]) -> tuple[int, int]:
    height, width = size_hw
    return width + width % 2, height + height % 2
