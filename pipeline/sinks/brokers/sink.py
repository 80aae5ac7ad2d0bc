"""What the sinks of all brokers have in common: records go into an outbox, and a courier calls."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import SinkError
from pipeline.frame import Result
from pipeline.sinks.brokers.contract import Server
from pipeline.sinks.brokers.courier import Courier, served
from pipeline.sinks.brokers.outbox import Message, Outbox
from pipeline.sinks.protocol import SinkTarget
from pipeline.sinks.records import record

SCHEMA = "boxstream.detections/1"


def detections_record(result: Result, class_names: Sequence[str]) -> dict[str, Any]:
    """What is told of a frame: `record`, its schema, when it arrived, and how long ago that was.

    Masks stay out: tens of kilobytes a frame are for files.
    """
    age = max(0.0, time.monotonic() - result.frame.arrival)
    arrival = datetime.fromtimestamp(time.time() - age, UTC)
    return {
        "schema": SCHEMA,
        "time": arrival.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "latency_ms": round(age * 1e3, 1),
        **record(result, class_names, with_masks=False),
    }


class BrokerSink:
    """Tell a broker of every frame, without ever waiting for it.

    Args:
        server: Where to; sinks with equal ones share a connection.
        target: The source that is told of.
        topic: Where its records go: an MQTT topic, a Redis stream or a Kafka topic.
        name: As shown to the user, different for every source.
        buffer: Records that are kept while the broker is away; then the oldest goes.
    """

    wants_picture = False
    may_drop = True
    capacity = 64

    def __init__(
        self, server: Server, target: SinkTarget, topic: str, name: str, buffer: int
    ) -> None:
        self.name, self.frames = name, 0
        self._server, self._target, self._topic = server, target, topic
        self._outbox = Outbox(buffer, self._freshen)
        self._courier: Courier | None = None
        self._state_at_end: str | None = None
        self._stack = ExitStack()

    def __enter__(self) -> BrokerSink:
        self._courier = self._stack.enter_context(served(self._server, self._outbox))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Deliver what is left, for a moment; what cannot be delivered is counted."""
        assert self._courier is not None
        self._farewell()
        self._stack.close()
        state = self._state()
        self._state_at_end = "CLOSED" if state == "RUNNING" else state
        if error is None:
            self._raise_fault(self._courier)

    def write(self, result: Result) -> None:
        """Leave one record for the courier; this never waits for the broker."""
        courier = self._courier
        assert courier is not None, "write() outside of the with block"
        self._raise_fault(courier)
        entry = detections_record(result, self._target.class_names)
        payload = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode()
        message = Message(self._topic, payload, key=result.frame.source)
        self._outbox.add(message, courier.drop_cause)
        self._show_more(result)
        courier.wake()
        self.frames += 1

    @property
    def dropped(self) -> dict[str, int]:
        """Records that the broker will never get, by cause."""
        return self._outbox.lost()

    def report(self) -> dict[str, Any]:
        """Frames that the broker confirmed; written, sent, dropped, waiting, reconnects, state."""
        counts = self._outbox.counts()
        courier = self._courier
        return {
            "frames": counts["sent"],
            **counts,
            "reconnects": courier.reconnects if courier else 0,
            "state": self._state_at_end or self._state(),
            "trouble": courier and (courier.refusal_of(self._topic) or courier.trouble),
        }

    def _state(self) -> str:
        if self._courier is None:
            return "READY"
        if self._courier.state == "RUNNING" and self._courier.refusal_of(self._topic):
            return "REFUSED"
        return self._courier.state

    def _raise_fault(self, courier: Courier) -> None:
        """A fault of this program will not mend by waiting."""
        if courier.error is not None:
            kind = type(courier.error).__name__
            raise SinkError(
                f"{self.name} failed with {kind}; please report this"
            ) from courier.error

    def _show_more(self, result: Result) -> None:
        """For sinks that tell more of a result than its record."""

    def _freshen(self) -> None:
        """Called about once a second while the sink is open, on the courier's thread."""

    def _farewell(self) -> None:
        """Called before the last flush."""
