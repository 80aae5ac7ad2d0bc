"""``replay:``: a recording that plays in real time and is treated as a camera."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from pipeline.bookkeeping.metrics import DecodedBy
from pipeline.network.causes import Cause, Trouble
from pipeline.sources.live.clock import DueTimes
from pipeline.sources.live.connection import Ledger, Picture
from pipeline.sources.recorded import RecordedSource
from pipeline.sources.synthetic import StreetSource

Recording = RecordedSource | StreetSource


class ReplayConnection:
    """Plays a recording once, or for ever; each picture comes when it is due.

    A machine that is too slow falls behind and tries to make it up, as a camera's pictures
    would pile up in the network.

    Args:
        record: Opens the recording from its begin.
        loop: Whether it begins again at its end.
    """

    def __init__(self, record: Callable[[], Recording], loop: bool) -> None:
        self._record, self._loop = record, loop
        self._recording: Recording | None = None

    def __enter__(self) -> ReplayConnection:
        self._recording = self._record()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._recording is not None:
            self._recording.close()

    def pictures(self, ledger: Ledger) -> Iterator[Picture]:
        """The pictures in order, each when it is due; raises `Trouble` at the end."""
        due, begin = DueTimes(longest_pause=float("inf")), 0.0
        told: DecodedBy | None = None
        while self._recording is not None:
            seconds = begin
            for frame in self._recording.frames():
                seconds = begin + frame.pts_seconds
                ledger.wait_until(due.of(seconds, time.monotonic()))
                if isinstance(self._recording, StreetSource):
                    self._recording.stamp(frame)  # it was drawn before it was due
                if (decoder := self._recording.stats.decoded_by) != told and decoder:
                    told = decoder
                    ledger.decoded_by(decoder)
                yield Picture(frame.picture, seconds, frame.truth, pixel_hw=frame.pixel_hw)
            if not self._loop:
                break
            rate = self._recording.rate
            begin = seconds + (1 / float(rate) if rate else 0.04)
            self._recording.close()
            self._recording = self._record()
        raise Trouble(Cause.ENDED, "the recording is over")
