"""Where few pictures are wanted, most need not be decoded.

A camera that is asked for one picture a second and sends a keyframe every second is as well served
by its keyframes alone, at a twenty-fifth of the work.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum

from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.sources.delivery import Thinning

_WATCHED_SECONDS = 60.0  # the longest distance of these counts: some cameras change it as they go
_FEWEST_DISTANCES = 3  # before any is relied on
_MUCH_CLOSER = 3.0  # so many times closer than asked for: the rhythm hardly shows
_OFF_BEAT = 0.05  # by so much may the interval miss a whole number of distances
_GOES_BACK = 1.0  # seconds; more than pictures change places by


class Need(Enum):
    """What of a packet and of those after it is wanted."""

    ALL = "all"
    KEYFRAME = "keyframe"  # this one, and nothing up to the next
    NOTHING = "nothing"  # nor this packet


class Thrift:
    """Watches a stream, and tells what has to be decoded of it to have `max_fps` pictures a second.

    Keyframes alone are decoded only where that gives pictures as evenly: where the distance
    between them goes into that between wanted pictures a whole number of times, or often. It is
    measured, never believed, and when it grows everything is decoded again, from the next
    keyframe on.

    Args:
        max_fps: Most pictures a second; None: all are wanted.
        is_timed: Whether packets have timestamps of the camera's own; else their arrival counts.
    """

    def __init__(self, max_fps: float | None, *, is_timed: bool = True) -> None:
        self._max_fps, self._is_timed = max_fps, is_timed
        self._keyframes = _Distances()
        self._chosen, self._latest = Thinning(max_fps=max_fps), -math.inf
        self._keyframes_do = False

    def watched(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
        """All packets of a connection, also those that nobody will find the time to decode."""
        for packet in packets:
            if self._max_fps and packet.is_keyframe:
                seconds = self._seconds_of(packet)
                if seconds is not None:
                    self._keyframes.add(seconds)
            yield packet

    def need(self, packet: Packet[VideoStream], *, reorders: bool) -> Need:
        """What is to be done with a packet; to be asked once for each, as they come.

        Args:
            reorders: Whether the decoder holds pictures back to bring them in order: a keyframe
                would come out only when the next went in.
        """
        if not self._max_fps or not packet.size:
            return Need.ALL
        seconds = self._seconds_of(packet)
        if seconds is None:
            return Need.ALL
        if seconds < self._latest - _GOES_BACK:
            # Or nothing would be due before the old time has come again.
            self._chosen = Thinning(max_fps=self._max_fps)
        self._latest = seconds
        if packet.is_keyframe:
            # Only here: what follows a keyframe in its group is decoded or left out as a whole.
            self._keyframes_do = not reorders and self._come_evenly()
        if self._keyframes_do and not packet.is_keyframe:
            return Need.NOTHING
        # Of all pictures as long as all are decoded, so that it chooses those that
        # `Reader` will choose.
        is_due = self._chosen.reason_to_drop(seconds) is None
        if not self._keyframes_do:
            return Need.ALL
        return Need.KEYFRAME if is_due else Need.NOTHING

    def _seconds_of(self, packet: Packet[VideoStream]) -> float | None:
        if not self._is_timed:
            return time.monotonic()
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or packet.time_base is None:
            return None
        return float(stamp * packet.time_base)

    def _come_evenly(self) -> bool:
        """Whether keyframes alone come as evenly as pictures are wanted."""
        longest = self._keyframes.longest
        if longest is None or not self._max_fps:
            return False
        times = 1 / (self._max_fps * longest)
        return times >= _MUCH_CLOSER or (times > 0.5 and abs(times - round(times)) <= _OFF_BEAT)


class _Distances:
    """Between the moments that it is told, over the last minute."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._gaps: deque[tuple[float, float]] = deque()  # when it ended, and how long it was

    def add(self, seconds: float) -> None:
        """Something was there; a clock that goes backwards or leaps begins anew."""
        if self._last is not None:
            gap = seconds - self._last
            if 0 < gap < _WATCHED_SECONDS:
                self._gaps.append((seconds, gap))
            elif gap:
                self._gaps.clear()
        self._last = seconds
        # At least as many as are needed, however far apart they are.
        while len(self._gaps) > _FEWEST_DISTANCES and seconds - self._gaps[0][0] > _WATCHED_SECONDS:
            self._gaps.popleft()

    @property
    def longest(self) -> float | None:
        """In seconds; None before it can be known."""
        if len(self._gaps) < _FEWEST_DISTANCES:
            return None
        return max(gap for _, gap in self._gaps)
