"""An MQTT broker, and a connection to it that does its work on the caller's thread only."""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

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

ONLINE, OFFLINE = b"online", b"offline"
_KEEP_ALIVE_SECONDS = 15
_FAREWELL_SECONDS = 0.5
_WINDOW = 20  # messages that may be unanswered, if the broker does not want fewer
# What no waiting mends: bad credentials, no rights, banned, bad identifier.
_REFUSALS = {
    "Bad user name or password",
    "Not authorized",
    "Banned",
    "Bad authentication method",
    "Client identifier not valid",
}


@dataclass(frozen=True)
class MqttServer:
    """An MQTT broker, how to log in, and the prefix under which we are available."""

    host: str
    port: int
    prefix: str
    user: str
    password: str = field(repr=False)
    tls: Tls | None
    qos: int
    protocol: int
    patience: Patience

    @classmethod
    def at(cls, address: Address, source: str, patience: Patience) -> MqttServer:
        """The server that an address names; `ConfigError` if it cannot be one."""
        options, is_secure = address.options, address.scheme == "mqtts"
        host, port = address.host_and_port(8883 if is_secure else 1883)
        prefix = named_after(address.path.strip("/") or "boxstream", source, UNFIT)
        if re.search(r"[+#\0]", prefix) or prefix.startswith("$"):
            raise ConfigError(f"out: {prefix!r} cannot be an MQTT topic; leave out + # $")
        return cls(
            host=host,
            port=port,
            prefix=prefix,
            user=address.user,
            password=address.password,
            tls=Tls.take(options) if is_secure else None,
            qos=options.number("qos", 1, 0, 1),
            protocol=options.number("protocol", 5, 3, 5),
            patience=patience,
        )

    @property
    def name(self) -> str:
        """As shown to the user."""
        scheme = "mqtts" if self.tls else "mqtt"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.prefix}"

    @property
    def availability_topic(self) -> str:
        """Where it says whether we are there."""
        return f"{self.prefix}/available"

    def without_secrets(self, text: str) -> str:
        """`text` without the password."""
        return text.replace(self.password, "***") if self.password else text

    def connect(self) -> MqttConnection:
        """Connect, log in, and be available."""
        try:
            return MqttConnection(self)
        except ConfigError as error:  # certificates that were there; they may be being renewed
            raise BrokerTrouble(str(error).removeprefix("out: ")) from error


