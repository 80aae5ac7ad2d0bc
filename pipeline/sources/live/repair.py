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
            that the decoder itself calls damaged; ``keep`` delivers all, and counts those that
            ``skip`` would leave out as ``damaged_picture``.
        losses: Where they are counted; those left out as ``corrupt``.
    """

    def __init__(self, policy: Literal["skip", "flagged", "keep"], losses: Losses) -> None:
        self._policy, self._losses = policy, losses
        self._damaged_at: float | None = None
        self._damaged_pts: int | None = None

    def lost_something(self, pts: int | None) -> None:
        """A packet is damaged, or one is missing before it or in it; `pts` is its timestamp."""
        self._damaged_at, self._damaged_pts = time.monotonic(), pts

    def is_good(self, picture: av.VideoFrame) -> bool:
        """Whether a picture is to be delivered."""
        if picture.is_corrupt:
            self.lost_something(picture.pts)
        if self._damaged_at is None or self._is_healed_by(picture):
            self._damaged_at = None
            return True
        if self._policy == "keep":
            self._losses.count("damaged_picture")
            return True
        if self._policy == "flagged" and not picture.is_corrupt:
            return True
        self._losses.drop("corrupt")
        return False

    def _is_healed_by(self, picture: av.VideoFrame) -> bool:
        """Whether damage ends with a picture: a keyframe of a later packet than the damaged one."""
        assert self._damaged_at is not None
        if picture.is_corrupt:
            return False
        if time.monotonic() - self._damaged_at >= _LONGEST_SECONDS:
            return True
        later = picture.pts is None or self._damaged_pts is None or picture.pts > self._damaged_pts
        return bool(picture.key_frame) and later
