"""A camera's address, read once: what is opened is secret, all else only ever sees what is shown.

    rtsp://user:password@host:554/path?channel=1#transport=udp&name=door

The query belongs to the camera. Our own options stand in the fragment, which is never sent. User,
password, host and the values of the query may each be ``$NAME``: then the environment holds
them. So may be the whole address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.errors import ConfigError

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|\$\{?\w+\}?|[^\s\[\]:@/?#%]*)(?::([0-9]{1,5}))?")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_HINT = "write the special characters of a password as in a URL: %40 for @, %2F for /, %3A for :"

_LISTENING = {"udp", "tcp", "srt"}  # may stand without a host: our own

# What tells cameras behind one host apart; any other value of a query may be a secret.
_HARMLESS = {
    *("camera", "cam", "ch", "channel", "chn", "channelno", "stream", "streamtype", "subtype"),
    *("profile", "resolution", "fps", "unicast", "proto", "track", "video", "audio", "codec"),
}
_SECRET_IN_PATH = re.compile(
    r"((?:user|usr|login|pass\w*?|pwd|token|key|auth|secret)=)[^/]*", re.IGNORECASE
)


class Secret:
    """A text that shows itself only to who asks for it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __repr__(self) -> str:
        return "***"


@dataclass(frozen=True)
class Address:
    """Where a camera is.

    Attributes:
        shown: For logs, reports and errors; no user, no password, no value that may be secret.
        scheme: In lower case.
        host: What has to be found in the network; None where nothing has.
        name: A name for the source, of host and path.
        opened: What FFmpeg is given.
    """

    shown: str
    scheme: str
    host: str | None
    name: str
    opened: Secret = field(repr=False)


@dataclass(frozen=True)
class _Parts:
    """An address taken apart; `user` and `password` are plain, not percent-encoded."""

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: str | None
    tail: str  # path and query


def split_options(url: str) -> tuple[str, dict[str, str]]:
    """An address without its fragment, and our options that the fragment holds.

    Raises:
        ConfigError: An option is given twice.
    """
    scheme, _, rest = url.partition("://")
    login, place = _split_login(rest)
    place, _, fragment = place.partition("#")
    return f"{scheme}://{'' if login is None else login + '@'}{place}", options_of(fragment)


def options_of(fragment: str) -> dict[str, str]:
    """Our options behind a #: ``key=value&key=value``; without a value, ``true`` is meant.

    Raises:
        ConfigError: An option is given twice.
    """
    options: dict[str, str] = {}
    for item in filter(None, fragment.split("&")):
        key, equals, value = item.partition("=")
        if key in options:  # not shown: it may be the end of a password
            raise ConfigError("an option is given twice behind the # of a source")
        options[key] = unquote(value) if equals else "true"
    return options


def expanded(url: str, environment: Mapping[str, str]) -> str:
    """`url`, or what the environment holds if it is nothing but ``$NAME``."""
    return _looked_up(url, environment) if _VARIABLE.fullmatch(url) else url


def parse_address(
    url: str, environment: Mapping[str, str], credentials: str | None = None
) -> Address:
    """Read an address without a fragment.

    Args:
        url: As the user gave it.
        environment: Holds what is written as ``$NAME``.
        credentials: A file with ``user:password`` in its first line, both as they are.

    Raises:
        ConfigError: The address cannot be read; the message holds nothing that may be secret.
    """
    parts = _read(url, environment)
    user, password = parts.user, parts.password
    if credentials is not None:
        if user:
            raise ConfigError(f"{_shown(parts)}: a user in the address, and a credentials file")
        user, password = _from_file(credentials)
    login = "" if user is None else quote(user, safe="")
    login += "" if password is None else ":" + quote(password, safe="")
    at = "" if user is None else "@"
    host = parts.host + (f":{parts.port}" if parts.port else "")
    return Address(
        shown=_shown(parts),
        scheme=parts.scheme,
        host=parts.host.strip("[]") or None,
        name=_name(parts),
        opened=Secret(f"{parts.scheme}://{login}{at}{host}{_for_ffmpeg(parts.tail)}"),
    )


def device_address(device: str) -> Address:
    """The address of a local camera, such as ``/dev/video0``."""
    return Address(device, "v4l2", None, Path(device).name, Secret(device))


def _read(url: str, environment: Mapping[str, str]) -> _Parts:
    scheme, _, rest = url.partition("://")
    login, place = _split_login(rest)
    match = _HOST.match(place)
    found = match is not None and _is_whole(place, match.end()) and _is_port(match[2])
    if match is None or not found or not (match[1] or scheme.lower() in _LISTENING):
        raise ConfigError(f"cannot find the host in a {scheme}:// address; {_HINT}")
    user, colon, password = (login or "").partition(":")
    tail = place[match.end() :]
    path, question, query = tail.partition("?")
    if question:
        query = "&".join(_query_item(item, environment) for item in query.split("&"))
    return _Parts(
        scheme=scheme.lower(),
        user=None if login is None else _plain(user, environment),
        password=_plain(password, environment) if colon else None,
        host=_looked_up(match[1], environment),
        port=match[2],
        tail=path + question + query,
    )


