"""A folder of pictures, one for each frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2

from pipeline.errors import SinkError
from pipeline.frame import Frame, Result
from pipeline.sinks.protocol import SinkTarget, writing
from pipeline.yuv import to_bgr

QUALITY = 92  # of JPEG and WebP, 0 to 100
_OPTIONS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, QUALITY],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    ".bmp": [],
    ".tif": [],
    ".tiff": [],
}


class ImagesSink:
    """Write each picture under its own name, or as ``000123.jpg`` where it has none.

    Names that come twice (from two folders, say) get the frame's number as well.
    """

    wants_picture = True
    may_drop = False
    capacity = 4

    def __init__(self, folder: Path, target: SinkTarget) -> None:
        self.folder, self.name = folder, f"{folder}/"
        self.frames = 0
        self._bytes = 0
        self._names = FileNames()

    def __enter__(self) -> ImagesSink:
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *ended: object) -> None:
        pass  # every picture was closed when it was written

    def write(self, result: Result) -> None:
        """Encode and write one picture."""
        frame = result.frame
        path = self.folder / self._file_name(frame)
        bgr = to_bgr(result.annotated or frame.in_memory)
        height, width = frame.size_hw  # what was drawn on may have been padded to an even size
        ok, data = cv2.imencode(path.suffix, bgr[:height, :width], _OPTIONS[path.suffix.lower()])
        if not ok:
            raise SinkError(f"cannot encode {path.name!r} ({width}x{height})")
        with writing(path):
            path.write_bytes(data.tobytes())
        self.frames += 1
        self._bytes += data.size

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes."""
        return {"path": self.name, "frames": self.frames, "bytes": self._bytes}

    def _file_name(self, frame: Frame) -> str:
        suffix = Path(frame.file or "").suffix
        return self._names.of(frame, suffix if suffix.lower() in _OPTIONS else ".jpg")


class FileNames:
    """A name for each frame: that of its own file, or its number; none comes twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def of(self, frame: Frame, suffix: str) -> str:
        """Such as ``000123.jpg``, ``street.png``, or ``street-000123.png`` the second time."""
        if frame.file is None:
            return f"{frame.index:06d}{suffix}"
        stem = Path(frame.file).stem
        name = f"{stem}{suffix}"
        if name in self._used:
            name = f"{stem}-{frame.index:06d}{suffix}"
        self._used.add(name)
        return name
