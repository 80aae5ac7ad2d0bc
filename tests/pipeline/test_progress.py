"""What is shown of a run while it goes on."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from pipeline.bookkeeping import progress
from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.progress import ProgressView

# Each means something to who prints it: an end without a begin, a colour, a picture of a car.
ODD_NAMES = ("[/x]", "[red]door", "a:car:b", "[bold", "c\\[/]")


@dataclass
class Shown:
    """A source, as far as progress needs to know it."""

    name: str
    stats: SourceStats
    frame_count: int | None = None


@pytest.mark.parametrize("is_terminal", [True, False], ids=["bars", "lines"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_shown_as_it_is_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, is_terminal: bool
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_SECONDS", 0.0)
    console = Console(file=io.StringIO(), force_terminal=is_terminal, no_color=True, width=120)
    stats = SourceStats(name, live=True)
    stats.changed("BACKOFF", "refused", f"no {name} here")
    with ProgressView(console, quiet=False) as view:
        view.update([Shown(name, stats)])
    text = console.file.getvalue()
    assert f"{name}: backoff (refused: no {name} here)" in text
    assert text.count(name) >= 3, "in the news twice, and in a line or beside a bar"
