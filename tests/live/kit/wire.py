"""The wire between a camera and its viewer, which can be cut without either being told.

What is sent into a dead network is not lost at once: it waits in the buffers of sender and
receiver, and comes when the network does, old as it is then. `Wire.hold` and `Wire.release`
make that happen on one machine.
"""

from __future__ import annotations

import select
import socket
import threading

from tests.live.kit.serving import Server, shut

_PIECE = 1 << 16


class Wire(Server):
    """Hand bytes on between whoever connects and the server behind.

    Args:
        behind: Port of the server on 127.0.0.1.
    """

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._whole = threading.Event()
        self._whole.set()
        self._over = threading.Event()
        super().__init__()

    def through(self, url: str) -> str:
        """The address of the same stream, by way of this wire."""
        return url.replace(f":{self._behind}/", f":{self.port}/")

    def hold(self) -> None:
        """Nothing passes; no connection breaks."""
        self._whole.clear()

    def release(self) -> None:
        """All that waited comes now."""
        self._whole.set()

    def close(self) -> None:
        self._over.set()
        self._whole.set()
        super().close()

    def handle(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._behind))
        other = {client: server, server: client}
        try:
            while not self._over.is_set():
                self._whole.wait()
                ready, _, _ = select.select(list(other), [], [], 0.2)
                if not self._whole.is_set():
                    continue
                for end in ready:
                    piece = end.recv(_PIECE)
                    if not piece:
                        return
                    other[end].sendall(piece)
        finally:
            shut(server)
