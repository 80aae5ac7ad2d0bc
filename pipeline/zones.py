"""Count the objects in areas of the picture, frame by frame.

An object is in a zone while one point of its box is: the middle of the lower edge, where it
stands on the ground, or the middle of the box. Nothing is tracked: these are occupancies, not
passages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.frame import Detections, Result
from pipeline.polygon import Point, Points, contains
from pipeline.settings import ZoneSettings


@dataclass(frozen=True)
class Zone:
    """An area of the picture.

    Attributes:
        name: What the user calls it.
        corners: x and y as shares of the picture's width and height, in order around the area.
        class_ids: What is counted, also when there is none; None: whatever is found.
        sources: Names of the sources whose pictures it lies in; none: all.
        anchor: The point of a box that must be inside.
    """

    name: str
    corners: tuple[Point, ...]
    class_ids: tuple[int, ...] | None = None
    sources: tuple[str, ...] = ()
    anchor: Literal["bottom", "centre"] = "bottom"

    def watches(self, source: str) -> bool:
        """Tell whether it lies in the pictures of that source."""
        return not self.sources or source in self.sources

    def holds(self, detections: Detections, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(N,) whether each object of a frame of that size is inside, whatever its class."""
        height, width = size_hw
        points = _anchors(detections, self.anchor) / (width, height)
        return contains(np.array(self.corners, np.float64), points)

    def count(
        self, detections: Detections, size_hw: tuple[int, int], class_names: Sequence[str]
    ) -> dict[str, int]:
        """Objects inside by the name of their class; 0 for a chosen class without any."""
        inside = detections.class_ids[self.holds(detections, size_hw)]
        counts = np.bincount(inside, minlength=len(class_names))
        chosen = np.flatnonzero(counts).tolist() if self.class_ids is None else self.class_ids
        return {class_names[i]: int(counts[i]) for i in chosen}


def zones_of(
    settings: Mapping[str, ZoneSettings],
    class_names: Sequence[str],
    sources: Iterable[str] | None = None,
) -> tuple[Zone, ...]:
    """The zones that the settings ask for.

    Args:
        settings: By name.
        class_names: The model's.
        sources: Names of all sources; None where more may come later, which leaves the names
            that zones give unchecked.

    Raises:
        ConfigError: A zone names a class that the model does not know, or a source that is not
            there; or the model knows no objects that could be counted.
    """
    if settings and not class_names:
        raise ConfigError(
            "zones: the model knows the classes of pixels only, and finds no objects to count; add "
            "one that does with --model, or take the zones away with --set zones={}"
        )
    return tuple(
        Zone(
            name,
            zone.polygon,
            _numbers(zone.classes, class_names, f"zones.{name}.classes") if zone.classes else None,
            _known(zone.sources, sources, f"zones.{name}.sources"),
            zone.anchor,
        )
        for name, zone in settings.items()
    )


def count_in_zones(
    results: Iterable[Result], zones: Sequence[Zone], class_names: Sequence[str]
) -> Iterator[Result]:
    """Add to every result what is in the zones of its source; without zones, pass it through."""
    for result in results:
        frame = result.frame
        counts = {
            zone.name: zone.count(result.detections, frame.size_hw, class_names)
            for zone in zones
            if zone.watches(frame.source)
        }
        yield replace(result, zones=counts) if zones else result


def _anchors(detections: Detections, anchor: str) -> Points:
    """(N, 2) the point of each box that decides, in pixels of the frame."""
    x1, y1, x2, y2 = detections.boxes.astype(np.float64).T
    return np.stack([(x1 + x2) / 2, y2 if anchor == "bottom" else (y1 + y2) / 2], axis=1)


def _numbers(names: Sequence[str], class_names: Sequence[str], at: str) -> tuple[int, ...]:
    return tuple(class_names.index(name) for name in _known(names, class_names, at))


def _known(names: Sequence[str], known: Iterable[str] | None, at: str) -> tuple[str, ...]:
    """The names without repetition; all of them must be `known`, unless that is None."""
    choices = None if known is None else list(known)
    for name in names:
        if choices is not None and name not in choices:
            near = get_close_matches(name, choices, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{at}: unknown {name!r}; {hint}known are {', '.join(choices)}")
    return tuple(dict.fromkeys(names))
