"""A live source: keeps a camera connected for months, and says at every moment how it is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path

from pipeline.bookkeeping.metrics import SourceStats, State
from pipeline.channel import idle
from pipeline.frame import Frame
from pipeline.graph import background
from pipeline.network.backoff import Backoff
from pipeline.network.causes import PERMANENT, Cause, Trouble
from pipeline.settings import LiveSettings
from pipeline.sources.delivery import Limits, Thinning
from pipeline.sources.live.abandoned import ABANDONED, Abandoned, Orphans
from pipeline.sources.live.clock import TIME_BASE, LiveClock
from pipeline.sources.live.decoder import DecodeEffort, Effort
from pipeline.sources.live.mailbox import Arrival, Mailbox
from pipeline.sources.live.reader import Connect, Reader
from pipeline.sources.live.watchdog import Verdict, Watchdog

_PATIENCE_WITH_READERS = 0.05  # seconds; those that can stop do so at once
# A signal's handler that calls `end` in the thread that waits may come between its last look and
# its waiting; nobody would wake it then.
_LOOK_AGAIN_SECONDS = 1.0


class CameraSource:
    """One camera, or whatever else goes at its own pace.

    `frames` is the supervisor: it runs on the thread of whoever reads it, begins connections,
    watches them, waits between them, and never touches the network itself. What may block lives
    in a `Reader` on a thread of its own. A reader that does not come back from where it hangs is
    left alone: it finds its mailbox closed when it wakes, and goes. There are never more than
    three of these; then the source waits for one before it tries again. Those of all sources,
    also of such as have left, are bounded by `Abandoned`.

    *Time.* `Frame.pts` is on one clock for all connections, see `LiveClock`; a reconnect moves
    it by the time that passed. `Frame.generation` is the number of the connection.

    *Pictures* have the size, codec and rate that they come with; all of that may change.

    *Pausing* disconnects, because a camera that is not watched should cost neither its network
    nor our decoder; coming back takes about a second.
    """

    live = True
    is_images = False
    rate: Fraction | None = None
    frame_count: int | None = None
    input_path: Path | None = None
    media_path: Path | None = None
    origin = Fraction(0)

    def __init__(
        self,
        *,
        name: str,
        url: str,
        connect: Connect,
        live: LiveSettings,
        limits: Limits,
        effort: Effort,
        ends: bool = False,
        backoff: Backoff | None = None,
        abandoned: Abandoned = ABANDONED,
    ) -> None:
        """Get ready; nothing is opened before `frames` is read.

        Args:
            name: Unique in the run.
            url: As it may be shown.
            connect: Makes a connection.
            live: Deadlines and policies.
            limits: Where to end.
            effort: Shared with the connections.
            ends: Whether the end of the stream is the end of the source, as for a recording.
            backoff: Default: as `live` says.
            abandoned: Where readers that hang are counted.
        """
        self.name, self.url = name, url
        self.size_hw: tuple[int, int] | None = None
        self.stats = SourceStats(name, live=True)
        self._connect, self._live, self._limits, self._ends = connect, live, limits, ends
        self._effort = effort
        self._backoff = backoff or Backoff(live.stable_seconds)
        self._thinning = Thinning(live.stride, live.max_fps)
        # Reentrant, so that `end` can be called in a signal's handler, which may interrupt
        # another call in the same thread.
        self._desk = threading.Condition()
        self._is_ended = self._is_paused = False
        self._begin = 0.0  # monotonic seconds, where the source's clock is 0
        self._good_seconds = 0.0  # of the last connection
        self._last_pts = -1
        self._first_pts = 0
        self._delivered = 0
        self._abandoned, self._orphans = abandoned, Orphans(abandoned)

    def frames(self) -> Iterator[Frame]:
        """Deliver the latest picture whenever there is one, until `end` or the limits.

        Raises:
            SourceError: The allowed number of attempts in a row has failed, or the failure is
                one that will never mend; derived from it by the cause, see `pipeline.errors`.
        """
        self._begin = time.monotonic()
        try:
            yield from self._connections()
        except GeneratorExit:  # whoever reads has seen enough: an end like any other
            self._change("ENDED")
            raise
        except BaseException as error:  # noted in the books, and passed on
            self.stats.error = str(error)
            if self.stats.state != "FAILED":
                self._change("FAILED", Cause.OTHER, type(error).__name__)
            raise
        self._change("ENDED")

    def end(self) -> None:
        """Make `frames` return soon; callable from any thread and from a signal's handler."""
        self._is_ended = True
        with self._desk:
            self._desk.notify_all()

    def pause(self) -> None:
        """Disconnect until `resume`."""
        with self._desk:
            self._is_paused = True
            self._desk.notify_all()

    def resume(self) -> None:
        """Connect again."""
        with self._desk:
            self._is_paused = False
            self._desk.notify_all()

    def set_effort(self, effort: DecodeEffort) -> None:
        """Decode with that much effort from now on; callable from any thread."""
        self._effort.level = effort

    def close(self) -> None:
        """End, without waiting for readers; harmless when done twice."""
        self.end()

    def join(self, seconds: float) -> None:
        """Wait at most so long for the readers of a source that has ended."""
        self._orphans.join(seconds)

    def _connections(self) -> Iterator[Frame]:
        """One after the other, with what lies between."""
        while not self._is_done():
            if self._is_paused:
                self._change("PAUSED")
                self._wait(lambda: not self._is_paused)
            elif self._orphans.are_still_too_many():
                self._wait_for_orphans()
            elif self._must_wait_for_others():
                self._wait_for_others()
            else:
                trouble = yield from self._connected()
                if trouble is not None:
                    self._after(trouble)

    def _connected(self) -> Generator[Frame, None, Trouble | None]:
        """One connection, from its begin to its end; returns why it ended, if by itself."""
        self._change("CONNECTING")
        begin = time.monotonic()
        box = Mailbox(self._desk)
        clock = LiveClock(self._begin, self._last_pts, box.count)
        reader = Reader(self._connect, box, clock, self._thinning, self._live)
        thread = background(reader.run, name=f"read {self.name}")
        self._good_seconds = 0.0
        try:
            return (yield from self._watched(box, Watchdog(box, self._live, begin)))
        except Trouble as given_up:
            return given_up.with_traceback(None)  # see `Reader.run`
        finally:
            box.close(self.stats)
            if box.first_good is not None and box.last_good is not None:
                self._good_seconds = max(box.last_good - box.first_good, 0.001)
            if not thread.join(_PATIENCE_WITH_READERS):
                self._orphans.add(thread, box)

    def _watched(self, box: Mailbox, watchdog: Watchdog) -> Generator[Frame, None, Trouble | None]:
        """What one connection delivers; returns why it broke, raises `Trouble` to give it up."""
        while not (self._is_done() or self._is_paused):
            with self._desk:
                patience = watchdog.looks_again_in(time.monotonic())
                self._wait(lambda: box.has_news or self._is_paused, patience)
                if box.take_opening():
                    self.stats.connections += 1
                arrival = box.take()
                verdict = watchdog.judge(time.monotonic()) if arrival is None else Verdict.GOOD
                box.settle(self.stats)
            self._follow(verdict)
            if arrival is not None:
                yield self._framed(arrival)
            elif isinstance(box.end, Trouble):
                return box.end
            elif box.end is not None:
                raise box.end
        return None

    def _follow(self, verdict: Verdict) -> None:
        """Enter the state that the verdict stands for."""
        if verdict is Verdict.STALLED and self.stats.state != "STALLED":
            self._change("STALLED", Cause.STALLED, "connected, but no good picture comes")
        elif verdict is Verdict.GOOD and self.stats.state != "RUNNING":
            self._orphans.join(0.0)  # a slow one has gone by now, and need not be kept
            self._change("RUNNING")

    def _framed(self, arrival: Arrival) -> Frame:
        if not self._delivered:
            self._first_pts = arrival.pts
            self.stats.first_arrival = arrival.arrival
        frame = Frame(
            picture=arrival.picture,
            source=self.name,
            index=self._delivered,
            pts=arrival.pts,
            time_base=TIME_BASE,
            arrival=arrival.arrival,
            generation=self.stats.connections,
            truth=arrival.truth,
            painted=arrival.painted,
            pixel_hw=arrival.pixel_hw,
        )
        if arrival.transit is not None:
            self.stats.came_after(arrival.transit)
        self._delivered += 1
        self._last_pts, self.size_hw = arrival.pts, frame.size_hw
        self.stats.source_seconds = float((arrival.pts - self._first_pts) * TIME_BASE)
        return frame

    def _after(self, trouble: Trouble) -> None:
        """Wait as long as the failure demands, or give up."""
        if self._ends and trouble.cause is Cause.ENDED:
            self._is_ended = True
            return
        self.stats.failures[trouble.cause.value] += 1
        seconds = self._backoff.wait_after(trouble.cause, time.monotonic(), self._good_seconds)
        most = self._live.max_attempts
        if trouble.cause in PERMANENT or (most is not None and self._backoff.failures >= most):
            error = trouble.as_error(self.url)
            self._change("FAILED", trouble.cause, trouble.detail)
            raise error
        detail = f"{trouble.detail}; the next attempt is in {seconds:.1f} s"
        self._change("BACKOFF", trouble.cause, detail)
        self._wait(lambda: self._is_paused, seconds)

    def _wait_for_orphans(self) -> None:
        """Wait until one of the readers that hang has gone, or for a pause."""
        if self.stats.state == "PAUSED":
            self._change("CONNECTING", detail="earlier connections have to go first")
        self._wait(lambda: self._is_paused or self._orphans.one_is_going)
        self._orphans.join(_PATIENCE_WITH_READERS)

    def _must_wait_for_others(self) -> bool:
        """Whether too many readers hang in the whole process; see `Abandoned`."""
        is_sound = self.stats.connections > 0 and not self._orphans.count
        return not is_sound and self._abandoned.too_many

    def _wait_for_others(self) -> None:
        """Wait until fewer readers hang, or for a pause."""
        self.stats.failures[Cause.READERS_HANG.value] += 1
        detail = (
            f"{self._abandoned.most} connections of this program hang and cannot be ended; it goes "
            "on when one of them has gone (look for cameras, or a name server, that never answer)"
        )
        self._change("BACKOFF", Cause.READERS_HANG, detail)
        self._wait(lambda: self._is_paused or not self._abandoned.too_many)

    def _wait(self, ready: Callable[[], object], seconds: float = math.inf) -> None:
        """Wait until `ready`, the end, or for so long."""
        until = time.monotonic() + min(seconds, self._rest())
        with idle(), self._desk:
            while not (self._is_ended or ready()):
                rest = until - time.monotonic()
                if rest <= 0:
                    return
                self._desk.wait(min(rest, _LOOK_AGAIN_SECONDS))

    def _rest(self) -> float:
        """Seconds until the source has had its time, which begins with its first picture."""
        if self._limits.duration is None:
            return math.inf
        first = self.stats.first_arrival
        begin = self._begin if first is None else first
        return max(0.0, begin + self._limits.duration - time.monotonic())

    def _is_done(self) -> bool:
        most = self._limits.max_frames
        return self._is_ended or self._rest() <= 0 or (most is not None and self._delivered >= most)

    def _change(self, state: State, cause: Cause | None = None, detail: str = "") -> None:
        self.stats.changed(state, cause and cause.value, detail)
