"""Readers that hang where nobody can wake them, counted over the whole process.

A source that leaves does not wait for its reader; that would hang, too. If cameras that hang
could be added and removed without end, each would leave a thread behind. So beyond a bound no new
one is begun until others have gone.
"""

from __future__ import annotations

import threading

from pipeline.graph import Background

MOST_ABANDONED = 64


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
        """How many still hang."""
        with self._lock:
            self._threads = [thread for thread in self._threads if not thread.join(0.0)]
            return len(self._threads)

    @property
    def too_many(self) -> bool:
        """Whether the bound is reached."""
        return self.count >= self.most

    def add(self, thread: Background) -> None:
        """Count one more, until it ends."""
        with self._lock:
            self._threads.append(thread)


ABANDONED = Abandoned()
"""Of this process, whose threads they are, however many lines it runs."""
