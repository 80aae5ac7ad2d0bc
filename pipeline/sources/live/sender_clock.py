"""When a camera took a picture, by its own clock."""

from __future__ import annotations

import struct
from typing import Final

from av.packet import Packet
from av.video.stream import VideoStream

_REFERENCE: Final = "prft"  # FFmpeg's name for a producer's reference time
_MICROSECONDS = struct.Struct("=q")


class SenderClock:
    """Translates timestamps into the camera's time of day.

    Cameras that speak RTSP tell every few seconds which time of day a timestamp stands for, in
    their sender reports (RTCP, RFC 3550, section 6.4.1); FFmpeg writes that into the packets.
    """

    def __init__(self) -> None:
        self._offset: float | None = None

    def hear(self, packet: Packet[VideoStream]) -> None:
        """Take note of the relation that the packet tells, if any."""
        if packet.pts is None or packet.time_base is None or not packet.has_sidedata(_REFERENCE):
            return
        (microseconds,) = _MICROSECONDS.unpack_from(bytes(packet.get_sidedata(_REFERENCE)))
        self._offset = microseconds / 1e6 - float(packet.pts * packet.time_base)

    def time_of_day(self, seconds: float | None) -> float | None:
        """Unix seconds of a timestamp; None while the camera has not told."""
        if seconds is None or self._offset is None:
            return None
        return seconds + self._offset
