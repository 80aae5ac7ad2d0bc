"""Redis streams: one entry a frame, with the fields ``source`` and ``record`` (JSON).

``redis://[user:password@]host[:6379]/[database]?stream=name&maxlen=10000``. The stream's name
may hold ``{source}``; without a name it is ``boxstream``, for all sources. It never grows beyond
``maxlen`` entries (0: no limit): Redis drops the oldest.

Further options: ``buffer`` (records kept during an outage, default 1000) and for ``rediss://``
``ca``, ``cert``, ``key`` (files) and ``verify`` (yes or no).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.errors import ConfigError
from pipeline.sinks.brokers.address import Address, Tls, named_after
from pipeline.sinks.brokers.contract import (
    BrokerRefuses,
    BrokerTrouble,
    Confirm,
    Patience,
    Refusal,
)
from pipeline.sinks.brokers.outbox import Message
from pipeline.sinks.brokers.sink import BrokerSink
from pipeline.sinks.protocol import SinkTarget


@dataclass(frozen=True)
class RedisServer:
    """A Redis server, how to log in, and how long its streams may get."""

    host: str
    port: int
    database: int
    user: str
    password: str = field(repr=False)
    tls: Tls | None
    longest: int
    patience: Patience

    @classmethod
    def at(cls, address: Address, patience: Patience) -> RedisServer:
        """The server that an address names; `ConfigError` if it cannot be one."""
        host, port = address.host_and_port(6379)
        database = address.path.strip("/") or "0"
        if not database.isdecimal():
            raise ConfigError(f"out: the database of {address.scheme}:// must be a number")
        return cls(
            host=host,
            port=port,
            database=int(database),
            user=address.user,
            password=address.password,
            tls=Tls.take(address.options) if address.scheme == "rediss" else None,
            longest=address.options.number("maxlen", 10_000, 0, 10**12),
            patience=patience,
        )

    @property
    def name(self) -> str:
        """As shown to the user."""
        scheme = "rediss" if self.tls else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}"

    def without_secrets(self, text: str) -> str:
        """`text` without the password."""
        return text.replace(self.password, "***") if self.password else text

    def connect(self) -> RedisConnection:
        """Connect and log in."""
        return RedisConnection(self)


class RedisConnection:
    """One connection, without retries of its own: those are the courier's."""

    def __init__(self, server: RedisServer) -> None:
        self._longest = server.longest
        self._client = _client(server)
        try:
            self.idle()
        except BaseException:  # whatever it was, no half-open connection stays
            self.close()
            raise

    def send(self, messages: Sequence[Message], confirm: Confirm) -> None:
        """Add all entries in one round trip."""
        with _troubles():
            pipeline = self._client.pipeline(transaction=False)
            for message in messages:
                pipeline.xadd(
                    message.topic,
                    {"source": message.key, "record": message.payload},
                    maxlen=self._longest or None,
                    approximate=False,
                )
            answers = pipeline.execute(raise_on_error=False)
            for message, answer in zip(messages, answers, strict=True):
                confirm(message, _refusal(message, answer))

    def idle(self) -> None:
        """Find out whether the server is still there."""
        # Who may not ping gets an answer, too, and may still have the right to add entries.
        with _troubles(), suppress(redis.exceptions.NoPermissionError):
            self._client.ping()

    def close(self) -> None:
        """Let go."""
        self._client.close()


def _client(server: RedisServer) -> redis.Redis:
    tls: dict[str, Any] = {}
    if server.tls is not None:
        tls = {
            "ssl": True,
            "ssl_ca_certs": server.tls.ca or None,
            "ssl_certfile": server.tls.cert or None,
            "ssl_keyfile": server.tls.key or None,
            "ssl_cert_reqs": "required" if server.tls.verify else "none",
            "ssl_check_hostname": server.tls.verify,
        }
    return redis.Redis(
        host=server.host,
        port=server.port,
        db=server.database,
        username=server.user or None,
        password=server.password or None,
        socket_connect_timeout=server.patience.connect,
        socket_timeout=server.patience.answer,
        retry=Retry(NoBackoff(), 0),
        single_connection_client=False,
        protocol=2,  # every server speaks it
        **tls,
    )


@contextmanager
def _troubles() -> Iterator[None]:
    """Inside the block, turn what the client library says into what the courier understands."""
    try:
        yield
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise BrokerRefuses(f"the server refuses us: {error}") from error
    except redis.exceptions.TimeoutError as error:
        raise BrokerTrouble("no answer in time") from error
    except redis.RedisError as error:
        raise BrokerTrouble(str(error)) from error


def _refusal(message: Message, answer: object) -> Refusal | None:
    """Why an entry was not added, if so; raises what concerns the server as a whole."""
    if not isinstance(answer, redis.exceptions.RedisError):
        return None
    if not isinstance(answer, redis.exceptions.ResponseError):
        raise answer
    if isinstance(answer, redis.exceptions.ReadOnlyError):
        raise answer  # a replica now; perhaps the next connection leads to its master
    lasts = isinstance(answer, redis.exceptions.NoPermissionError) or "WRONGTYPE" in str(answer)
    return Refusal(f"adding to the stream {message.topic} refused: {answer}", lasts)


def redis_sink(address: Address, target: SinkTarget, patience: Patience) -> BrokerSink:
    """The sink for ``redis://`` and ``rediss://``."""
    server, options = RedisServer.at(address, patience), address.options
    stream = named_after(options.text("stream", "boxstream"), target.name, r"[\0\s]")
    buffer = options.number("buffer", 1000, 1, 1_000_000)
    options.refuse_others()
    name = f"{server.name}?stream={stream}#{target.name}"
    return BrokerSink(server, target, stream, name, buffer)
