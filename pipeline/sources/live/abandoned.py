"""Readers that hang where nobody can wake them, counted over the whole process.

A source that leaves does not wait for its reader; that would hang, too. If cameras that hang
could be added and removed without end, each would leave a thread behind. So beyond a bound no new
one is begun until others have gone.
"""

from __future__ import annotations

import threading
import time

from pipeline.graph import Background
from pipeline.sources.live.mailbox import Mailbox

MOST_ABANDONED = 64
_MOST_OF_ONE = 3


class Abandoned:
    """Threads of readers that nobody waits for any more.

    Args:
        most: From that many on, no further reader may be begun, but by a camera that has been
            connected before and of whose own readers none hangs: a living camera does not pay for
            dead ones. So there are never more than `most`, and one for each source that is there.
    """

    def __init__(self, most: int = MOST_ABANDONED) -> None:
        self.most = most
        self._threads: list[Background] = []
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many still hang, by a look at each."""
        with self._lock:
            self._threads = self._hanging()
            return len(self._threads)

    @property
    def too_many(self) -> bool:
        """Whether the bound is reached."""
        return self.count >= self.most

    def add(self, thread: Background) -> None:
        """Count one more, until it ends."""
        with self._lock:
            self._threads = [*self._hanging(), thread]

    def _hanging(self) -> list[Background]:
        return [thread for thread in self._threads if not thread.join(0.0)]


class Orphans:
    """The abandoned readers of one source.

    Args:
        abandoned: Counts them together with those of other sources.
    """

    def __init__(self, abandoned: Abandoned) -> None:
        self._abandoned = abandoned
        self._readers: list[tuple[Background, Mailbox]] = []

    @property
    def count(self) -> int:
        """How many there were when they were last looked at, by `join` or `are_still_too_many`."""
        return len(self._readers)

    def are_still_too_many(self) -> bool:
        """Look at each, and tell whether the source may not begin another reader."""
        self.join(0.0)
        return len(self._readers) >= _MOST_OF_ONE

    @property
    def one_is_going(self) -> bool:
        """Whether one of them has come back, and will be gone in a moment."""
        return any(box.end for _, box in self._readers)

    def add(self, thread: Background, box: Mailbox) -> None:
        """Wait for a reader no more, which fills that mailbox."""
        self._readers.append((thread, box))
        self._abandoned.add(thread)

    def join(self, patience: float) -> None:
        """Forget those that have gone, after waiting that many seconds for them."""
        deadline = time.monotonic() + patience
        self._readers = [
            (thread, box)
            for thread, box in self._readers
            if not thread.join(max(0.0, deadline - time.monotonic()))
        ]


ABANDONED = Abandoned()
"""Of this process, whose threads they are, however many lines it runs."""
