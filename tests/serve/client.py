"""A plain HTTP client that shows what came back, and sends whatever a test wants."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """Status, headers (lower-case names) and body of a response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Asks one server, as a program on this machine would."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self.host, self.port = "127.0.0.1", parts.port

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """GET; ``accept_language="de"`` becomes a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("GET", path, headers=named)

    @contextmanager
    def open(self, path: str) -> Iterator[HTTPResponse]:
        """A response whose body is read inside the block."""
        connection = HTTPConnection(self.host, self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A bare connection; close it."""
        bare = socket.socket()
        if receive_bytes:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        bare.settimeout(PATIENCE_SECONDS)
        bare.connect((self.host, self.port))
        return bare


def ask(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a connection that stays open."""
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read())


def next_part(response: HTTPResponse) -> bytes:
    """The next JPEG of ``multipart/x-mixed-replace``."""
    length = 0
    while (line := response.readline()) != b"\r\n" or not length:
        assert line, "the stream has ended"
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return response.read(length)


def next_packed(response: HTTPResponse) -> tuple[dict[str, Any], bytes]:
    """The next picture of ``/pictures``: what it is, and its JPEG."""
    head = json.loads(response.readline())
    return head, response.read(head["bytes"])