def _split_login(rest: str) -> tuple[str | None, str]:
    """What stands before the @ that ends the login (None without one), and what follows it.

    People write passwords as they are. Where the standard's reading (the login ends before the
    first slash) gives no host, or one that is less of a host, the last @ of all is taken.
    """
    end = re.search(r"[/?#]|$", rest)
    standard = rest.rfind("@", 0, end.start() if end else None)
    last = rest.rfind("@")
    if last > standard and ":" in rest[: standard if standard > 0 else last]:
        # Behind a ? or a = an @ is no surprise; elsewhere a port alone makes no host.
        by_port = re.search(r"[?=]", rest[:last]) is not None
        if _likeness(rest[last + 1 :]) > _likeness(rest[standard + 1 :], by_port):
            return rest[:last], rest[last + 1 :]
    return (rest[:standard], rest[standard + 1 :]) if standard >= 0 else (None, rest)


def _likeness(place: str, by_port: bool = True) -> int:
    """How much the begin of `place` looks like a host: 0 not at all, 1 it may be, 2 it does."""
    match = _HOST.match(place)
    if match is None or not match[1] or not _is_whole(place, match.end()):
        return 0
    host, port = match[1], match[2]
    if not _is_port(port):
        return 0
    looks = "." in host or host.startswith(("[", "$")) or host == "localhost"
    return 2 if looks or (by_port and port is not None) else 1


def _is_whole(place: str, end: int) -> bool:
    return place[end : end + 1] in ("", "/", "?", "#")


def _is_port(word: str | None) -> bool:
    return word is None or 0 < int(word) < 65536


def _plain(word: str, environment: Mapping[str, str]) -> str:
    """A user or a password: from the environment, or percent-decoded."""
    found = _looked_up(word, environment)
    return unquote(word) if found is word else found


def _query_item(item: str, environment: Mapping[str, str]) -> str:
    key, equals, value = item.partition("=")
    found = _looked_up(value, environment)
    return f"{key}{equals}{value if found is value else quote(found, safe='')}"


def _looked_up(word: str, environment: Mapping[str, str]) -> str:
    """`word` itself, unless it is ``$NAME`` or ``${NAME}``."""
    match = _VARIABLE.fullmatch(word)
    if match is None:
        return word
    name = match[1] or match[2]
    if name not in environment:
        raise ConfigError(
            f"an address asks for ${name}, but no {name} is given; set it in the environment "
            "(in a camera that is added to a running line: write what it stands for), or write "
            "%24 for a dollar sign that is meant as such"
        )
    return environment[name]


def _from_file(name: str) -> tuple[str, str | None]:
    try:
        with open(name, encoding="utf-8") as file:
            line = file.readline(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ConfigError(f"cannot read the credentials file {name!r}: {reason}") from None
    user, colon, password = line.partition(":")
    if not user:
        raise ConfigError(f"the credentials file {name!r} must begin with a line user:password")
    return user, password if colon else None


def _for_ffmpeg(tail: str) -> str:
    """What may not stand in a request as it is, percent-encoded; what is encoded stays so."""
    return quote(tail, safe="/?#[]@!$&'()*+,;=:%-._~|")


def _shown(parts: _Parts) -> str:
    path, question, query = parts.tail.partition("?")
    path = _SECRET_IN_PATH.sub(r"\1***", path)
    path = re.sub(r".*@", "/***@", path)  # may be the end of a password
    items = [_shown_item(item) for item in query.split("&")] if question else []
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.host}{port}{path}{question}{'&'.join(items)}"


def _shown_item(item: str) -> str:
    key, equals, value = item.partition("=")
    if not equals or "@" in key:
        return "***" if item else ""
    return item if key.lower() in _HARMLESS and re.fullmatch(r"\w{1,16}", value) else f"{key}=***"


def _name(parts: _Parts) -> str:
    """Such as ``10.0.0.5-front`` for rtsp://10.0.0.5/live/front.sdp."""
    path = _shown(parts).partition("://")[2].partition("?")[0].partition("/")[2]
    last = path.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"\.(sdp|m3u8|mjpe?g|cgi|ts|flv|mp4)$", "", last, flags=re.IGNORECASE)
    words = re.findall(r"[\w.-]+", f"{parts.host} {unquote(stem)}")
    return "-".join(words) or parts.scheme
