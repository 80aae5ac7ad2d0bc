"""What is said on the terminal, whether or not anybody listens."""

from __future__ import annotations

import os
import sys
from typing import IO

from rich.console import Console

from pipeline.errors import SinkError, reason


class Complaints(Console):
    """Writes to stderr; falls silent when nobody reads that any more, and the run goes on."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Instead of ending the program, as rich does."""
        self.quiet = True
        _drain(self.file)


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


def _drain(stream: IO[str]) -> None:
    """Have what is left in its buffer go nowhere, or Python would fail on it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
