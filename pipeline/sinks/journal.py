"""Detections as JSON lines in many files, such as one a day, of which old ones are deleted."""

from __future__ import annotations

from typing import Any

from pipeline.frame import Result
from pipeline.settings import RecordingSettings
from pipeline.sinks.footage import Calendar, calendar
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.protocol import SinkTarget, finishing, writing
from pipeline.sinks.records import LinesFile, record
from pipeline.sinks.retention import Retention


class JournalSink:
    """Write a `record` a frame into the file that is named after the time of its arrival.

    Another file begins when the name changes; one that is there already goes on.
    """

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(
        self,
        pattern: FilePattern,
        target: SinkTarget,
        recording: RecordingSettings,
        dates: Calendar = calendar,
    ) -> None:
        self.name, self.frames = pattern.text, 0
        self.territory = [pattern.territory]
        self._pattern, self._dates = pattern, dates
        self._class_names = target.class_names
        self._retention = Retention(pattern, recording.keep_seconds, recording.keep_bytes)
        self._file: LinesFile | None = None
        self._files = self._bytes = 0

    def __enter__(self) -> JournalSink:
        self._pattern.prepare()
        self._retention.tidy()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with finishing(error):
            self._close()

    def write(self, result: Result) -> None:
        """Append one line to the file of its time."""
        path = self._pattern.named(self._dates(result.frame.arrival))
        if self._file is None or self._file.path != path:
            self._close()
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = LinesFile(path, append=True)
            self._files += 1
            self.tidy()
        self._file.write(record(result, self._class_names))
        self.frames += 1

    def tidy(self) -> None:
        """Delete files that have become too old."""
        self._retention.tidy(self._file.path if self._file else None)

    def report(self) -> dict[str, Any]:
        """Path, frames, files, bytes (of all files of this run) and files deleted."""
        return {
            "path": self.name,
            "frames": self.frames,
            "files": self._files,
            "bytes": self._bytes + (self._file.bytes if self._file else 0),
            "files_deleted": self._retention.deleted,
        }

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            self._bytes += file.bytes
            file.close()
