"""Keep damaged pictures, and what is built on them, from being taken for real ones."""

from __future__ import annotations

import time
from typing import Literal, Protocol

import av

_LONGEST_SECONDS = 5.0  # some streams renew their pictures bit by bit and send no keyframe


class Losses(Protocol):
    """Counts what is left out."""

    def drop(self, cause: str) -> None: ...
    def count(self, anomaly: str) -> None: ...


class Repair:
    """Decides about every decoded picture of a connection.

    Args:
        policy: ``skip`` leaves out damaged pictures and all that follow up to the next keyframe,
            because they are built on damage (for 5 s at most); ``flagged`` leaves out only those
            that the decoder itself calls damaged; ``keep`` counts them as ``damaged_picture``.
        losses: Where they are counted; those left out as ``corrupt``.
    """

    def __init__(self, policy: Literal["skip", "flagged", "keep"], losses: Losses) -> None:
        self._policy, self._losses = policy, losses
        self._damaged_at: float | None = None

    def lost_something(self) -> None:
        """A packet is missing or could not be decoded."""
        self._damaged_at = time.monotonic()

    def is_good(self, picture: av.VideoFrame) -> bool:
        """Whether a picture is to be delivered."""
        if picture.is_corrupt:
            self.lost_something()
            if self._policy == "keep":
                self._losses.count("damaged_picture")
                return True
        elif picture.key_frame or not self._is_built_on_damage():
            self._damaged_at = None
            return True
        self._losses.drop("corrupt")
        return False

    def _is_built_on_damage(self) -> bool:
        return (
            self._policy == "skip"
            and self._damaged_at is not None
            and time.monotonic() - self._damaged_at < _LONGEST_SECONDS
        )
