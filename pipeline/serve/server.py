"""An HTTP server on a thread of its own that no client can hold up.

A client that takes nothing of what waits for it within a time limit loses its connection; so
does one that connects and asks nothing. Connections are bounded in number, what waits for each
of them in bytes.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.graph import background

log = logging.getLogger(__name__)

CONNECTIONS = 256
_KERNEL_BUFFER = 128 * 1024  # bytes for each client; what waits there is old when it arrives
_STOP_SECONDS = 1  # for responses to end


class BoundedProtocol(H11Protocol):
    """One connection, given up when its client neither asks nor takes for `patience` seconds."""

    patience: float
    _doom: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # asyncio's own is wider
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        # Nothing may wait here while the next picture is picked: that would be an old one.
        transport.set_write_buffer_limits(high=0)
        self._expect_progress()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._content()  # a request has come
        elif self._doom is None:
            self._expect_progress()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_progress()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._content()

    def connection_lost(self, exc: Exception | None) -> None:
        self._content()
        super().connection_lost(exc)

    def _expect_progress(self) -> None:
        self._content()
        waiting = self.transport.get_write_buffer_size()
        self._doom = self.loop.call_later(self.patience, self._judge, waiting)

    def _judge(self, waited: int) -> None:
        """Give it up, unless some of what waited has gone; the kernel takes tens of kilobytes."""
        if self.transport.get_write_buffer_size() < waited:
            self._expect_progress()
        else:
            self.transport.abort()

    def _content(self) -> None:
        if self._doom is not None:
            self._doom.cancel()
            self._doom = None


class Server(uvicorn.Server):
    """uvicorn, which at its end leaves no connection open."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the transports close in the next round


class RunningServer:
    """A server that runs until `stop`.

    Args:
        app: What it serves.
        listener: A bound socket that listens; connections that came before are served, too.
        patience: Seconds after which a client that does nothing is given up.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, patience: float) -> None:
        _bound_clients(listener, patience)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=type("Protocol", (BoundedProtocol,), {"patience": patience}),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,  # its lines hold URLs, and those hold tokens
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=round(max(1.0, patience)),
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server, self._listener = Server(config), listener
        self._thread = background(self._run, "page")

    def stop(self, within: float = 5.0) -> bool:
        """End it; tell whether that took less than `within` seconds."""
        self._server.should_exit = True
        return self._thread.join(within)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except (OSError, RuntimeError) as error:
            log.error("the page has ended: %s", error)
        finally:
            self._listener.close()


def _bound_clients(listener: socket.socket, patience: float) -> None:
    """Limits for every client's connection, which inherits them, where the system has them."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # a phone that has left the room says no goodbye
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(patience * 1000))
