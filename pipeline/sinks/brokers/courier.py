"""Carry messages to a broker on a thread of its own, through every outage.

The sinks of one broker share a `Courier`: one connection, however many cameras. A sink puts its
messages into its `Outbox` and goes on; whatever the broker does, or fails to do, happens on the
courier's thread only. What was under way when a connection broke is delivered again on the
next one, so a listener may see a record twice, but nothing is counted as sent that the broker
has not confirmed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from pipeline.graph import Background, background
from pipeline.sinks.brokers.contract import (
    BrokerRefuses,
    BrokerTrouble,
    Refusal,
    Server,
    State,
    next_pause,
)
from pipeline.sinks.brokers.outbox import Message, Outbox

log = logging.getLogger(__name__)

BATCH = 50  # records under way at once, over all outboxes
TICK_SECONDS = 1.0


class Courier:
    """Delivers the mail of its outboxes, in turn, until the last one has been detached.

    Attributes:
        state: What it is doing; after a failure that one, until a connection is there.
        trouble: What went wrong last; None when all is well.
        connections: Times that a connection was established.
        error: A fault of this program that ended the thread.
    """

    def __init__(self, server: Server) -> None:
        self.state: State = "CONNECTING"
        self.trouble: str | None = None
        self.connections = 0
        self.error: BaseException | None = None
        self._server, self._patience = server, server.patience
        self._outboxes: list[Outbox] = []
        self._closing: set[Outbox] = set()
        self._refused: dict[str, tuple[float, str]] = {}  # by topic: until when, and why
        self._suspects: set[str] = set()  # topics that the last connection may have broken over
        self._connected_at = 0.0
        self._failures = 0  # since a connection was last stable
        self._said: set[str] = set()  # troubles since then that are in the log
        self._changed = threading.Condition()
        self._thread: Background | None = None

    def attach(self, outbox: Outbox) -> None:
        """Deliver its mail from now on."""
        with self._changed:
            self._outboxes.append(outbox)
        if self._thread is None:
            self._thread = background(self._run, f"courier to {self._server.name}")

    def wake(self) -> None:
        """There is mail."""
        with self._changed:
            self._changed.notify_all()

    def flush(self, outbox: Outbox) -> None:
        """Wait until its mail has gone, or until there is no time or no hope left."""
        with self._changed:
            self._closing.add(outbox)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: outbox.is_empty or outbox.given_up or self.error is not None,
                timeout=self._patience.flush,
            )

    def detach(self, outbox: Outbox) -> bool:
        """Deliver nothing of it any more; tell whether it was the last one."""
        with self._changed:
            self._outboxes.remove(outbox)
            self._closing.discard(outbox)
            self._changed.notify_all()
            return not self._outboxes

    def join(self) -> None:
        """Wait a moment for the end of the thread; one that is stuck is abandoned."""
        if self._thread is not None:
            self._thread.join(self._patience.flush / 2)

    @property
    def reconnects(self) -> int:
        """Connections after the first one."""
        return max(0, self.connections - 1)

    @property
    def drop_cause(self) -> str:
        """Why there is no room in an outbox, if there is none."""
        return "broker_slow" if self.state == "RUNNING" else "broker_down"

    def refusal_of(self, topic: str) -> str | None:
        """Why the broker does not let us write there, if so."""
        _, reason = self._refused.get(topic, (0.0, None))
        return reason

    def _run(self) -> None:
        try:
            while self._outboxes:
                try:
                    self._serve()
                except BrokerTrouble as trouble:
                    self._failed(trouble)
                    self._pause(trouble)
            if self.state in {"CONNECTING", "RUNNING"}:
                self.state = "CLOSED"
        except BaseException as error:  # a fault of ours, which the sinks raise
            log.debug("%s: the courier broke", self._server.name, exc_info=True)
            with self._changed:
                self.error, self.state = error, "BROKEN"
                self._changed.notify_all()

    def _serve(self) -> None:
        """Deliver what there is for as long as the connection holds."""
        with closing(self._server.connect()) as connection:
            self.connections += 1
            self.state, self._connected_at = "RUNNING", time.monotonic()
            while self._outboxes:
                if letters := self._next_letters():
                    for messages in self._groups(letters):
                        connection.send(messages, partial(self._settle, letters))
                    self.wake()  # whoever flushes
                else:
                    connection.idle()
                    self._recovered()

    def _next_letters(self) -> dict[Message, Outbox]:
        """Wait a moment for mail; nobody's fills the batch while another's waits."""
        with self._changed:
            self._changed.wait_for(self._has_work, timeout=TICK_SECONDS)
            outboxes = list(self._outboxes)
        for outbox in outboxes:
            outbox.freshen()
        share = -(-BATCH // max(1, len(outboxes)))
        return {message: outbox for outbox in outboxes for message in outbox.take(share)}

    def _groups(self, letters: dict[Message, Outbox]) -> Iterator[list[Message]]:
        """What to send at once, in order, leaving out what the broker has just refused.

        Some brokers break the connection over what they refuse, and their answer may be lost
        with it if more was under way. So whatever was under way then is tried alone.
        """
        together: list[Message] = []
        for message, outbox in letters.items():
            if self._is_refused(message.topic):
                outbox.settle(message, refused=True)
            elif message.topic in self._suspects:
                yield from filter(None, (together, [message]))
                together = []
            else:
                together.append(message)
        yield from filter(None, (together,))

    def _is_refused(self, topic: str) -> bool:
        until, _ = self._refused.get(topic, (0.0, ""))
        return time.monotonic() < until

    def _has_work(self) -> bool:
        return not self._outboxes or any(outbox.has_mail for outbox in self._outboxes)

    def _settle(
        self, letters: dict[Message, Outbox], message: Message, refusal: Refusal | None
    ) -> None:
        letters[message].settle(message, refused=refusal is not None)
        self._suspects.discard(message.topic)
        if refusal is None:
            self._refused.pop(message.topic, None)
            self._recovered()
            return
        reason = self._tell(BrokerRefuses(refusal.reason))
        if refusal.lasts:
            until = time.monotonic() + self._patience.longest_retry
            self._refused[message.topic] = until, reason

    def _recovered(self) -> None:
        """The broker did something for us."""
        self.trouble = None
        if self._failures and time.monotonic() - self._connected_at >= self._patience.stable:
            log.info("%s: all is well again", self._server.name)
            self._failures = 0
            self._said.clear()

    def _failed(self, trouble: BrokerTrouble) -> None:
        self._failures += 1
        self._tell(trouble)
        with self._changed:
            self.state = trouble.state
            for outbox in self._outboxes:
                self._suspects |= outbox.put_back()
            for outbox in self._closing:
                outbox.given_up = True
            self._changed.notify_all()

    def _tell(self, trouble: BrokerTrouble) -> str:
        """Keep it for the report; log each kind of trouble once in an outage."""
        self.trouble = text = self._server.without_secrets(str(trouble))
        if text not in self._said:
            self._said.add(text)
            level = logging.ERROR if trouble.state == "REFUSED" else logging.WARNING
            log.log(level, "%s: %s; the run goes on", self._server.name, text)
        return text

    def _pause(self, trouble: BrokerTrouble) -> None:
        """Wait before the next attempt, but not when somebody has to leave."""
        pause = next_pause(self._patience, self._failures, trouble.state == "REFUSED")
        with self._changed:
            self._changed.wait_for(
                lambda: not self._outboxes or any(not box.given_up for box in self._closing),
                timeout=pause,
            )


# A connection is a thing of the whole process: sinks that were opened one after the other, for
# cameras that come and go, find each other here.
_couriers: dict[Server, Courier] = {}
_couriers_lock = threading.Lock()


@contextmanager
def served(server: Server, outbox: Outbox) -> Iterator[Courier]:
    """Yield the courier of `server` that delivers `outbox`; afterwards, flush and let it go."""
    with _couriers_lock:
        courier = _couriers.get(server)
        if courier is None or courier.error is not None:
            courier = _couriers[server] = Courier(server)
        courier.attach(outbox)
    try:
        yield courier
    finally:
        courier.flush(outbox)
        outbox.close()
        with _couriers_lock:
            was_last = courier.detach(outbox)
            if was_last and _couriers.get(server) is courier:
                del _couriers[server]
        if was_last:
            courier.join()
