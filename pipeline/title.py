"""What every user of this machine can read about the line in a list of processes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from setproctitle import getthreadtitle, setproctitle, setthreadtitle

from pipeline.redaction import without_secrets, without_stream_key

_QUERY = re.compile(r"(?<!synthetic://street)\?.*", re.DOTALL)


def hide_secrets(command_line: Sequence[str]) -> None:
    """Replace the process's command line where its URLs hold secrets.

    Until then it can be read; what must never be is written as ``$NAME``.

    Args:
        command_line: As the process was started.
    """
    shown = [shown_word(word) for word in command_line]
    if shown != list(command_line):
        name = getthreadtitle()
        setproctitle(" ".join(shown))
        setthreadtitle(name)  # which would be the begin of the title now


def shown_word(word: str) -> str:
    """A word of the command line without what may be secret; of an address's query, nothing."""
    shown = without_stream_key(without_secrets(word))
    return _QUERY.sub("?***", shown) if ":/" in word else shown
