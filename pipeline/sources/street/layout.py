"""Cross-sections of drawn streets: lanes, kerbs, walls, the camera's height and speed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LANE = 3.3


@dataclass(frozen=True)
class Layout:
    """Cross-section and speed of a street; metres right of the camera's lane, for right traffic."""

    kind: str
    """``city``, ``suburb``, ``highway``, ``junction`` or ``pole`` (a fixed camera high up)."""
    mirrored: bool
    """Left-hand traffic: everything is mirrored at the camera's lane."""
    speed: float
    """Of the camera, metres per second."""
    eye_height: float
    lanes: tuple[tuple[float, int], ...]
    """Middle of each lane and its direction (1 = ours, -1 = oncoming)."""
    road: tuple[float, float]
    """Left and right edge of the carriageway, parking lanes included."""
    parking: tuple[bool, bool]
    walk: float
    """Width of the pavement or verge on either side."""
    wall: tuple[float, float]
    """Where the houses (or hedges, or trees) stand, left and right."""
    median: tuple[float, float] | None
    crossing: float | None
    """Where a crossroad lies along the ground's loop (junction only)."""

    def travelled(self, seconds: float) -> float:
        """Give the camera's way in metres; it speeds up and slows down a little."""
        return self.speed * (seconds + 0.8 * math.sin(0.45 * seconds))


def draw_layout(rng: np.random.Generator) -> Layout:
    """Choose the kind of street and its measures."""
    kind = str(
        rng.choice(
            ["city", "suburb", "highway", "junction", "pole"], p=[0.4, 0.16, 0.16, 0.14, 0.14]
        )
    )
    own = int(rng.integers(1, 3)) if kind != "highway" else int(rng.integers(2, 5))
    if kind == "suburb":
        own = 1
    place = int(rng.integers(own))  # lanes of our direction to our right
    oncoming = own if kind in ("highway", "pole") else int(rng.integers(1, 3))
    wide_median = kind == "highway" or (kind in ("city", "pole") and rng.random() < 0.3)
    gap = float(rng.uniform(2.0, 7.0)) if wide_median else 0.15
    lanes = [((place - lane) * LANE, 1) for lane in range(own)]
    left = (place - own + 0.5) * LANE
    lanes += [(left - gap - (lane + 0.5) * LANE, -1) for lane in range(oncoming)]
    parking = (False, False)
    if kind in ("city", "suburb", "junction"):
        parking = (bool(rng.random() < 0.55), bool(rng.random() < 0.55))
    shoulder = 2.4 if kind == "highway" else 0.35
    road = (
        left - gap - oncoming * LANE - (2.2 if parking[0] else shoulder),
        (place + 0.5) * LANE + (2.2 if parking[1] else shoulder),
    )
    walk = float(rng.uniform(2.0, 4.5)) if kind != "highway" else float(rng.uniform(3.0, 9.0))
    yard = (
        float(rng.uniform(0.0, 1.0)) if kind in ("city", "junction") else float(rng.uniform(2, 7))
    )
    eye = float(rng.uniform(1.2, 1.7)) if rng.random() < 0.8 else float(rng.uniform(1.9, 2.7))
    speeds = {"city": (5.0, 13.0), "suburb": (7.0, 13.0), "highway": (21.0, 30.0)}
    if kind == "pole":
        eye = float(rng.uniform(4.5, 9.0))
    low, high = speeds.get(kind, (0.0, 0.0))
    return Layout(
        kind=kind,
        mirrored=bool(rng.random() < 0.3),
        speed=float(rng.uniform(low, high)),
        eye_height=eye,
        lanes=tuple(lanes),
        road=road,
        parking=parking,
        walk=walk,
        wall=(road[0] - walk - yard, road[1] + walk + yard),
        median=(left - gap, left) if wide_median else None,
        crossing=float(rng.uniform(14.0, 26.0)) if kind == "junction" else None,
    )


def bend_of(layout: Layout, rng: np.random.Generator) -> float:
    """Choose how much the road may curve, in 1/metres."""
    most = {"city": 0.0006, "suburb": 0.0012, "highway": 0.0005, "junction": 0.0, "pole": 0.0006}
    return most[layout.kind] * float(rng.uniform(0, 1)) * math.copysign(1, float(rng.normal()))
