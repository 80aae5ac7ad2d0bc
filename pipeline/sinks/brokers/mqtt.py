"""MQTT: one JSON record a frame, and retained topics that need no parsing.

Below the prefix of the URL (default ``boxstream``):

===========================  ========  ===========================================================
topic                        retained  payload
===========================  ========  ===========================================================
``{source}/detections``      no        the record of a frame (see `pipeline.sinks.brokers`)
``{source}/{label}``         yes       how many of that class the last frame shows; on change only
``{source}/{zone}/{label}``  yes       likewise inside of each zone
``{source}/state``           yes       ``online``; ``offline`` after 5 s without a frame
``available``                yes       ``online``; ``offline`` by last will, whatever ended us
===========================  ========  ===========================================================

For Home Assistant, ``{source}/{label}`` is the ``state_topic`` of a sensor, and the last two its
``availability``. One prefix is for one process.

Options: ``qos`` (0 or 1, default 1), ``buffer`` (records kept during an outage, default 1000),
``protocol`` (5, or 3 for brokers that do not know MQTT 5; those cannot say what they refuse)
and for ``mqtts://`` ``ca``, ``cert``, ``key`` (files) and ``verify`` (yes or no).
"""

from __future__ import annotations

import re
import time
from collections import Counter

from pipeline.frame import Result
from pipeline.sinks.brokers.address import Address, named_after
from pipeline.sinks.brokers.contract import Patience
from pipeline.sinks.brokers.mqtt_server import OFFLINE, ONLINE, UNFIT, MqttServer
from pipeline.sinks.brokers.outbox import Message
from pipeline.sinks.brokers.sink import BrokerSink
from pipeline.sinks.protocol import SinkTarget

_SILENT_SECONDS = 5.0  # after which a source counts as offline


class MqttSink(BrokerSink):
    """Records, counts and states of one source; see above for the topics."""

    def __init__(self, server: MqttServer, target: SinkTarget, buffer: int) -> None:
        self._base = f"{server.prefix}/{named_after('{source}', target.name, UNFIT)}"
        name = server.name.removesuffix(server.prefix) + self._base
        super().__init__(server, target, f"{self._base}/detections", name, buffer)

    def _show_more(self, result: Result) -> None:
        counts = Counter(result.detections.class_ids.tolist())
        for class_id, label in enumerate(self._target.class_names):
            self._show(_level(label), str(counts[class_id]).encode())
        for zone, inside in (result.zones or {}).items():
            for label, count in inside.items():
                self._show(f"{_level(zone)}/{_level(label)}", str(count).encode())
        self._show("state", ONLINE)

    def _freshen(self) -> None:
        last = self._outbox.last_written
        if last is None or time.monotonic() - last > _SILENT_SECONDS:
            self._show("state", OFFLINE)

    def _farewell(self) -> None:
        self._show("state", OFFLINE)

    def _show(self, topic: str, payload: bytes) -> None:
        message = Message(f"{self._base}/{topic}", payload, self._target.name, retain=True)
        self._outbox.show(message)


def _level(name: str) -> str:
    """`name`, made fit for one level of a topic."""
    return re.sub(UNFIT, "_", name)


def mqtt_sink(address: Address, target: SinkTarget, patience: Patience) -> MqttSink:
    """The sink for ``mqtt://`` and ``mqtts://``."""
    server = MqttServer.at(address, target.name, patience)
    buffer = address.options.number("buffer", 1000, 1, 1_000_000)
    address.options.refuse_others()
    return MqttSink(server, target, buffer)
