"""Decoding that takes longer than the camera takes must not make pictures old."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.sources.live.clock import Lateness

_WINDOW_SECONDS = 2.0  # over which reading is watched
_LEAST_IDLE = 0.02  # share of the time spent waiting for packets by who keeps up
_AT_THE_EDGE = 0.005  # a read that waits so many seconds has found nothing there


class Ledger(Protocol):
    """Learns of packets that are skipped."""

    def count(self, anomaly: str) -> None: ...
    def sign_of_life(self) -> None: ...


class Backlog:
    """Skips packets, when there are more than can be decoded, up to a keyframe of the present.

    What nobody reads waits in the sockets on both sides, many seconds of it, and each picture
    would come later than the one before. Who never waits for a packet is behind. (A burst, after
    which there is nothing to read again, is not that: it is decoded, and `Lateness` judges the
    pictures.)

    Args:
        limit: Seconds that packets may come late, by their timestamps.
        is_timed: Whether they have timestamps worth the name; without, the limit does not count.
    """

    def __init__(self, limit: float, *, is_timed: bool) -> None:
        self._limit, self._is_timed = limit, is_timed
        self._lateness = Lateness(limit)
        self._reads: deque[tuple[float, float]] = deque()  # when, and how long it waited
        self._waited = 0.0

    def worth_decoding(
        self, packets: Iterable[Packet[VideoStream]], ledger: Ledger, skipped: Callable[[], object]
    ) -> Iterator[Packet[VideoStream]]:
        """The packets that are to be decoded, each as soon as it comes.

        Args:
            packets: From a connection.
            ledger: Each packet left out is counted there, as ``not_decoded``.
            skipped: Called before the first packet after those that were left out.
        """
        is_skipping = is_at_edge = False
        for packet, waited, now in timed(packets):
            behind = self._is_behind(packet, waited, now)
            if behind and not is_skipping:
                is_skipping, is_at_edge = True, False
            if is_skipping:
                is_at_edge = is_at_edge or waited >= _AT_THE_EDGE
                if packet.size and not (is_at_edge and packet.is_keyframe):
                    ledger.count("not_decoded")
                    ledger.sign_of_life()
                    continue
                is_skipping = False
                self._forget()
                skipped()
            yield packet

    def _is_behind(self, packet: Packet[VideoStream], waited: float, now: float) -> bool:
        self._reads.append((now, waited))
        self._waited += waited
        while now - self._reads[0][0] > _WINDOW_SECONDS:
            self._waited -= self._reads.popleft()[1]
        late = self._late(packet, now)
        span = now - self._reads[0][0]
        return span > 0.9 * _WINDOW_SECONDS and self._waited < _LEAST_IDLE * span and late

    def _late(self, packet: Packet[VideoStream], now: float) -> bool:
        if not self._is_timed or packet.pts is None or packet.time_base is None:
            return True
        return self._lateness.of(float(packet.pts * packet.time_base), now, 0) > self._limit

    def _forget(self) -> None:
        self._reads.clear()
        self._waited = 0.0


def timed(
    packets: Iterable[Packet[VideoStream]],
) -> Iterator[tuple[Packet[VideoStream], float, float]]:
    """Each packet with the seconds that it was waited for, and the monotonic time it came."""
    asked = time.monotonic()
    for packet in packets:
        now = time.monotonic()
        yield packet, now - asked, now
        asked = time.monotonic()
