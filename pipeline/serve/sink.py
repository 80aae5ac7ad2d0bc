"""The sink that shows one source's results on the page."""

from __future__ import annotations

from typing import Any

from pipeline.frame import Result
from pipeline.serve.board import Board, Feed
from pipeline.sinks.protocol import SinkTarget


class PageSink:
    """Pin every result on the board; costs next to nothing while nobody watches.

    The last picture stays on the board when the source ends, until the source is removed.

    Args:
        board: Where the page looks.
        target: Whose results these are.
        name: Where they can be seen, for people; holds no token.
    """

    wants_picture = True
    may_drop = True
    capacity = 2

    def __init__(self, board: Board, target: SinkTarget, name: str) -> None:
        self.name = name
        self.frames = 0
        self._board, self._target = board, target
        self._feed: Feed | None = None

    def __enter__(self) -> PageSink:
        self._feed = self._board.open(self._target.name, self._target.class_names)
        return self

    def __exit__(self, *ended: object) -> None:
        self._feed = None

    def write(self, result: Result) -> None:
        """Show one result."""
        assert self._feed is not None, "write() outside of the with block"
        self._board.pin(self._feed, result)
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Where to look, and frames."""
        return {"url": self.name, "frames": self.frames}
