"""Kafka: one JSON record a frame, with the source's name as key, so that frames keep their order.

``kafka://[user:password@]host:9092[,host2:9092]/topic``. The topic may hold ``{source}``. With a
user, SASL PLAIN is used. ``buffer`` (records kept during an outage, default 1000) is our option;
every other one goes to librdkafka by its own name, such as ``security.protocol=SASL_SSL``,
``sasl.mechanism=SCRAM-SHA-512``, ``ssl.ca.location=ca.pem`` or ``compression.type=lz4``.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.errors import ConfigError
from pipeline.sinks.brokers.address import Address, named_after
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

log = logging.getLogger(__name__)

# What no waiting mends.
_REFUSALS = {
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
# What concerns one message, not the connection; and what concerns its whole topic.
_REFUSED_MESSAGES = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.POLICY_VIOLATION,
}
_REFUSED_TOPICS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


@dataclass(frozen=True)
class KafkaServer:
    """A Kafka cluster, and how to log in there.

    Attributes:
        servers: ``host:port``, several with commas.
        login: Options of librdkafka, in order of their names; may hold secrets.
    """

    servers: str
    login: tuple[tuple[str, str], ...] = field(repr=False)
    patience: Patience

    @classmethod
    def at(cls, address: Address, patience: Patience) -> KafkaServer:
        """The cluster that an address names; `ConfigError` if librdkafka wants it otherwise."""
        login = {}
        if address.user:
            login = {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": address.user,
                "sasl.password": address.password,
            }
        login |= address.options.rest()
        server = cls(address.servers, tuple(sorted(login.items())), patience)
        try:
            Producer(server.producer_settings() | {"bootstrap.servers": ""})  # asks nobody
        except (KafkaException, ValueError, TypeError) as error:
            raise _bad_options(error, login) from None
        return server

    @property
    def name(self) -> str:
        """As shown to the user."""
        return f"kafka://{self.servers}"

    def without_secrets(self, text: str) -> str:
        """`text` without the values of options that are passwords."""
        for key, value in self.login:
            if value and re.search(r"password|secret|pem|token", key):
                text = text.replace(value, "***")
        return text

    def connect(self) -> KafkaConnection:
        """Find the cluster, and log in."""
        return KafkaConnection(self)

    def producer_settings(self) -> dict[str, Any]:
        """For librdkafka; what the user wrote wins over our defaults."""
        answer_ms = round(self.patience.answer * 1e3)
        defaults: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "client.id": "boxstream",
            "message.timeout.ms": answer_ms,
            "socket.timeout.ms": max(10, answer_ms),
            "socket.connection.setup.timeout.ms": max(1000, round(self.patience.connect * 1e3)),
            "linger.ms": 0,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "logger": _QuietLog(),
        }
        return defaults | dict(self.login)


class KafkaConnection:
    """A producer of librdkafka; its own threads are out of our sight.

    A new one after each outage: what it had not delivered goes with it, and is ours again.
    """

    def __init__(self, server: KafkaServer) -> None:
        self._patience = server.patience
        self._fatal: KafkaError | None = None
        self._left = 0
        settings = server.producer_settings() | {"error_cb": self._on_error}
        try:
            self._producer = Producer(settings)
        except KafkaException as error:  # options that were right; a file may be being renewed
            named = _named(error, dict(server.login))
            raise BrokerTrouble(f"librdkafka cannot use its options, as in {named}") from None
        try:
            self._find_cluster()
        except BaseException:  # whatever it was, no half-open connection stays
            self.close()
            raise

    def send(self, messages: Sequence[Message], confirm: Confirm) -> None:
        """Produce all, and wait for the delivery reports."""
        failures: list[KafkaError] = []
        for message in messages:
            self._produce(message, partial(self._delivered, message, confirm, failures))
        deadline = time.monotonic() + self._patience.answer + 1.0
        while self._left and not failures and time.monotonic() < deadline:
            self._producer.poll(max(0.0, deadline - time.monotonic()))
            self._check()
        if failures or self._left:
            raise trouble_of(failures[0] if failures else KafkaError(KafkaError._TIMED_OUT))

    def idle(self) -> None:
        """Hear about errors."""
        self._producer.poll(0)
        self._check()

    def close(self) -> None:
        """Forget what is under way, and let go."""
        self._producer.purge()
        self._producer.poll(0)
        # Its end waits for its threads, which may be waiting for a name server. It refers to us,
        # so otherwise the collector would end it: on whatever thread that runs, a station's too.
        del self._producer

    def _find_cluster(self) -> None:
        try:
            self._producer.list_topics(timeout=self._patience.connect)
        except KafkaException as error:
            self._producer.poll(0)  # hear why
            self._check()
            raise trouble_of(error.args[0]) from error

    def _produce(self, message: Message, delivered: Any) -> None:
        try:
            self._producer.produce(
                message.topic, message.payload, message.key, on_delivery=delivered
            )
            self._left += 1
        except KafkaException as error:  # it is judged as if it had been sent
            self._left += 1
            delivered(error.args[0], None)
        except BufferError as error:
            raise BrokerTrouble("librdkafka has no room for more") from error

    def _delivered(
        self,
        message: Message,
        confirm: Confirm,
        failures: list[KafkaError],
        error: KafkaError | None,
        delivered: object,
    ) -> None:
        self._left -= 1
        if error is None:
            confirm(message, None)
        elif error.code() in _REFUSED_MESSAGES | _REFUSED_TOPICS:
            reason = f"writing to {message.topic} refused: {error.str()}"
            confirm(message, Refusal(reason, lasts=error.code() in _REFUSED_TOPICS))
        else:
            failures.append(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in _REFUSALS:
            self._fatal = error

    def _check(self) -> None:
        if self._fatal is not None:
            raise trouble_of(self._fatal)


def trouble_of(error: KafkaError) -> BrokerTrouble:
    """What an error of librdkafka means: worth another try soon, or not."""
    if error.code() in _REFUSALS:
        return BrokerRefuses(f"the broker refuses us: {error.str()}")
    return BrokerTrouble(error.str())


class _QuietLog:
    """librdkafka repeats itself at every attempt; what matters of it we say ourselves."""

    def log(self, level: int, message: str, *values: object) -> None:
        """Keep it for those who debug."""
        log.debug(message, *values)


def _bad_options(error: Exception, given: Iterable[str]) -> ConfigError:
    named = _named(error, given)
    return ConfigError(f"out: kafka:// takes no such option, or value, as in {named}")


def _named(error: Exception, given: Iterable[str]) -> str:
    """The options that an error is about; librdkafka's own sentences repeat their values."""
    return ", ".join([name for name in given if name in str(error)] or given)


def kafka_sink(address: Address, target: SinkTarget, patience: Patience) -> BrokerSink:
    """The sink for ``kafka://``."""
    topic = named_after(
        address.path.strip("/") or "boxstream", target.name, r"[^\w.-]|[^\x00-\x7f]"
    )
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
        raise ConfigError(f"out: {topic!r} cannot be a Kafka topic; use A-Z a-z 0-9 . _ -")
    buffer = address.options.number("buffer", 1000, 1, 1_000_000)
    server = KafkaServer.at(address, patience)
    return BrokerSink(server, target, topic, f"{server.name}/{topic}#{target.name}", buffer)
