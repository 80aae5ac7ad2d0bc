"""What is said on a terminal that cannot show it, is closed, or that nobody reads any more."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest
from rich.console import Console
from rich.progress import Progress

from pipeline.engines import EngineWatch
from pipeline.engines.contract import Images, Pending, Regions
from pipeline.errors import SinkError
from pipeline.terminal import Complaints, drawing, is_watched, logged_to, say
from tests.full_disk import full_stdout


@pytest.fixture
def unread() -> Iterator[IO[str]]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream


def test_what_is_said_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    say("日本 \udcff\n")
    assert capsys.readouterr().out == "日本 \\udcff\n"
    assert not is_watched()


def test_characters_that_a_terminal_cannot_show_are_written_as_stderr_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    say("für 日本\n")
    assert written.getvalue() == b"f\xfcr \\u65e5\\u672c\n"


def test_a_closed_terminal_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    say("hello")
    assert not is_watched()


def test_who_has_stopped_reading_fails_nothing_not_even_the_last_flush(
    monkeypatch: pytest.MonkeyPatch, unread: IO[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    say("hello")
    unread.flush()


def test_a_full_disk_is_an_error() -> None:
    with full_stdout(), pytest.raises(SinkError, match="cannot write to stdout: No space left"):
        say("hello")


def test_what_is_drawn_is_said_in_so_many_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with drawing(6) as console:
        console.print("hello you")
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out == "hello \nyou\n"


def test_complaints_that_nobody_reads_end_nothing(
    monkeypatch: pytest.MonkeyPatch, unread: IO[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", unread)
    console = Complaints()
    for _ in range(2):
        console.print("the camera is gone")
    unread.flush()


class Idle:
    """An engine that nobody asks."""

    def submit(self, images: Images, regions: Regions | None = None) -> Pending:
        raise NotImplementedError


@contextmanager
def alone_logged_to(console: Console) -> Iterator[None]:
    """As in a program of its own, where nobody has set up logging."""
    with pytest.MonkeyPatch.context() as patch:  # pytest's own handlers are there in a test only
        patch.setattr(logging.root, "handlers", [])
        patch.setattr(logging.root, "level", logging.WARNING)
        with logged_to(console):
            yield
        assert not logging.root.handlers


def told(console: Console) -> list[str]:
    """The lines that were printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_an_outage_and_its_end_are_told_each_with_its_time() -> None:
    console, now = Console(file=io.StringIO(), width=40), [0.0]
    watch = EngineWatch(Idle(), lambda: now[0])
    with alone_logged_to(console):
        with watch.waiting():
            now[0] = 12.0
            watch.update()
        watch.update()
        logging.getLogger("asyncio").info("of no interest to anybody")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    sentences = [re.sub(f"^{time}", "", line) for line in told(console) if re.match(time, line)]
    assert sentences == ["the engine has not answered for 12 s", "the engine answers again"]
    assert len(told(console)) == 2


def test_after_a_run_logging_is_as_it_was() -> None:
    console, own = Console(file=io.StringIO()), logging.getLogger("pipeline")
    before = own.level
    for _ in range(2):
        with alone_logged_to(console):
            own.info("once")
    own.info("a word too many")
    assert own.level == before
    assert len(told(console)) == 2


def test_who_has_set_up_logging_is_left_alone() -> None:
    console = Console(file=io.StringIO())
    assert logging.root.handlers, "pytest listens"
    with logged_to(console):
        logging.getLogger("pipeline").warning("told elsewhere")
    assert not told(console)


def test_a_line_of_the_log_is_no_markup_and_holds_no_secret() -> None:
    console = Console(file=io.StringIO(), width=40)
    with alone_logged_to(console):
        logging.getLogger("pipeline").warning("[red]rtsp://me:s3cret@cam/%s\nkey=k3y", "x" * 60)
    first, second = told(console)
    assert first.endswith(f"[red]rtsp://***@cam/{'x' * 60}") and second == "key=***"


def test_a_line_of_the_log_does_not_tear_the_bars() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=80)
    with alone_logged_to(console), Progress(console=console, auto_refresh=False) as bars:
        bars.add_task("street", total=100)
        bars.refresh()
        logging.getLogger("pipeline").warning("the disk is slow")
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in told(console)]
    (own,) = (line for line in lines if "the disk is slow" in line)
    assert own.endswith("the disk is slow") and "street" not in own
