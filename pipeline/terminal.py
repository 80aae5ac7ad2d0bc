"""What is said on the terminal, whether or not anybody listens."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console

from pipeline.errors import SinkError, reason
from pipeline.redaction import without_secrets


class Complaints(Console):
    """Writes to stderr; falls silent when nobody reads that any more, and the run goes on."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Instead of ending the program, as rich does."""
        self.quiet = True
        _drain(self.file)


class _Log(logging.Handler):
    """Prints what is logged, each line as it is, above the bars if there are any."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record; who logs has redacted it, this is for what other packages log."""
        try:
            text = "\n".join(map(without_secrets, self.format(record).splitlines()))
            line = f"{clock(record.created)} {text}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)
        except (OSError, TypeError, ValueError):  # a full disk, or a record that does not fit
            self.handleError(record)


@contextmanager
def logged_to(console: Console) -> Iterator[None]:
    """Inside the block, what is logged is printed with its time.

    That is warnings, and of our own also what is less: that an outage is over, say. Where
    logging has been set up before, by a program that calls this one, all stays as it is.
    """
    root, own = logging.getLogger(), logging.getLogger("pipeline")
    if root.handlers:
        yield
        return
    before, log = own.level, _Log(console)
    own.setLevel(logging.INFO)
    root.addHandler(log)
    try:
        yield
    finally:
        root.removeHandler(log)
        own.setLevel(before)


def clock(wall_time: float) -> str:
    """Local time as lines begin with it; `wall_time` is in seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall_time))


def is_watched() -> bool:
    """Tell whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def say(text: str) -> None:
    """Write to stdout; if that is closed, or its reader has gone, nowhere.

    Characters that it cannot take are written as stderr does: ``\\u65e5``.

    Raises:
        SinkError: It cannot be written, because a disk is full, say.
    """
    out = sys.stdout
    if out is None:
        return
    encoding = out.encoding or "utf-8"
    try:
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()
    except OSError as error:
        _drain(out)
        if not isinstance(error, BrokenPipeError):
            raise SinkError(f"cannot write to stdout: {reason(error)}") from error


@contextmanager
def drawing(width: int) -> Iterator[Console]:
    """What is printed on this console is said at the end of the block.

    Args:
        width: Columns, where stdout is no terminal.

    Raises:
        SinkError: As `say`.
    """
    drawn, watched = io.StringIO(), is_watched()
    # Without a terminal rich goes by the environment.
    yield Console(file=drawn, force_terminal=watched or None, width=None if watched else width)
    say(drawn.getvalue())


def _drain(stream: IO[str]) -> None:
    """Have what is left in its buffer go nowhere, or Python would fail on it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
