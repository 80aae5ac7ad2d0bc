"""Ports that stay ours while a server is down.

The system hands out ports from 32768 up to connections of its own; a server that was killed could
find its port taken. So servers listen below, and each process that starts some, be it a worker of
this test run or of another one, in a block of its own.
"""

from __future__ import annotations

import atexit
import itertools
import random
import socket
from collections.abc import Iterator
from functools import cache

FIRST, LAST, BLOCK = 15_000, 32_000, 500


def free_port(*, udp: bool = False) -> int:
    """A port of 127.0.0.1 on which nobody listens, different at every call; with `udp`, on both."""
    for port in itertools.islice(_own_ports(), BLOCK):
        if _is_free(port) and not (udp and not _is_free(port, socket.SOCK_DGRAM)):
            return port
    raise OSError("no port is free for a test server")


def _is_free(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    with socket.socket(type=kind) as probe:
        if kind is socket.SOCK_STREAM:  # connections that have just ended do not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _bound(probe, port)


def _bound(own: socket.socket, port: int) -> bool:
    try:
        own.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


@cache
def _own_ports() -> Iterator[int]:
    """Those of the first block that nobody claims, round and round.

    Who has bound the first port of a block, and so keeps others from doing it, has the block.
    """
    for first in range(FIRST, LAST, BLOCK):
        claim = socket.socket()
        if _bound(claim, first):
            atexit.register(claim.close)
            ports, begin = range(first + 1, first + BLOCK), random.randrange(BLOCK - 1)
            return itertools.cycle([*ports[begin:], *ports[:begin]])
        claim.close()
    raise OSError("too many processes start test servers here")
