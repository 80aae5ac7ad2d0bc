"""A program of its own that sends encoded video to a server: it can be killed when that hangs.

FFmpeg connects, and says goodbye, while it holds up every other thread of a Python process; a
server that accepts and then keeps silent would stop all cameras. So `pipeline.sinks.push` starts
this file as a child. It reads from its standard input:

- one line of JSON: ``url``, ``format``, ``options`` (FFmpeg's), ``codec``, ``size`` (width and
  height), ``time_base`` (numerator and denominator), ``open_seconds`` and ``send_seconds``;
- packets: `HEAD` (time, duration, length in bytes, whether it is a keyframe), then the bytes.
  The first one is a keyframe, and holds what a decoder needs to know.

It writes one line: ``{"connected": true}``, or the number of FFmpeg's error. Whatever takes
longer than it may ends the process by SIGALRM. The address comes through the pipe so that no
list of processes shows it; nothing else does either.
"""

from __future__ import annotations

import json
import signal
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.container import OutputContainer

HEAD = struct.Struct("<qqI?")
CLOSE_SECONDS = 1.0


def main() -> int:
    """Send until the standard input ends; return the exit code."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends us, also in the middle of FFmpeg
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our parent, who ends us
    order = json.loads(sys.stdin.buffer.readline())
    try:
        send(order, sys.stdin.buffer)
    except av.FFmpegError as error:
        say({"error": error.errno})
        return 1
    return 0


def send(order: dict[str, Any], pipe: BinaryIO) -> None:
    """Connect with the first packet, and send one after the other."""
    output = av.open(order["url"], "w", format=order["format"], container_options=order["options"])
    limit = order["open_seconds"]
    for number, packet in enumerate(packets(order, pipe, output)):
        signal.setitimer(signal.ITIMER_REAL, limit)
        output.mux(packet)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if number == 0:
            say({"connected": True})
            limit = order["send_seconds"]
    signal.setitimer(signal.ITIMER_REAL, CLOSE_SECONDS)
    output.close()
    signal.setitimer(signal.ITIMER_REAL, 0)


def packets(
    order: dict[str, Any], pipe: BinaryIO, output: OutputContainer
) -> Iterator[av.Packet[Any]]:
    """Read packets for a new stream of `output`; the first one's time becomes 0."""
    width, height = order["size"]
    time_base = Fraction(*order["time_base"])
    stream = output.add_mux_stream(order["codec"], width=width, height=height, time_base=time_base)
    first: int | None = None
    while len(head := pipe.read(HEAD.size)) == HEAD.size:
        pts, duration, size, is_keyframe = HEAD.unpack(head)
        data = pipe.read(size)
        if len(data) < size:
            return
        first = pts if first is None else first
        packet: av.Packet[Any] = av.Packet(data)
        packet.pts = packet.dts = pts - first
        packet.duration, packet.time_base = duration, time_base
        packet.is_keyframe, packet.stream = is_keyframe, stream
        yield packet


def say(message: dict[str, Any]) -> None:
    """Tell our parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
