"""A server on a thread of its own, one more for each connection; all end with it."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.live.kit.ports import free_port

Handler = Callable[[socket.socket], None]


class Listener:
    """Hand every connection to `handle`, which should end when its socket is closed.

    Args:
        context: With it the connections speak TLS.

    Attributes:
        connections: How many were accepted so far.
    """

    def __init__(self, handle: Handler, port: int, context: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._context = context
        self._handle = handle
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen(64)
        self._begin(self._accept)

    def hang_up(self) -> None:
        """Reset every connection, as a dying machine does; go on listening."""
        with self._lock:
            clients, self._clients = self._clients, set()
        for client in clients:
            with suppress(OSError):  # its handler may just have closed it
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            shut(client)

    def close(self) -> None:
        """Refuse and reset everything; return when all threads have ended."""
        shut(self._listening)
        self._threads[0].join()
        self.hang_up()
        for thread in self._threads:
            thread.join()

    def _begin(self, run: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads = [old for old in self._threads if old.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with suppress(OSError):  # it has gone already
                client = self._secured(client)
                with self._lock:
                    self._clients.add(client)
                self._begin(self._serve, client)

    def _secured(self, client: socket.socket) -> socket.socket:
        """Hands are shaken when the first bytes are read: that may take its time."""
        if self._context is None:
            return client
        return self._context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)

    def _serve(self, client: socket.socket) -> None:
        try:
            self._handle(client)
        except OSError:
            pass  # whoever looked has gone, or we hung up
        finally:
            with self._lock:
                self._clients.discard(client)
            client.close()


def shut(connection: socket.socket) -> None:
    """Close, and wake whoever waits in it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was not connected any more
    finally:
        connection.close()


def read_request(client: socket.socket) -> list[str]:
    """The lines of a request's head; empty when the other side closed."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.recv(4096)
        if not piece:
            return []
        head += piece
    return head.decode("latin-1").split("\r\n")


class Server:
    """What can listen, be killed, and listen on the same port again; ``with`` ends it.

    Args:
        port: Default: a free one.
        context: With it the server speaks TLS.
    """

    def __init__(self, port: int | None = None, context: ssl.SSLContext | None = None) -> None:
        self.port = port or free_port()
        self._context = context
        self._earlier_connections = 0
        self._listener: Listener | None = None
        self.start()

    @property
    def connections(self) -> int:
        """How many connections were accepted so far, over all starts."""
        return self._earlier_connections + (self._listener.connections if self._listener else 0)

    def handle(self, client: socket.socket) -> None:
        """Serve one connection; `OSError` ends it."""
        raise NotImplementedError

    def start(self) -> None:
        """Listen."""
        self._listener = Listener(self.handle, self.port, self._context)

    def kill(self) -> None:
        """Reset all connections, refuse new ones."""
        if self._listener is not None:
            self._listener.close()
            self._earlier_connections += self._listener.connections
            self._listener = None

    def hang_up(self) -> None:
        """Reset all connections, take new ones."""
        if self._listener is not None:
            self._listener.hang_up()

    def close(self) -> None:
        """End for good."""
        self.kill()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()
