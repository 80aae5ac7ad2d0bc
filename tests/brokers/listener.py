"""An MQTT listener of our own, as witness of what a broker really got."""

from __future__ import annotations

import json
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers.servers import PATIENT_SECONDS


class Listener:
    """Everything below a prefix, in order of arrival; inside of its ``with`` block."""

    def __init__(self, port: int, pattern: str = "bx/#", **login: str) -> None:
        self.heard: list[tuple[str, str, bool]] = []  # topic, payload, whether it was retained
        self._subscribed = threading.Event()
        self._pattern, self._port = pattern, port
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(login["user"], login["password"])
        self._client.on_connect = lambda client, *_: client.subscribe(self._pattern, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._hear

    def __enter__(self) -> Listener:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENT_SECONDS)
        return self

    def __exit__(self, *ended: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def said(self, topic: str) -> list[str]:
        """What was said there."""
        return [payload for where, payload, _ in list(self.heard) if where == topic]

    def records(self, source: str = "front") -> list[dict[str, Any]]:
        """The records of a source."""
        return [json.loads(text) for text in self.said(f"bx/{source}/detections")]

    def frames(self, source: str = "front") -> list[int]:
        """The numbers of the frames that it heard of."""
        return [entry["frame"] for entry in self.records(source)]

    def _hear(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload.decode(), message.retain))
