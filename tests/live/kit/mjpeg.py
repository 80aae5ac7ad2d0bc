"""A camera that speaks HTTP: JPEG after JPEG in one endless answer."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time

import cv2
import numpy as np

from tests.live.kit.painting import Painter
from tests.live.kit.serving import Server, read_request

BOUNDARY = "picture"


class MjpegServer(Server):
    """Motion JPEG on a port of its own; many viewers see the same pictures.

    Args:
        size: Width and height.
        fps: Pictures a second.
        user, password: Asked of every viewer, if given.
        port: Default: a free one.
        context: With it the server speaks TLS.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (160, 120),
        fps: float = 25,
        user: str | None = None,
        password: str | None = None,
        port: int | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.painted = 0
        self.fps = fps
        self._painter = Painter(*size)
        self._login = None if user is None else f"{user}:{password}"
        self._stalled = False
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._latest = b""
        self._thread = threading.Thread(target=self._paint, daemon=True)
        self._thread.start()
        super().__init__(port, context)

    @property
    def url(self) -> str:
        """Without user and password."""
        scheme = "https" if self._context else "http"
        return f"{scheme}://127.0.0.1:{self.port}/video"

    def change(self, *, size: tuple[int, int], fps: float | None = None) -> None:
        """Another size from the next picture on."""
        with self._changed:
            self._painter = Painter(*size)
            self.fps = fps or self.fps

    def stall(self) -> None:
        """Send nothing more; connections stay open."""
        with self._changed:
            self._stalled = True

    def resume(self) -> None:
        """Go on with the present picture."""
        with self._changed:
            self._stalled = False

    def close(self) -> None:
        self._ended.set()
        super().close()
        self._thread.join()

    def kill(self) -> None:
        with self._changed:
            self._changed.notify_all()
        super().kill()

    def handle(self, client: socket.socket) -> None:
        request = read_request(client)
        if not request:
            return
        if not self._admits(request):
            head = 'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="camera"\r\n'
            client.sendall(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        client.settimeout(5.0)
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        client.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode())
        seen = 0
        while not self._ended.is_set() and client.fileno() >= 0:
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self.painted != seen, timeout=0.5)
                fresh, seen, jpeg = self.painted != seen, self.painted, self._latest
            if fresh and not self._stalled:
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                client.sendall(head.encode() + b"\r\n\r\n" + jpeg + b"\r\n")

    def _admits(self, request: list[str]) -> bool:
        if self._login is None:
            return True
        wanted = base64.b64encode(self._login.encode()).decode()
        return any(line.lower() == f"authorization: basic {wanted}".lower() for line in request)

    def _paint(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            with self._changed:
                painter, number = self._painter, self.painted
            planes = painter.picture(number, round(time.monotonic() * 1000))
            shape = (painter.height * 3 // 2, painter.width)
            yuv = np.frombuffer(planes, np.uint8).reshape(shape)
            jpeg = cv2.imencode(".jpg", cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR_I420))[1].tobytes()
            with self._changed:
                self._latest, self.painted = jpeg, number + 1
                self._changed.notify_all()
            due = max(due + 1 / self.fps, time.monotonic() - 1.0)
