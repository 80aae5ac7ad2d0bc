"""Read back what `painting.py` painted, after coding, transport and decoding."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.sources import painted
from pipeline.sources.painted import Unreadable

__all__ = ["Painted", "Unreadable", "read_painted"]


@dataclass(frozen=True)
class Painted(painted.Painted):
    """As the program reads it; the clock is the camera's `time.monotonic()`."""

    @property
    def age_seconds(self) -> float:
        """How long ago the picture was painted."""
        return self.age_at(time.monotonic())


def read_painted(luma: npt.NDArray[np.uint8]) -> Painted:
    """Read the strip of a picture; see `pipeline.sources.painted.read_painted`."""
    found = painted.read_painted(luma)
    return Painted(found.number, found.clock_ms)
