"""What one sink wants delivered, and what became of it: every record has exactly one fate."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Message:
    """Something to deliver.

    Attributes:
        topic: An MQTT topic, a Redis stream or a Kafka topic.
        payload: What is delivered there.
        key: Name of the source; messages of one key keep their order.
        retain: It is the present value of its topic, which the broker keeps for later listeners.
    """

    topic: str
    payload: bytes
    key: str
    retain: bool = False


class Outbox:
    """Records that wait in order, and topics of which only the latest value matters.

    Records: ``written = sent + sum(dropped) + waiting`` at any moment. A broker that is away
    costs the oldest of them. A value takes the place of an earlier one that has not left yet,
    and leaves again when the connection is a new one. Any thread may call anything.

    Args:
        capacity: Most records that wait.
        freshen: Called about once a second by whoever delivers; may `show` something.
    """

    def __init__(self, capacity: int, freshen: Callable[[], None] = lambda: None) -> None:
        self.freshen = freshen
        self.written = 0
        self.sent = 0
        self.dropped: Counter[str] = Counter()
        self.last_written: float | None = None  # monotonic
        self.given_up = False  # the broker cannot be reached, and there is no time to wait
        self._capacity = capacity
        self._records: deque[Message] = deque()
        self._values: dict[str, Message] = {}
        self._stale: dict[str, None] = {}  # topics whose value has not left yet, in order
        self._under_way: dict[Message, None] = {}
        self._closed = False
        self._lock = threading.Lock()

    def add(self, record: Message, cause_if_full: str) -> None:
        """Put a record last; when all places are taken, the oldest is dropped."""
        with self._lock:
            self.written += 1
            self.last_written = time.monotonic()
            if self._closed:
                self.dropped["closed"] += 1
                return
            self._records.append(record)
            self._drop_surplus(cause_if_full)

    def show(self, value: Message) -> None:
        """Make it the value of its topic, unless it is that already and was not refused."""
        with self._lock:
            before = self._values.get(value.topic)
            if before is None or before.payload != value.payload:
                self._values[value.topic] = value
                self._stale[value.topic] = None

    def take(self, limit: int) -> list[Message]:
        """What to deliver next: all values that changed, and at most `limit` records."""
        with self._lock:
            if self._closed:
                return []
            taken = [self._values[topic] for topic in self._stale]
            self._stale.clear()
            taken += [self._records.popleft() for _ in range(min(limit, len(self._records)))]
            self._under_way.update(dict.fromkeys(taken))
            return taken

    def settle(self, message: Message, refused: bool) -> None:
        """The broker has it for certain, or will not have it."""
        with self._lock:
            if message not in self._under_way:
                return  # closed, and counted as dropped, in the meantime
            del self._under_way[message]
            if message.retain:
                if refused and self._values.get(message.topic) is message:
                    del self._values[message.topic]  # not told, so the same may be shown again
                return
            if refused:
                self.dropped["refused"] += 1
            else:
                self.sent += 1

    def put_back(self) -> set[str]:
        """The connection is gone: take back what was under way, and have all values told again.

        Returns:
            The topics of what was under way.
        """
        with self._lock:
            topics = {message.topic for message in self._under_way}
            records = [message for message in self._under_way if not message.retain]
            self._under_way.clear()
            self._records.extendleft(reversed(records))
            self._drop_surplus("broker_down")
            self._stale = dict.fromkeys(self._values)
            return topics

    def close(self) -> None:
        """Give up what has not been delivered, and count it."""
        with self._lock:
            self._closed = True
            left = len(self._records) + self._records_under_way()
            self.dropped += Counter({"unsent_at_end": left})  # leaves out a 0
            self._records.clear()
            self._under_way.clear()

    @property
    def has_mail(self) -> bool:
        """Whether there is something to `take`."""
        with self._lock:
            return bool(self._records or self._stale) and not self._closed

    @property
    def is_empty(self) -> bool:
        """Whether everything, values included, has been delivered or dropped."""
        with self._lock:
            return not (self._records or self._stale or self._under_way)

    def lost(self) -> dict[str, int]:
        """Records that were dropped, by cause."""
        with self._lock:
            return dict(self.dropped)

    def counts(self) -> dict[str, int | dict[str, int]]:
        """Written, sent, dropped by cause and waiting, all of the same moment."""
        with self._lock:
            return {
                "written": self.written,
                "sent": self.sent,
                "dropped": dict(self.dropped),
                "waiting": len(self._records) + self._records_under_way(),
            }

    def _records_under_way(self) -> int:
        return sum(not message.retain for message in self._under_way)

    def _drop_surplus(self, cause: str) -> None:
        while len(self._records) > self._capacity:
            self._records.popleft()
            self.dropped[cause] += 1
