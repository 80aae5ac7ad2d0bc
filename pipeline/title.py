"""What every user of this machine can read about the line in a list of processes."""

from __future__ import annotations

from collections.abc import Sequence

from setproctitle import getthreadtitle, setproctitle, setthreadtitle

from pipeline.redaction import without_stream_key
from pipeline.sources.live.address import redacted


def hide_secrets(command_line: Sequence[str]) -> None:
    """Replace the process's command line where its URLs hold secrets.

    Until then it can be read; what must never be is written as ``$NAME``.

    Args:
        command_line: As the process was started.
    """
    shown = [without_stream_key(redacted(word)) for word in command_line]
    if shown != list(command_line):
        name = getthreadtitle()
        setproctitle(" ".join(shown))
        setthreadtitle(name)  # which would be the begin of the title now
