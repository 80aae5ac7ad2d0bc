"""Read the URL of a broker: where it is, who we are there, and what else was asked for.

User, password and the values of options may name environment variables (``$NAME`` or
``${NAME}``), so that a secret need not stand in a command line, which every user of a machine
can read. No error repeats more of a URL than its scheme.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from pipeline.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class Options:
    """What follows the ``?`` of a URL; every option is taken by name, and none is left over."""

    def __init__(self, given: Mapping[str, str], scheme: str) -> None:
        self._given, self._scheme = dict(given), scheme
        self._known: set[str] = set()

    def text(self, name: str, default: str = "") -> str:
        """The value of an option."""
        self._known.add(name)
        return self._given.pop(name, default)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """The whole number of an option, within both ends."""
        value = self.text(name, str(default))
        if not value.isdecimal() or not low <= int(value) <= high:
            raise ConfigError(f"out: {name} of {self._scheme}:// must be {low} to {high}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """The yes or no of an option."""
        value = self.text(name, "yes" if default else "no")
        if value not in {"yes", "no"}:
            raise ConfigError(f"out: {name} of {self._scheme}:// must be yes or no")
        return value == "yes"

    def rest(self) -> dict[str, str]:
        """Whatever has not been taken, which is taken herewith."""
        rest, self._given = self._given, {}
        return rest

    def refuse_others(self) -> None:
        """`ConfigError` if anything was given that nobody asked for."""
        if self._given:
            unknown, known = min(self._given), ", ".join(sorted(self._known))
            raise ConfigError(
                f"out: {self._scheme}:// knows no option {unknown!r}; it knows {known}"
            )


@dataclass(frozen=True)
class Address:
    """A broker's URL, taken apart.

    Attributes:
        scheme: What stands before ``://``.
        servers: ``host:port``, and for some brokers several of them, with commas.
        user: Name to log in with; "" for none.
        password: Goes with it; never shown.
        path: What follows the servers, without the first ``/``.
        options: What follows the ``?``.
    """

    scheme: str
    servers: str
    user: str
    password: str = field(repr=False)
    path: str
    options: Options = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take `url` apart; `ConfigError` when that is impossible."""
        scheme = url.partition("://")[0]
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise _unreadable(scheme) from error
        user, password, servers = _login(parts)
        after = f"{parts.path}{parts.query}{parts.fragment}"
        if not servers or "@" in after or parts.fragment:
            raise _unreadable(scheme)
        pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
        given = {unquote(name): _filled_in(value) for name, _, value in pairs}
        path = unquote(parts.path).removeprefix("/")
        return cls(scheme, servers, user, password, path, Options(given, scheme))

    def host_and_port(self, default_port: int) -> tuple[str, int]:
        """The one server; `ConfigError` if it is none."""
        try:
            parts = urlsplit(f"//{self.servers}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _unreadable(self.scheme) from error
        if not host or "," in host:
            raise _unreadable(self.scheme)
        return host, default_port if port is None else port


def _login(parts: SplitResult) -> tuple[str, str, str]:
    """User, password, and the servers without them."""
    login, _, servers = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return _filled_in(user), _filled_in(password), servers


def _filled_in(text: str) -> str:
    """`text` without its ``%XX``, and with the values of the variables that it names."""
    filled, end = [], 0
    for match in _VARIABLE.finditer(text):
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigError(f"out: the environment variable {name} is not set")
        filled += [unquote(text[end : match.start()]), os.environ[name]]
        end = match.end()
    return "".join([*filled, unquote(text[end:])])


def _unreadable(scheme: str) -> ConfigError:
    return ConfigError(
        f"out: cannot read this {scheme}:// address; expected {scheme}://user:password@host:port/"
        "..., with special characters of the password as %XX, or the password as $NAME"
    )


def named_after(pattern: str, source: str, unfit: str) -> str:
    """`pattern` with ``{source}`` filled in; characters of `unfit` (a regex) become ``_``."""
    for word in re.findall(r"\{(\w*)\}", pattern):
        if word != "source":
            raise ConfigError(f"out: unknown {{{word}}} in {pattern!r}; only {{source}} is known")
    return pattern.replace("{source}", re.sub(unfit, "_", source) or "source")


@dataclass(frozen=True)
class Tls:
    """How to make sure of a server, and it of us.

    Attributes:
        ca: File of the authorities to trust; "" for those of the system.
        cert, key: Files of our own certificate and its key; "" for none.
        verify: Whether the server's certificate must be in order.
    """

    ca: str
    cert: str
    key: str
    verify: bool

    @classmethod
    def take(cls, options: Options) -> Tls:
        """Take ``ca``, ``cert``, ``key`` and ``verify`` from `options`, and try them.

        Raises:
            ConfigError: A file is missing or not what it should be.
        """
        ca, cert, key = (options.text(name) for name in ("ca", "cert", "key"))
        tls = cls(ca, cert, key, options.flag("verify", True))
        tls.context()
        return tls

    def context(self) -> ssl.SSLContext:
        """For Python's own sockets."""
        context = ssl.create_default_context()
        context.sslsocket_class = _TidySocket
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None, password=_no_passphrase)
        except OSError as error:  # SSLError is one, too
            names = ", ".join(filter(None, (self.ca, self.cert, self.key)))
            reason = error.strerror or str(error)
            raise ConfigError(f"out: cannot use the certificates {names}: {reason}") from error
        return context


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho-mqtt leaves to the collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _no_passphrase() -> str:
    """Instead of asking on the terminal: an encrypted key is an error."""
    return ""
