"""Ports that stay ours while a server is down.

The system hands out ports from 32768 up to connections of its own; a server that was killed could
find its port taken. So servers listen below, and each test worker in a range of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

FIRST, PER_WORKER = 15000, 1000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0) % 16
_offsets = itertools.count(random.randrange(PER_WORKER))


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, different at every call."""
    for _ in range(PER_WORKER):
        port = FIRST + _worker * PER_WORKER + next(_offsets) % PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free for a test server")
