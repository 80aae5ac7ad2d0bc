"""How far the run is: a live bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from pipeline.metrics import SourceStats

PLAIN_EVERY_SECONDS = 5.0


class Watched(Protocol):
    """A source, as far as progress needs to know it."""

    name: str
    frame_count: int | None
    stats: SourceStats


class ProgressView:
    """Show the frames done of each source; call `update` a few times a second.

    Args:
        sources: What to show, in order.
        console: Where to. A terminal gets bars; anything else a line every few seconds.
        quiet: Show nothing.
    """

    def __init__(self, sources: Sequence[Watched], console: Console, quiet: bool) -> None:
        self._sources = sources
        self._console = console
        self._quiet = quiet
        self._bars: Progress | None = None
        self._tasks: list[TaskID] = []
        self._last_plain = self._started = time.monotonic()

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal and not self._quiet:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[fps]:>7} fps"),
                TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._tasks = [
                self._bars.add_task(source.name, total=source.frame_count, fps="-")
                for source in self._sources
            ]
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()

    def update(self) -> None:
        """Bring the bars up to date, or print a line if it is time for one."""
        if self._quiet:
            return
        if self._bars:
            for source, task in zip(self._sources, self._tasks, strict=True):
                stats = source.stats
                self._bars.update(task, completed=stats.frames_inferred, fps=_fps(stats))
            self._bars.refresh()
        elif time.monotonic() - self._last_plain >= PLAIN_EVERY_SECONDS:
            self._last_plain = time.monotonic()
            self._console.print(self._plain(), highlight=False, soft_wrap=True)

    def _plain(self) -> str:
        done = (
            f"{source.name} {source.stats.frames_inferred}"
            f"{f'/{source.frame_count}' if source.frame_count else ''} frames"
            f" {_fps(source.stats)} fps"
            for source in self._sources
        )
        return f"{time.monotonic() - self._started:.0f} s: {'; '.join(done)}"


def _fps(stats: SourceStats) -> str:
    return "-" if stats.fps is None else f"{stats.fps:.1f}"
