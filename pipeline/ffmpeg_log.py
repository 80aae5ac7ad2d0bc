"""What FFmpeg says while one thing is done; its log is off at all other times."""

from __future__ import annotations

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
