"""Detections as JSON lines, one for each frame."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.frame import Result, SegmentationMap
from pipeline.instances import patch
from pipeline.rle import class_rles, rle_in
from pipeline.sinks.protocol import SinkTarget, finishing, writing

_BLOCK = 1 << 16  # bytes that are looked through at once


def record(
    result: Result, class_names: Sequence[str], *, with_masks: bool = True
) -> dict[str, Any]:
    """One frame's line: scores to 4 digits, boxes to 1/100 pixel, time to a microsecond.

    Masks are run lengths as COCO has them: those of objects at the size of the frame, those of the
    classes of pixels at the size at which the model knows them, stretched over the frame.
    """
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
    if found.masks is not None and with_masks:
        for i, detection in enumerate(entry["detections"]):
            detection["mask"] = object_rle(found.masks[i], found.boxes[i], (height, width))
    if result.segmentation is not None:
        entry["class_shares"] = {k: round(v, 4) for k, v in result.segmentation.shares.items()}
        if with_masks:
            entry["segments"] = segments(result.segmentation)
    if result.zones is not None:
        entry["zones"] = {name: dict(counts) for name, counts in result.zones.items()}
    return entry if frame.file is None else entry | {"file": frame.file}


def object_rle(
    mask: npt.NDArray[np.float32], box: npt.NDArray[np.float32], size_hw: tuple[int, int]
) -> dict[str, Any]:
    """An object's pixels in a frame of that size."""
    found = patch(mask, box, size_hw)
    if found is None:
        return rle_in(np.zeros((0, 0), np.uint8), (0, 0), size_hw)
    return rle_in(found.inside, (found.top, found.left), size_hw)


def segments(segmentation: SegmentationMap) -> list[dict[str, Any]]:
    """The pixels of each class that is there, in the order of their numbers."""
    names = segmentation.meaning.names
    return [
        {"label": names[class_id], "class_id": class_id, "mask": mask}
        for class_id, mask in class_rles(segmentation.of_frame).items()
        if class_id < len(names)
    ]


class JsonLinesSink:
    """Write a `record` a frame; every line is complete and on its way to the disk when it counts.

    A recording's records take the place of what was there. Those of a camera follow it: nothing
    brings back what earlier runs saw.
    """

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(self, path: Path, target: SinkTarget) -> None:
        self.path, self.name = path, str(path)
        self.frames = 0
        self._class_names, self._append = target.class_names, target.live
        self._file: LinesFile | None = None

    def __enter__(self) -> JsonLinesSink:
        self._file = LinesFile(self.path, append=self._append)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with finishing(error):
            if self._file is not None:
                self._file.close()

    def write(self, result: Result) -> None:
        """Append one line."""
        assert self._file is not None, "write() outside of the with block"
        self._file.write(record(result, self._class_names))
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Path, frames, bytes."""
        written = self._file.bytes if self._file else 0
        return {"path": self.name, "frames": self.frames, "bytes": written}


class LinesFile:
    """A file of JSON lines that is being written; `SinkError` when that fails.

    A line is handed to the system whole and at once, so whoever kills the process loses nothing
    of what was written before. A line that did not fit on a full disk is taken back.

    Args:
        path: Where to.
        append: Go on behind what is there; a line that has no end is cut off first.

    Attributes:
        bytes: Written so far, by this run.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self.path, self.bytes = path, 0
        with writing(path):
            if append and path.is_file():
                _cut_torn_line(path)
            self._file = FileIO(path, "a" if append else "w")
            self._start = self._file.tell() if self._file.seekable() else 0

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line."""
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        rest = memoryview(line)
        with writing(self.path):
            while rest:  # a disk that fills up may take a part, and refuse the rest next time
                rest = rest[self._file.write(rest) or 0 :]
        self.bytes += len(line)

    def close(self) -> None:
        """Finish the file; harmless when done twice."""
        if self._file.closed:
            return
        end = self._start + self.bytes
        with writing(self.path), self._file as file:
            if file.seekable() and file.tell() > end:
                file.truncate(end)


def _cut_torn_line(path: Path) -> None:
    """Cut off what follows the last end of a line: a machine went down while it was written."""
    with path.open("rb+") as file:
        end = last = file.seek(0, os.SEEK_END)
        while last:
            start = max(0, last - _BLOCK)
            file.seek(start)
            found = file.read(last - start).rfind(b"\n")
            last = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        if last < end:
            file.truncate(last)
