"""What the courier and the connections to the brokers expect of each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.sinks.brokers.outbox import Message

State = Literal["CONNECTING", "RUNNING", "BACKOFF", "REFUSED", "CLOSED", "BROKEN"]


@dataclass(frozen=True)
class Refusal:
    """Why a broker will not have a message.

    Attributes:
        reason: In a sentence.
        lasts: Whether the next one for the same topic will be refused, too.
    """

    reason: str
    lasts: bool = True


Confirm = Callable[[Message, Refusal | None], None]


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds.

    Attributes:
        first_retry, longest_retry: Pauses between attempts grow from one to the other; who has
            been refused waits the longest at once, and so does a topic.
        stable: A connection that held for so long was a good one.
        connect: For a connection.
        answer: For any confirmation, while messages are under way.
        flush: For what is left at the end.
    """

    first_retry: float = 1.0
    longest_retry: float = 30.0
    stable: float = 10.0
    connect: float = 3.0
    answer: float = 5.0
    flush: float = 2.0


def next_pause(patience: Patience, failures: int, refused: bool) -> float:
    """Seconds until the next attempt; by chance up to a half less, so that not all come at once.

    >>> 0.5 <= next_pause(Patience(), failures=1, refused=False) <= 1.0
    True
    >>> 15.0 <= next_pause(Patience(), failures=1000, refused=False) <= 30.0
    True
    """
    doublings = 64 if refused else min(failures - 1, 64)
    longest = min(patience.longest_retry, patience.first_retry * 2.0**doublings)
    return longest * random.uniform(0.5, 1.0)


class BrokerTrouble(Exception):
    """The broker cannot be reached, or broke off; later it may go better."""

    state: State = "BACKOFF"


class BrokerRefuses(BrokerTrouble):
    """The broker does not want us: credentials, rights or certificates are wrong."""

    state: State = "REFUSED"


class Connection(Protocol):
    """An open connection; every method raises `BrokerTrouble` when it has gone."""

    def send(self, messages: Sequence[Message], confirm: Confirm) -> None:
        """Deliver all; call `confirm` for each with None, or with why it was refused."""
        ...

    def idle(self) -> None:
        """Called about once a second when there is nothing to send."""
        ...

    def close(self) -> None:
        """Say good-bye if possible, and let go; raises nothing."""
        ...


class Server(Protocol):
    """A broker, and how to log in there; sinks with equal ones share a connection."""

    @property
    def name(self) -> str:
        """As shown to the user; no secrets."""
        ...

    @property
    def patience(self) -> Patience: ...

    def __hash__(self) -> int: ...

    def connect(self) -> Connection:
        """Connect and log in; `BrokerTrouble` when that fails."""
        ...

    def without_secrets(self, text: str) -> str:
        """`text` with the secrets of this server made unreadable."""
        ...
