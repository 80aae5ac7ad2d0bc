"""What became of cameras, in sentences for the terminal or the journal: each thing once.

A camera that is down for a night tries again some thousand times; that it went down, and why, and
that it is back, is all that is worth a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.bookkeeping.metrics import Event, SourceStats
from pipeline.terminal import clock

_GOOD, _BAD = ("RUNNING", "ENDED", "PAUSED"), ("STALLED", "BACKOFF", "FAILED")


class News:
    """Remembers of each source what has been told.

    Args:
        trouble_only: Tell what goes wrong, and that it is over, and nothing else.
    """

    def __init__(self, trouble_only: bool = False) -> None:
        self._trouble_only = trouble_only
        self._heard: dict[str, Event] = {}
        self._told: dict[str, tuple[str, str | None]] = {}

    def of(self, stats: SourceStats) -> Iterator[str]:
        """The lines about a source that have not been told yet, oldest first."""
        if not stats.live:
            return
        for event in self._unheard(stats):
            is_bad = event.state in _BAD
            gist = ("down", event.cause) if is_bad else (event.state, None)
            before = self._told.get(stats.name)
            if before != gist and (is_bad or event.state in _GOOD):
                self._told[stats.name] = gist
                was_bad = before is not None and before[0] == "down"
                if is_bad or was_bad or not self._trouble_only:
                    yield _sentence(stats.name, event)

    def forget(self, name: str) -> None:
        """The source has left for good."""
        self._heard.pop(name, None)
        self._told.pop(name, None)

    def _unheard(self, stats: SourceStats) -> Sequence[Event]:
        events, last = stats.events, self._heard.get(stats.name)
        if not events:
            return ()
        self._heard[stats.name] = events[-1]
        places = [place for place, event in enumerate(events) if event is last]
        return events[places[0] + 1 :] if places else events


def _sentence(name: str, event: Event) -> str:
    why = ": ".join(part for part in (event.cause, event.detail) if part)
    return f"{clock(event.wall_time)} {name}: {event.state.lower()}{f' ({why})' if why else ''}"
