"""Recording without an end, in files of a chosen length, of which old ones are deleted."""

from __future__ import annotations

from typing import Any

from pipeline.frame import Result
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks.footage import Calendar, Footage, FootageEncoder, calendar
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.protocol import SinkTarget, finishing
from pipeline.sinks.recordings import Recordings


class SegmentsSink:
    """Write video into one file after the other, each named after its first picture's arrival.

    A file ends where the next begins: with a keyframe that is asked for when the time has come,
    so no picture is lost or written twice between them. It also ends where the size of the
    pictures changes. Time is that of the pictures; while none come, the file stays open, as
    playable as it is at any other moment. It is closed before the next one, or at the end.

    There is no sound.
    """

    wants_picture = True
    may_drop = False
    capacity = 4

    def __init__(
        self,
        pattern: FilePattern,
        target: SinkTarget,
        video: VideoSettings,
        recording: RecordingSettings,
        dates: Calendar = calendar,
    ) -> None:
        """`ConfigError` if the encoder asked for does not exist here."""
        self.name = pattern.text
        self.territory = [pattern.territory]
        self.frames = 0
        self._length = recording.segment_seconds
        self._encoder = FootageEncoder(target, video, video.keyframe_seconds, dates=dates)
        self._recordings = Recordings(pattern, video, recording)
        self._due: float | None = None
        self._failed = False

    def __enter__(self) -> SegmentsSink:
        self._recordings.prepare()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with finishing(error):
            self._finish()

    @property
    def takes_gpu_pictures(self) -> bool:
        """Whether NVENC encodes."""
        return self._encoder.takes_gpu_pictures

    def write(self, result: Result) -> None:
        """Encode one picture; what falls out is written, to a new file where one begins."""
        try:
            begin = self._is_due(result.frame.pts_seconds)
            for footage in self._encoder.encode(result, begin=begin):
                self._put(footage)
        except BaseException:  # after any failure the end must not write more
            self._failed = True
            raise
        self.frames += 1

    def tidy(self) -> None:
        """Delete files that have become too old."""
        self._recordings.tidy()

    def report(self) -> dict[str, Any]:
        """Path, frames, files, bytes (of all files of this run), files deleted, encoder."""
        counts = {"path": self.name, "frames": self.frames}
        return counts | self._recordings.report() | self._encoder.facts()

    def _is_due(self, seconds: float) -> bool:
        """Tell whether a new file begins with the picture of that time; keep the rhythm."""
        if self._due is not None and seconds < self._due:
            return False
        begin = self._due is not None
        self._due = (self._due or seconds) + self._length
        if self._due <= seconds:  # nothing came for a long time
            self._due = seconds + self._length
        return begin

    def _put(self, footage: Footage) -> None:
        file = self._recordings.file
        if file is None or footage.moment.begins or not file.takes(footage):
            self._recordings.begin(footage)
        self._recordings.write(footage)

    def _finish(self) -> None:
        try:
            for footage in [] if self._failed else self._encoder.flush():
                self._put(footage)
        finally:
            self._encoder.close()
            self._recordings.close()
