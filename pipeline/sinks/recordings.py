"""Files of footage, one after the other, named by their time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks.container import LONGEST_STEP, open_container
from pipeline.sinks.footage import Footage, mux
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.protocol import writing
from pipeline.sinks.retention import Retention

_LOOK_SECONDS = 0.05  # at the disk, between two pictures; a few of them can wait for so long


class FootageFile:
    """A video file of footage, whose first picture is shown at 0 s.

    It can be played as far as it has been written, up to a second ago; see `open_container`.

    Args:
        path: Where to.
        first: The first picture; it is not written yet.
        settings: For `open_container`.
    """

    def __init__(self, path: Path, first: Footage, settings: VideoSettings) -> None:
        self.path = path
        self.began = first.moment
        self.frames = 0
        self._encoder = first.encoder
        self._shift = self._last = first.packet.pts or 0
        self._file = open_container(
            path, settings, first.encoder.time_base, growing=False, begins_at_zero=True
        )
        self._container = self._file.container
        try:
            self._stream = self._container.add_stream_from_template(first.encoder.template)
            self._container.start_encoding()
        except BaseException:  # not even Ctrl-C leaves the file open
            self._file.close()
            raise

    def takes(self, footage: Footage) -> bool:
        """Tell whether this can follow: it is of the same size and encoder, and not too late.

        What comes after a longer outage than a file can tell is a keyframe, as one is due.
        """
        if footage.encoder is not self._encoder:
            return False
        clock = self._stream.time_base
        assert clock is not None, "the header has been written"
        step = (footage.packet.pts or 0) - self._last
        return step * self._encoder.time_base <= LONGEST_STEP * clock

    def write(self, footage: Footage) -> None:
        """Append one picture."""
        self._last = footage.packet.pts or 0
        mux(self._container, self._stream, footage.packet, self._shift)
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    @property
    def bytes(self) -> int:
        """Size on the disk so far."""
        return self.path.stat().st_size if self.path.exists() else 0


class Recordings:
    """Write footage to one file after the other, and delete old ones; `SinkError` if it fails.

    Args:
        pattern: Names of the files.
        video: For `open_container`.
        recording: What is kept.
    """

    def __init__(
        self, pattern: FilePattern, video: VideoSettings, recording: RecordingSettings
    ) -> None:
        self.file: FootageFile | None = None
        self._pattern, self._video = pattern, video
        self._retention = Retention(pattern, recording.keep_seconds, recording.keep_bytes)
        self._files = self._bytes = self._frames = 0

    def prepare(self) -> None:
        """Make the folder, and delete what has become too old in the meantime."""
        self._pattern.prepare()
        self._retention.tidy()

    def begin(self, first: Footage, event: str = "") -> Path:
        """Close the file and begin another, named after its first picture (a keyframe)."""
        self.close()
        self._retention.delete()
        path = self._pattern.create(first.moment.date, event)
        with writing(path):
            self.file = FootageFile(path, first, self._video)
        self._files += 1
        return path

    def write(self, footage: Footage) -> None:
        """Append one picture to the file that was begun."""
        assert self.file is not None, "write() without begin()"
        with writing(self.file.path):
            self.file.write(footage)
        self._frames += 1

    def tidy(self) -> None:
        """Delete what has become too old, but never the file that is being written."""
        self._retention.tidy(self.file.path if self.file else None, within=_LOOK_SECONDS)

    def close(self) -> None:
        """Finish the file, if there is one."""
        if self.file is None:
            return
        file, self.file = self.file, None
        with writing(file.path):
            file.close()
        self._bytes += file.bytes
        self._retention.add(file.path)

    def report(self) -> dict[str, Any]:
        """Frames, files and bytes that were written, and files that were deleted."""
        return {
            "frames_recorded": self._frames,
            "files": self._files,
            "bytes": self._bytes + (self.file.bytes if self.file else 0),
            "files_deleted": self._retention.deleted,
        }
