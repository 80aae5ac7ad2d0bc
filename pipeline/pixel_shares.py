"""How much of a source's pictures each class of pixels takes."""

from __future__ import annotations

from collections.abc import Mapping


class PixelShares:
    """Mean shares of the picture by class, over the frames of a source."""

    def __init__(self) -> None:
        self.frames = 0
        self._sums: dict[str, float] = {}

    def add(self, shares: Mapping[str, float]) -> None:
        """Count one frame; `shares` of the classes that are in it."""
        self.frames += 1
        for name, share in shares.items():
            self._sums[name] = self._sums.get(name, 0.0) + share

    def mean(self) -> dict[str, float]:
        """By class, the largest first; classes that were never seen are left out."""
        sums = sorted(self._sums.copy().items(), key=lambda entry: -entry[1])
        return {name: total / self.frames for name, total in sums}
