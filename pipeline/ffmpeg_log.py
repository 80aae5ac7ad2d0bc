"""What FFmpeg says while somebody listens; its log is off at all other times."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av
import av.logging


@contextmanager
def ffmpeg_log(level: int) -> Iterator[list[tuple[int, str, str]]]:
    """Level, origin and text of each message inside the block, from all threads.

    Args:
        level: How much is heard, such as `av.logging.ERROR`.
    """
    before = av.logging.get_level()
    with av.logging.Capture(local=False) as lines:
        av.logging.set_level(level)
        try:
            yield lines
        finally:
            av.logging.set_level(before)


def first_of(lines: list[tuple[int, str, str]]) -> str:
    """The first message, which tells the cause of the others; empty where nothing was said."""
    return " ".join(lines[0][2].split()).rstrip(".") if lines else ""


@contextmanager
def heard_on_this_thread() -> Iterator[list[tuple[int, str, str]]]:
    """The same for this thread alone, from warnings on, while others may be listening, too."""
    with av.logging.Capture(local=True) as lines:
        SWITCH.on()
        try:
            yield lines
        finally:
            SWITCH.off()


class Switch:
    """FFmpeg's log, switched on for as long as anybody listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._is_ours = False
        self._silence = logging.NullHandler()

    def on(self) -> None:
        """One more listens."""
        with self._lock:
            self._listeners += 1
            # Looked at every time, because others set the level, too.
            if av.logging.get_level() is None:
                self._is_ours = True
                log = logging.getLogger("libav")
                log.addHandler(self._silence)
                log.propagate = False
                av.logging.set_level(av.logging.WARNING)

    def off(self) -> None:
        """One less."""
        with self._lock:
            self._listeners -= 1
            if self._is_ours and not self._listeners:
                self._is_ours = False
                av.logging.set_level(None)
                log = logging.getLogger("libav")
                log.removeHandler(self._silence)
                log.propagate = True


SWITCH = Switch()
