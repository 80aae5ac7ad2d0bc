"""What the page and the API may ask of a running line, and ask it to do.

Every method may be called from any thread and returns soon: it hands the wish on and does not
wait for cameras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipeline.bookkeeping.metrics import SinkStats, SourceStats
from pipeline.errors import ConfigError


class UnknownSource(ConfigError, LookupError):
    """There is no source of that name; the API answers 404."""


class NameTaken(ConfigError):
    """Another source has that name, or had it just now; the API answers 409."""


class LineNotRunning(ConfigError):
    """There is nothing to act on, not yet or not any more; the API answers 503."""


class Control(Protocol):
    """A line, as far as the page and the API need to know it.

    What acts on it raises `LineNotRunning` before it runs, and after.
    """

    def sources(self) -> Sequence[SourceStats]:
        """Every source that is there, in the order in which they shall be shown."""
        ...

    def sinks(self) -> Sequence[SinkStats]:
        """What each source's outputs have done so far."""
        ...

    def add(self, url: str, name: str | None) -> str:
        """Start a source; return its name.

        Args:
            url: One of those that `pipeline.serve.requests.AddSource` lets through.
            name: What it shall be called; None: named after the URL, without its secrets.

        Raises:
            NameTaken: `name` is another source's, or of one that is still being removed.
            ConfigError: The URL cannot mean anything, there are too many sources, or it would
                write over the pictures of an earlier source of that name.
        """
        ...

    def remove(self, name: str) -> None:
        """End a source and forget it; `UnknownSource` when there is none."""
        ...

    def pause(self, name: str, paused: bool) -> None:
        """Disconnect a source until further notice, or go on; `UnknownSource`."""
        ...

    def set_threshold(self, value: float | None, by_class: Mapping[str, float]) -> None:
        """Choose what is shown from now on.

        Args:
            value: Lowest score; None: what the model file recommends.
            by_class: Lowest scores of single classes, which replace those that were set.

        Raises:
            ConfigError: The model knows no such class.
        """
        ...

    def source_thresholds(self, name: str) -> tuple[float | None, Mapping[str, float] | None]:
        """What a source has of its own, as in `set_source_threshold`; None: as the line."""
        ...

    def set_source_threshold(
        self, name: str, value: float | None, by_class: Mapping[str, float] | None
    ) -> None:
        """Choose what is shown of one source from now on.

        Args:
            name: Of the source.
            value: Lowest score; None: that of the line.
            by_class: Lowest scores of single classes instead of the line's; None: the line's.

        Raises:
            UnknownSource: There is none of that name.
            ConfigError: The model knows no such class.
        """
        ...

    def engine(self) -> Mapping[str, Any]:
        """Facts about the engine; nothing at all while it is being loaded.

        The page uses ``name``, ``precision``, ``model``, ``batch``, ``calls``,
        ``busy_seconds``, ``silent_seconds`` (how long an answer has been waited for; 0 while
        none is), ``class_names``, ``threshold`` (in force) and ``class_thresholds``.
        """
        ...

    def latency_budget(self) -> Mapping[str, Any] | None:
        """``budget_ms``, ``kept`` (share of the time), ``given_up`` now (one of
        `pipeline.governor.ladder`'s words) and ``seconds_given_up`` by what; None without one.
        """
        ...

    def readers_hanging(self) -> int:
        """How many connections were given up and do not end; at most
        `pipeline.sources.live.abandoned.MOST_ABANDONED` before no camera is added any more.
        """
        ...

    def queues(self) -> Mapping[str, float]:
        """Items that wait in each queue of the line, by the queue's name."""
        ...
