"""Where the page listens, and who may look: ``http://HOST:PORT?token=SECRET``.

On the loopback interface whoever is logged in to this machine may look, unless a token was set.
On any other interface a token is demanded: the URL's, the environment's, or a random one.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from pipeline.errors import ConfigError, SinkError

DEFAULT_PORT = 8080
EXAMPLE = "http://127.0.0.1:8080 or http://0.0.0.0:8080"
_SHORTEST_TOKEN = 8


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: An IP address.
        port: 0 lets the system choose.
        token: What a visitor must know; None: everybody on this machine may look.
        token_is_new: Nobody has seen the token yet.
    """

    host: str
    port: int
    token: str | None
    token_is_new: bool = False

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        is_v6 = ipaddress.ip_address(self.host).version == 6
        return socket.AF_INET6 if is_v6 else socket.AF_INET

    @property
    def url(self) -> str:
        """Where to point a browser; without the token."""
        host = ipaddress.ip_address(self.host)
        shown = _own_address(self.family) if host.is_unspecified else self.host
        return f"http://[{shown}]:{self.port}/" if ":" in shown else f"http://{shown}:{self.port}/"

    @property
    def url_with_token(self) -> str:
        """Where to point a browser for the first time."""
        return self.url if self.token is None else f"{self.url}?token={quote(self.token, safe='')}"

    def at_port(self, port: int) -> Address:
        """The same at the port that the system has chosen."""
        return replace(self, port=port)


def read_address(url: str, environment_token: str | None = None) -> Address:
    """What ``--out http://...`` means.

    Args:
        url: May hold a token, and so is shown in no message.
        environment_token: Used where the URL holds none.

    Raises:
        ConfigError: It is no such URL.
        SinkError: Its host's name is unknown here.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"out: not a URL that can be listened at; expected {EXAMPLE}") from None
    if parts.scheme != "http":
        raise ConfigError(
            f"out: the page is served by http, not {parts.scheme}; "
            "for https put a reverse proxy in front of it"
        )
    if parts.username or parts.password or parts.path not in {"", "/"} or parts.fragment:
        raise ConfigError(
            f"out: expected {EXAMPLE}, with nothing before the host or after the port"
        )
    host, token = _resolved(parts.hostname or "localhost"), _token(parts) or environment_token
    if token is not None and not re.fullmatch(rf"[!-~]{{{_SHORTEST_TOKEN},256}}", token):
        raise ConfigError(
            f"out: the token must be {_SHORTEST_TOKEN} to 256 letters, digits or signs, no spaces"
        )
    is_new = token is None and not ipaddress.ip_address(host).is_loopback
    return Address(host, _port(parts), secrets.token_urlsafe(18) if is_new else token, is_new)


def listen(address: Address) -> socket.socket:
    """Bind and listen at once, so that a port that is taken is known before anything starts.

    Raises:
        SinkError: That is not possible; says what to do.
    """
    # The protocol has to be named: only then asyncio switches Nagle's delay off, 40 ms an answer.
    server = socket.socket(address.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address.host, address.port))
        server.listen(128)
    except OSError as error:
        server.close()
        raise _refused(address, error) from error
    return server


def _refused(address: Address, error: OSError) -> SinkError:
    other = address.port + 1 if 1024 < address.port < 65535 else DEFAULT_PORT
    remedies = {
        errno.EADDRINUSE: f"the port is taken; choose another, such as {other}",
        errno.EACCES: f"ports below 1024 are for root; choose another, such as {DEFAULT_PORT}",
        errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 stands for all it has",
    }
    reason = remedies.get(error.errno or 0, error.strerror or str(error))
    return SinkError(error.errno or 0, f"cannot serve the page at {address.url}: {reason}")


def _port(parts: SplitResult) -> int:
    try:
        return DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise ConfigError(f"out: the port must be 0 to 65535; expected {EXAMPLE}") from None


def _token(parts: SplitResult) -> str | None:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    token = query.pop("token", None)
    if query:
        raise ConfigError(f"out: unknown {sorted(query)[0]!r} after the page's ?; known is token")
    return token


def _resolved(host: str) -> str:
    """The IP address that `host` stands for; ``localhost`` is IPv4's."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise SinkError(
            f"cannot serve the page at {host!r}: no such host; 0.0.0.0 stands for all addresses"
        ) from error


def _own_address(family: socket.AddressFamily) -> str:
    """An address of this machine that others can probably reach; nothing is sent."""
    elsewhere = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"  # for documentation
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "::1" if family == socket.AF_INET6 else "127.0.0.1"