class MqttConnection:
    """A connection to a broker; does its work inside of its methods only.

    A new client for each: a client that connects again would send again by itself what it had
    not got confirmed, beside our own count.
    """

    def __init__(self, server: MqttServer) -> None:
        self._patience, self._qos = server.patience, server.qos
        self._availability_topic = server.availability_topic
        self._waiting: dict[int, Message] = {}  # by the client's number for it
        self._confirm: Confirm = _ignore
        self._last_answer = 0.0
        self._ended: str | None = None
        self._welcome: ReasonCode | None = None
        self._largest: int | None = None  # bytes in a packet, if the broker sets a limit
        self._window = _WINDOW
        self._client = self._new_client(server)
        try:
            self._log_in(server)
            self.send([self._availability(ONLINE)], _insist)
        except BaseException:  # whatever it was, no half-open connection stays
            self._let_go()
            raise

    def send(self, messages: Sequence[Message], confirm: Confirm) -> None:
        """Publish all and wait until the broker has each one, or says that it will not."""
        self._confirm, self._last_answer = confirm, time.monotonic()
        for message in messages:
            if self._largest is not None and len(message.payload) + 256 > self._largest:
                confirm(message, Refusal("the broker takes no records of this size", lasts=False))
            else:
                self._wait_until_unanswered(self._window - 1)
                self._publish(message)
        self._wait_until_unanswered(0)
        self._turn(0.0)  # keep-alives are due even while all goes out without an answer

    def idle(self) -> None:
        """Answer and send keep-alives."""
        self._turn(0.0)

    def close(self) -> None:
        """Be unavailable, and say good-bye; a broken connection is just let go."""
        try:
            if self._ended is None:
                self._say_good_bye()
        except BrokerTrouble:
            pass  # then the last will speaks
        finally:
            self._let_go()

    def _new_client(self, server: MqttServer) -> paho.Client:
        version = MQTTProtocolVersion.MQTTv5 if server.protocol == 5 else _MQTT_3
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"boxstream-{secrets.token_hex(6)}",
            protocol=version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._patience.connect
        if server.user or server.password:
            client.username_pw_set(server.user, server.password or None)
        if server.tls is not None:
            client.tls_set_context(server.tls.context())
        client.will_set(self._availability_topic, OFFLINE, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _log_in(self, server: MqttServer) -> None:
        try:
            self._client.connect(server.host, server.port, keepalive=_KEEP_ALIVE_SECONDS)
        except (OSError, ValueError) as error:
            raise trouble_of(error) from error
        deadline = time.monotonic() + self._patience.connect
        while self._welcome is None and time.monotonic() < deadline:
            self._turn(deadline - time.monotonic())
        if self._welcome is None:
            raise BrokerTrouble(f"no answer for {self._patience.connect:g} s")
        if self._welcome.is_failure:
            raise self._refusal(self._welcome)

    def _publish(self, message: Message) -> None:
        qos = 1 if message.retain else self._qos
        info = self._client.publish(message.topic, message.payload, qos, message.retain)
        if info.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE}:
            raise self._broken(info.rc)
        if qos == 0 and info.is_published():
            self._confirm(message, None)  # on its way; more there is not to know
        else:
            self._waiting[info.mid] = message

    def _wait_until_unanswered(self, most: int, silence: float | None = None) -> None:
        """Wait until at most so many messages are unanswered; `silence` seconds are trouble."""
        silence = self._patience.answer if silence is None else silence
        while len(self._waiting) > most:
            left = self._last_answer + silence - time.monotonic()
            if left <= 0:
                self._ended = f"no answer for {silence:g} s"
                raise BrokerTrouble(self._ended)
            self._turn(left)

    def _turn(self, within: float) -> None:
        """Read and write what there is, waiting for at most `within` seconds."""
        code = self._client.loop(max(0.0, within))
        if self._ended is not None or code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            if self._welcome is not None and self._welcome.is_failure:
                raise self._refusal(self._welcome)
            raise self._broken(code)

    def _say_good_bye(self) -> None:
        self._confirm, self._last_answer = _ignore, time.monotonic()
        self._publish(self._availability(OFFLINE))
        self._wait_until_unanswered(0, _FAREWELL_SECONDS)
        self._client.disconnect()

    def _let_go(self) -> None:
        """Close the socket now, not when the collector comes by."""
        client = self._client
        client.on_connect = client.on_disconnect = client.on_publish = None
        sock = client.socket()
        if sock is not None:
            sock.close()

    def _availability(self, payload: bytes) -> Message:
        return Message(self._availability_topic, payload, key="", retain=True)

    def _broken(self, code: MQTTErrorCode) -> BrokerTrouble:
        self._ended = self._ended or paho.error_string(code)
        return BrokerTrouble(f"the connection broke: {self._ended}")

    def _refusal(self, reason: ReasonCode) -> BrokerTrouble:
        kind = BrokerRefuses if str(reason) in _REFUSALS else BrokerTrouble
        hint = "; try protocol=3" if str(reason) == "Unsupported protocol version" else ""
        return kind(f"the broker refuses us: {reason}{hint}")

    def _on_connect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._welcome = reason
        self._largest = getattr(properties, "MaximumPacketSize", None)
        self._window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._ended = str(reason)

    def _on_publish(
        self,
        client: paho.Client,
        userdata: object,
        number: int,
        reason: ReasonCode,
        properties: Properties,
    ) -> None:
        self._last_answer = time.monotonic()
        message = self._waiting.pop(number, None)
        if message is not None:
            self._confirm(message, _refusal_of(message, reason) if reason.is_failure else None)


def _refusal_of(message: Message, reason: ReasonCode) -> Refusal:
    """Rights do not come from one moment to the next; space and quota may."""
    lasts = str(reason) in {"Not authorized", "Topic name invalid"}
    return Refusal(f"writing to {message.topic} refused: {reason}", lasts)


def _insist(message: Message, refusal: Refusal | None) -> None:
    """Who may not even say that it is there has the wrong rights, or the wrong prefix."""
    if refusal is not None:
        raise BrokerRefuses(refusal.reason)


def _ignore(message: Message, refusal: Refusal | None) -> None:
    """For messages that nobody counts."""


_MQTT_3 = MQTTProtocolVersion.MQTTv311
UNFIT = r"[/+#\0]"  # for a level of a topic


def trouble_of(error: OSError | ValueError) -> BrokerTrouble:
    """What an error of a socket means: worth another try soon, or not."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerRefuses(f"the broker's certificate is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return BrokerTrouble(f"no TLS connection: {error.reason or error}")
    if isinstance(error, socket.gaierror):
        return BrokerTrouble("there is no host of this name")
    if isinstance(error, TimeoutError):
        return BrokerTrouble("no connection in time")
    return BrokerTrouble(f"no connection: {getattr(error, 'strerror', None) or error}")
