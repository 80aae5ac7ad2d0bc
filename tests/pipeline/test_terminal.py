"""What is said on a terminal that cannot show it, is closed, or that nobody reads any more."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pipeline.errors import SinkError
from pipeline.terminal import Complaints, is_watched, say


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


def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SinkError, match="cannot write to stdout: No space left"):
            say("hello")


def test_complaints_that_nobody_reads_end_nothing(
    monkeypatch: pytest.MonkeyPatch, unread: IO[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", unread)
    console = Complaints()
    for _ in range(2):
        console.print("the camera is gone")
    unread.flush()
