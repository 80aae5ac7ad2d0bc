"""Servers that accept a connection and then do not do what a camera does."""

from __future__ import annotations

import random
import socket

from tests.live.kit.ports import free_port
from tests.live.kit.serving import Server, read_request


def refused_url(scheme: str = "rtsp") -> str:
    """An address at which nobody listens."""
    return f"{scheme}://127.0.0.1:{free_port()}/cam"


class OddServer(Server):
    """A server for any scheme: ``url("rtsp")``, ``url("http")``."""

    def url(self, scheme: str = "rtsp", login: str = "") -> str:
        """Its address; `login` is ``user:password``, quoted as in a URL."""
        return f"{scheme}://{login and login + '@'}127.0.0.1:{self.port}/cam"


class SilentServer(OddServer):
    """Accepts, reads, and never says a word."""

    def handle(self, client: socket.socket) -> None:
        while client.recv(4096):
            pass  # it listens, and never answers


class ClosingServer(OddServer):
    """Accepts, and closes at once."""

    def handle(self, client: socket.socket) -> None:
        pass  # it hangs up at once


class StatusServer(OddServer):
    """Answers every request with one status, in the protocol it was asked in.

    Args:
        status: Such as ``404 Not Found``.
    """

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        while request := read_request(client):
            protocol = request[0].rsplit(" ", 1)[-1]
            head = [f"{protocol} {self.status}"]
            head += [line for line in request[1:] if line.lower().startswith("cseq:")]
            if self.status.startswith("401"):
                head += ['WWW-Authenticate: Basic realm="camera"']
            client.sendall("\r\n".join([*head, "Content-Length: 0", "", ""]).encode("latin-1"))


class GarbageServer(OddServer):
    """Sends bytes by chance, as long as somebody reads."""

    def handle(self, client: socket.socket) -> None:
        client.settimeout(5.0)
        chance = random.Random(7)
        while True:
            client.sendall(chance.randbytes(4096))


class DrippingServer(OddServer):
    """Sends a head that never ends, a line a second: always alive, never done."""

    def handle(self, client: socket.socket) -> None:
        protocol = (read_request(client) or ["x RTSP/1.0"])[0].rsplit(" ", 1)[-1]
        client.sendall(f"{protocol} 200 OK\r\nCSeq: 1\r\n".encode())
        client.settimeout(1.0)
        while True:
            try:
                if not client.recv(4096):
                    return
            except TimeoutError:
                client.sendall(b"X-More: to come\r\n")
