"""Detections as JSON lines, one for each frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.frame import Result
from pipeline.sinks.protocol import SinkTarget, finishing, writing


def record(result: Result, class_names: Sequence[str]) -> dict[str, Any]:
    """One frame's line: scores to 4 digits, boxes to 1/100 pixel, time to a microsecond."""
    frame, found = result.frame, result.detections
    height, width = frame.size_hw
    scores = found.scores.astype(np.float64).round(4).tolist()
    boxes = found.boxes.astype(np.float64).round(2).tolist()
    entry: dict[str, Any] = {
        "source": frame.source,
        "frame": frame.index,
        "pts_seconds": round(frame.pts_seconds, 6),
        "width": width,
        "height": height,
        "detections": [
            {"label": class_names[class_id], "class_id": class_id, "score": score, "box": box}
            for class_id, score, box in zip(found.class_ids.tolist(), scores, boxes, strict=True)
        ],
    }
    if result.zones is not None:
        entry["zones"] = {name: dict(counts) for name, counts in result.zones.items()}
    return entry if frame.file is None else entry | {"file": frame.file}


class JsonLinesSink:
    """Write a `record` a frame; every line is complete and on its way to the disk when it counts.

    A line is handed to the system whole and at once, so whoever kills the process loses nothing
    of what was written before. A line that did not fit on a full disk is taken back.
    """

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(self, path: Path, target: SinkTarget) -> None:
        self.path, self.name = path, str(path)
        self.frames = 0
        self._class_names = target.class_names
        self._file: FileIO | None = None
        self._bytes = 0

    def __enter__(self) -> JsonLinesSink:
        with writing(self.path):
            self._file = FileIO(self.path, "w")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with finishing(error), writing(self.path):
            self._close()

    def write(self, result: Result) -> None:
        """Append one line."""
        line = json.dumps(record(result, self._class_names), ensure_ascii=False) + "\n"
        with writing(self.path):
            self._append(line.encode())
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes."""
        return {"path": self.name, "frames": self.frames, "bytes": self._bytes}

    def _append(self, line: bytes) -> None:
        assert self._file is not None, "write() outside of the with block"
        rest = memoryview(line)
        while rest:  # a disk that fills up may take a part, and refuse the rest next time
            rest = rest[self._file.write(rest) or 0 :]
        self._bytes += len(line)

    def _close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        with file:
            if file.seekable() and file.tell() > self._bytes:
                file.truncate(self._bytes)
