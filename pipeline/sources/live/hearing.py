"""What FFmpeg says while it reads a camera: heard for one purpose, and never repeated.

Its log holds addresses with their passwords. But it is also the only place where FFmpeg tells that
packets of RTP are missing: the decoder does not notice when a piece is cut out of a picture.
"""

from __future__ import annotations

import re

import av

from pipeline.ffmpeg_log import SWITCH

_LOSSES = re.compile(r"RTP: missed \d+ packets|Frame num gap|Could not find ref with POC")


class Hearing:
    """Inside the block nothing that FFmpeg says on this thread gets to Python's log.

    Args:
        losses: Whether to listen for missing packets. FFmpeg's log is then switched on, for the
            whole program; where nobody has asked for it, what other threads say stays unheard.
    """

    def __init__(self, losses: bool) -> None:
        self._wants_losses = losses
        self._capture = av.logging.Capture(local=True)
        self._lines: list[tuple[int, str, str]] = []

    def __enter__(self) -> Hearing:
        self._lines = self._capture.__enter__()
        if self._wants_losses:
            SWITCH.on()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._wants_losses:
            SWITCH.off()
        self._capture.__exit__(None, None, None)

    def of_loss(self) -> bool:
        """Tell whether something was lost since the last call, or since the begin."""
        if not self._lines:
            return False
        lost = any(_LOSSES.search(message) for _, _, message in self._lines)
        self._lines.clear()
        return lost
