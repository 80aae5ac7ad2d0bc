"""A sink that only counts: to measure the line without its outputs."""

from __future__ import annotations

from typing import Any

from pipeline.frame import Result


class NullSink:
    """Count results and forget them; the name tells it from those of other sources."""

    wants_picture = False
    may_drop = False
    capacity = 4

    def __init__(self, name: str) -> None:
        self.name, self.frames = name, 0

    def __enter__(self) -> NullSink:
        return self

    def __exit__(self, *ended: object) -> None:
        pass  # there is nothing to finish

    def write(self, result: Result) -> None:
        """Count it."""
        self.frames += 1

    def report(self) -> dict[str, Any]:
        """Frames."""
        return {"frames": self.frames}
