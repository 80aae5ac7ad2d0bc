"""Recording when something is seen: from a little before until a little after."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.frame import Detections, Result
from pipeline.settings import RecordingSettings, VideoSettings
from pipeline.sinks.footage import Calendar, Footage, FootageEncoder, Moment, calendar
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.protocol import SinkTarget, finishing, writing
from pipeline.sinks.recordings import FootageFile, Recordings
from pipeline.sinks.territory import Territory

_MOST_HELD = 64 << 20  # bytes of footage before an event, however long its keyframes are apart


class Sightings:
    """Which detections begin an event, and keep it going.

    Args:
        class_names: What class ids mean.
        wanted: Names of the classes; none: all of them.
        lowest_score: Below it nothing counts as seen.

    Raises:
        ConfigError: The model knows no such class.
    """

    def __init__(
        self, class_names: tuple[str, ...], wanted: tuple[str, ...], lowest_score: float
    ) -> None:
        unknown = [name for name in wanted if name not in class_names]
        if unknown:
            raise ConfigError(
                f"recording.event_classes: the model knows no {unknown[0]!r}; "
                f"it knows {', '.join(class_names)}"
            )
        self.names = class_names
        self._wanted = np.array([i for i, n in enumerate(class_names) if not wanted or n in wanted])
        self._lowest_score = lowest_score

    def among(self, found: Detections) -> Detections:
        """Those that count, best first."""
        counts = np.isin(found.class_ids, self._wanted) & (found.scores >= self._lowest_score)
        seen = found[counts]
        return seen[np.argsort(-seen.scores, kind="stable")]


class Event:
    """Something is seen: what, since when, and how well at best."""

    def __init__(self, source: str, label: str, moment: Moment) -> None:
        self.label = label
        self.last_seen = moment.seconds
        self.files: list[str] = []
        self._source, self._first = source, moment
        self._frames: Counter[str] = Counter()
        self._best: dict[str, Any] = {"score": -1.0}

    def saw(self, moment: Moment, seen: Detections, names: tuple[str, ...]) -> None:
        """Add what one picture shows; `seen` is not empty, best first."""
        self.last_seen = moment.seconds
        self._frames.update({names[i] for i in seen.class_ids.tolist()})
        score = round(float(seen.scores[0]), 4)
        if score > self._best["score"]:
            self._best = {
                "label": names[int(seen.class_ids[0])],
                "score": score,
                "box": [round(float(edge), 2) for edge in seen.boxes[0]],
                "frame": moment.index,
            }

    def record(self) -> dict[str, Any]:
        """One line about it: times of first and last sight, frames by class, the best box."""
        began = datetime.fromtimestamp(self._first.date).astimezone()
        return {
            "source": self._source,
            "event": self.label,
            "began": began.isoformat(timespec="milliseconds"),
            "seconds": round(self.last_seen - self._first.seconds, 3),
            "pts_seconds": [round(self._first.seconds, 6), round(self.last_seen, 6)],
            "frames": dict(self._frames),
            "best": self._best,
            "files": self.files,
        }


class Rewind:
    """The last footage, from a keyframe on, bounded in time and in bytes.

    Args:
        seconds: The pictures of so much time are held, once they have come.
        most_bytes: Never more than this.
    """

    def __init__(self, seconds: float, most_bytes: int = _MOST_HELD) -> None:
        self._seconds, self._most_bytes = seconds, most_bytes
        self._groups: deque[list[Footage]] = deque()  # each begins with its only keyframe
        self.bytes = 0

    def add(self, footage: Footage) -> None:
        """Hold one more, and let go of what is older than need be."""
        if footage.packet.is_keyframe:
            self._groups.append([])
        if not self._groups:  # nothing could be decoded before the first keyframe
            return
        self._groups[-1].append(footage)
        self.bytes += footage.packet.size
        # Also of a whole group right before, when nothing came for longer than that.
        while self._groups[0][-1].moment.seconds < footage.moment.seconds - self._seconds:
            self._forget()
        while self.bytes > self._most_bytes:
            self._forget()

    def take(self) -> Iterator[Footage]:
        """What is held, oldest first; nothing is left."""
        groups = self._groups
        self.clear()
        for group in groups:
            yield from group

    def clear(self) -> None:
        """Let go of everything."""
        self._groups = deque()
        self.bytes = 0

    def _forget(self) -> None:
        """Let go of the oldest footage up to the next keyframe."""
        self.bytes -= sum(footage.packet.size for footage in self._groups.popleft())


class EventsSink:
    """Write a file for each event, and a line about it to ``events.jsonl`` in their folder.

    An event begins when one of the chosen classes is seen, and is over when none was seen for
    `post_seconds`; its file ends with the keyframe after that. It also ends while a camera is
    away, a minute or so later. Everything is encoded all the time, and the last `pre_seconds` are
    held in memory, encoded, so a file begins before its event does. Long events go on in another
    file after `segment_seconds`.
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
        """`ConfigError` if there is no such encoder here, or no such class in the model."""
        self.name = pattern.text
        self.frames = 0
        self._source, self._live, self._settings = target.name, target.live, recording
        self._log = pattern.folder / "events.jsonl"
        self.territory = [pattern.territory, Territory.of(self._log, shared=True)]
        self._sightings = Sightings(
            target.class_names, recording.event_classes, recording.event_score
        )
        self._encoder = FootageEncoder(target, video, video.keyframe_seconds, dates=dates)
        self._rewind = Rewind(recording.pre_seconds)
        self._recordings = Recordings(pattern, video, recording)
        # When nothing has come for so long, an event is over and what is held is too old.
        kept = max(recording.pre_seconds, recording.post_seconds)
        self._given_up_after = kept + video.keyframe_seconds
        self._written_at = time.monotonic()
        self._event: Event | None = None
        self._events = 0
        self._failed = False

    def __enter__(self) -> EventsSink:
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
        """Encode one picture; what falls out is held or written."""
        try:
            for footage in self._encoder.encode(result):
                self._put(footage)
        except BaseException:  # after any failure the end must not write more
            self._failed = True
            raise
        self.frames += 1
        self._written_at = time.monotonic()

    def tidy(self) -> None:
        """Finish the event of a camera that is away; delete files that have become too old."""
        if self._live and time.monotonic() - self._written_at > self._given_up_after:
            self._finish()
        self._recordings.tidy()

    def report(self) -> dict[str, Any]:
        """Path, frames (seen and recorded), events, files, bytes, files deleted, encoder."""
        counts = {"path": self.name, "frames": self.frames, "events": self._events}
        return counts | self._recordings.report() | self._encoder.facts()

    def _put(self, footage: Footage) -> None:
        moment = footage.moment
        if footage.packet.is_keyframe and self._is_over(moment):
            self._end_event()  # even if something is seen now: that begins another
        if self._event is None:
            self._rewind.add(footage)
        else:
            self._record(footage)
        seen = self._sightings.among(moment.detections)
        if len(seen):
            self._saw(moment, seen)

    def _saw(self, moment: Moment, seen: Detections) -> None:
        names = self._sightings.names
        if self._event is None:
            self._event = Event(self._source, names[int(seen.class_ids[0])], moment)
            self._events += 1
            for held in self._rewind.take():  # this picture is the last of it
                self._record(held)
        self._event.saw(moment, seen, names)

    def _is_over(self, moment: Moment) -> bool:
        if self._event is None:
            return False
        return moment.seconds - self._event.last_seen > self._settings.post_seconds

    def _record(self, footage: Footage) -> None:
        assert self._event is not None
        file = self._recordings.file
        if file is None or self._is_full(file, footage) or not file.takes(footage):
            if not footage.packet.is_keyframe:  # nothing before it was held
                return
            path = self._recordings.begin(footage, self._event.label)
            self._event.files.append(str(path.relative_to(self._log.parent)))
        self._recordings.write(footage)

    def _is_full(self, file: FootageFile, footage: Footage) -> bool:
        length = footage.moment.seconds - file.began.seconds
        return footage.packet.is_keyframe and length >= self._settings.segment_seconds

    def _end_event(self) -> None:
        if self._event is None:
            return
        event, self._event = self._event, None
        self._recordings.close()
        line = json.dumps(event.record(), ensure_ascii=False) + "\n"
        with writing(self._log):
            _append(self._log, line.encode())

    def _finish(self) -> None:
        """Write all there is; the next picture, if one comes, begins anew."""
        try:
            for footage in [] if self._failed else self._encoder.flush():
                self._put(footage)
        finally:
            self._encoder.close()
            self._rewind.clear()
            self._end_event()


def _append(path: Path, line: bytes) -> None:
    """Append a line in one piece, so that several sinks may share the file.

    One that was torn before it (by a full disk, or when the machine went down) is not cut off, as
    another sink may be appending; it stays a line of its own.
    """
    with path.open("ab+", buffering=0) as file:
        if file.seekable() and file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        while line:  # a disk that fills up may take a part, and refuse the rest next time
            line = line[file.write(line) :]
