"""How far the run is: a live bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
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

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.news import News

PLAIN_EVERY_SECONDS = 5.0
PLAIN_EVERY_SECONDS_LIVE = 60.0  # for months


class Watched(Protocol):
    """A source, as far as progress needs to know it."""

    name: str
    frame_count: int | None
    stats: SourceStats


class ProgressView:
    """Show the frames done of each source; call `update` a few times a second.

    Args:
        console: Where to. A terminal gets bars; anything else a line every few seconds.
        quiet: Show nothing but the trouble that cameras have.
    """

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_plain = self._started = time.monotonic()
        self._news = News(trouble_only=quiet)
        self._named: set[str] = set()

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal and not self._quiet:
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),  # a name is no markup
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[fps]:>7} fps"),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._bars:
            self._bars.stop()

    def update(self, sources: Sequence[Watched]) -> None:
        """Tell what is new, and bring the bars up to date or print a line if it is time for one."""
        for name in self._named - {source.name for source in sources}:
            self._news.forget(name)
        self._named = {source.name for source in sources}
        for line in (line for source in sources for line in self._news.of(source.stats)):
            self._console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)
        if self._quiet:
            return
        if self._bars:
            self._update_bars(self._bars, sources)
        elif time.monotonic() - self._last_plain >= self._pause(sources):
            self._last_plain = time.monotonic()
            plain = "; ".join(map(_plain, sources))
            self._console.print(
                f"{self._last_plain - self._started:.0f} s: {plain}",
                highlight=False,
                soft_wrap=True,
                markup=False,
                emoji=False,
            )

    def _pause(self, sources: Sequence[Watched]) -> float:
        """Seconds between two plain lines; more of them in a run that has no end."""
        is_endless = any(source.stats.live for source in sources)
        young = time.monotonic() - self._started < PLAIN_EVERY_SECONDS_LIVE
        return PLAIN_EVERY_SECONDS_LIVE if is_endless and not young else PLAIN_EVERY_SECONDS

    def _update_bars(self, bars: Progress, sources: Sequence[Watched]) -> None:
        for name in self._tasks.keys() - {source.name for source in sources}:
            bars.remove_task(self._tasks.pop(name))
        for source in sources:
            if source.name not in self._tasks:
                total = source.frame_count
                self._tasks[source.name] = bars.add_task(source.name, total=total, fps="", state="")
            bars.update(
                self._tasks[source.name],
                completed=source.stats.frames_inferred,
                fps=_fps(source.stats),
                state=_state(source.stats),
            )
        bars.refresh()


def _plain(source: Watched) -> str:
    stats, of_all = source.stats, f"/{source.frame_count}" if source.frame_count else ""
    done = f"{source.name} {stats.frames_inferred}{of_all} frames {_fps(stats)} fps"
    return f"{done} {_state(stats)}".rstrip()


def _state(stats: SourceStats) -> str:
    """Of a live source: what it is doing, how old its results are, and what was dropped."""
    if not stats.live:
        return ""
    latency, dropped = stats.latency.percentile_ms(50), stats.dropped
    age = f" {latency:.0f} ms" if latency is not None and stats.state == "RUNNING" else ""
    return f"{stats.state.lower()}{age}, {dropped} dropped"


def _fps(stats: SourceStats) -> str:
    fps = stats.recent_fps if stats.live else stats.fps
    return "-" if fps is None else f"{fps:.1f}"
