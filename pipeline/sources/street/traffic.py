"""Who is on the drawn street: lanes, parked cars, walkers, cyclists, what stands by it."""

from __future__ import annotations

import math

import numpy as np

from pipeline.sources.street import scenery
from pipeline.sources.street.cast import (
    BICYCLE,
    CAR,
    TRUCK,
    Actor,
    Cast,
    constant,
    mirrored,
    ring,
    standing,
    weave,
)
from pipeline.sources.street.layout import Layout

_CROSS_LENGTH = 150.0  # metres of the crossroad's ring


def draw_actors(layout: Layout, lit: float, rng: np.random.Generator) -> list[Actor]:
    """Choose everything that moves or stands on a street; ``lit`` tells how bright lamps are."""
    cast = Cast(layout, lit, rng)
    _lanes(cast)
    if layout.kind != "highway":
        _parked(cast)
        _walkers(cast)
        _cyclists(cast)
    if layout.crossing is not None:
        _cross_traffic(cast, layout.crossing)
    _scenery(cast)
    if layout.mirrored:
        return [mirrored(actor) for actor in cast.actors]
    return cast.actors


def _lanes(cast: Cast) -> None:
    """Fill the lanes; a lane's speed is shared, so nobody drives through another."""
    layout, rng = cast.layout, cast.rng
    still = layout.kind in ("junction", "pole")
    for middle, direction in layout.lanes:
        if middle == 0.0 and direction == 1 and layout.kind != "pole":
            _leaders(cast)
            continue
        length = 190.0
        flow = layout.speed if not still else float(rng.uniform(6.0, 14.0))
        if layout.crossing is not None and direction == 1:
            _queue(cast, middle)
            continue
        speed = flow * (direction * float(rng.uniform(0.85, 1.15))) - layout.speed
        if direction == 1 and abs(speed) < 1.0:
            speed = math.copysign(1.5, speed)
        gap = float(rng.uniform(16, 45)) / cast.busy * (1.7 if layout.kind == "highway" else 1.0)
        place = float(rng.uniform(0, gap))
        while place < length - 16:
            cast.any_vehicle(
                weave(middle, rng),
                ring(place, speed, length, 16.0),
                0.0 if direction == 1 else math.pi,
            )
            place += 15.0 + gap * float(rng.uniform(0.3, 1.7))


def _leaders(cast: Cast) -> None:
    """Add those who drive ahead in our lane, at our mean speed."""
    rng, layout = cast.rng, cast.layout
    first = (10, 45) if layout.kind != "highway" else (18, 60)
    place = float(rng.uniform(*first))
    end = 110.0 if layout.crossing is None else layout.crossing - 4.0
    while place < end:
        sway, rate, phase = rng.uniform(0.5, 2.5), rng.uniform(0.1, 0.35), rng.uniform(0, 6.3)
        if layout.kind == "junction":
            sway = 0.0
        start = place + 4.0

        def z(
            t: float,
            start: float = start,
            sway: float = sway,
            rate: float = rate,
            phase: float = phase,
        ) -> float:
            return start + sway * math.sin(rate * t + phase)

        cast.any_vehicle(weave(0.0, rng), z, 0.0)
        place += float(rng.uniform(17, 60))


def _queue(cast: Cast, middle: float) -> None:
    """Add vehicles that wait beside us for the crossroad."""
    assert cast.layout.crossing is not None
    place = cast.layout.crossing - 8.0
    while place > 2.0:
        if cast.rng.random() < 0.6:
            cast.vehicle(CAR, weave(middle, cast.rng), standing(place), 0.0)
        place -= 6.5


def _parked(cast: Cast) -> None:
    rng, layout = cast.rng, cast.layout
    for side, there in enumerate(layout.parking):
        if not there:
            continue
        x = layout.road[0] + 1.15 if side == 0 else layout.road[1] - 1.15
        heading = math.pi if side == 0 and rng.random() < 0.8 else 0.0
        share = float(rng.uniform(0.25, 0.75))
        for slot in range(22):
            if rng.random() > share or _at_crossing(layout, slot * 7.0):
                continue
            kind = TRUCK if rng.random() < 0.06 else CAR
            z = cast.grounded(slot * 7.0 + float(rng.uniform(-0.6, 0.6)), 154.0)
            cast.vehicle(
                kind,
                constant(x + float(rng.uniform(-0.12, 0.12))),
                z,
                heading + float(rng.uniform(-0.03, 0.03)),
                parked=True,
            )


def _at_crossing(layout: Layout, z: float) -> bool:
    return layout.crossing is not None and abs(z - layout.crossing) < 9.0


def _walkers(cast: Cast) -> None:
    rng, layout = cast.rng, cast.layout
    crowd = {"city": 14, "junction": 14, "suburb": 5, "pole": 8}[layout.kind]
    for _ in range(int(rng.poisson(crowd * cast.busy))):
        side = 0 if rng.random() < 0.5 else 1
        edge = layout.road[side]
        off = float(rng.uniform(0.5, max(0.8, layout.walk - 0.4))) * (-1 if side == 0 else 1)
        ahead = bool(rng.random() < 0.5)
        stands = rng.random() < 0.15
        pace = 0.0 if stands else float(rng.uniform(0.9, 1.6)) * (1 if ahead else -1)
        heading = float(rng.uniform(-3.1, 3.1)) if stands else (0.0 if ahead else math.pi)
        z = cast.grounded(float(rng.uniform(0, 110)), 110.0, pace)
        cast.walker(weave(edge + off, rng, 0.2), z, heading, 0.0 if stands else 1.0)
    for _ in range(int(rng.poisson(2.2 * cast.busy))):
        _crosser(cast)


def _crosser(cast: Cast) -> None:
    """Add somebody who crosses the road: before us while we come, to and fro while we stand."""
    rng, layout = cast.rng, cast.layout
    left, right = layout.road[0] - 1.0, layout.road[1] + 1.0
    back = bool(rng.random() < 0.5)
    if back:
        left, right = right, left
    heading = math.copysign(math.pi / 2, right - left)
    if layout.speed > 0:
        far, near = float(rng.uniform(60, 95)), float(rng.uniform(9, 16))

        def along(t: float, z: float) -> float:
            share = min(1.0, max(0.0, (far - z) / (far - near)))
            return left + (right - left) * share

        cast.walker(along, cast.grounded(float(rng.uniform(0, 150)), 150.0), heading)
        return
    base = layout.crossing - 6.2 if layout.crossing else float(rng.uniform(10, 45))
    z0, phase = base + float(rng.uniform(-1.2, 1.2)), float(rng.uniform(0, 1))
    pace = float(rng.uniform(1.0, 1.6)) / abs(right - left)
    cast.walker(
        lambda t, z: left + (right - left) * ((phase + pace * t) % 1.0), lambda t: z0, heading
    )


def _cyclists(cast: Cast) -> None:
    rng, layout = cast.rng, cast.layout
    for _ in range(int(rng.poisson(2.4 * cast.busy))):
        ours = bool(rng.random() < 0.6)
        if ours:
            x = layout.road[1] - (2.75 if layout.parking[1] else 0.55)
        else:
            x = layout.road[0] + (2.75 if layout.parking[0] else 0.55)
        pace = float(rng.uniform(3.5, 6.0)) * (1 if ours else -1)
        z = cast.grounded(float(rng.uniform(0, 130)), 130.0, pace)
        cast.two_wheeler(BICYCLE, weave(x, rng, 0.15), z, 0.0 if ours else math.pi)


def _cross_traffic(cast: Cast, crossing: float) -> None:
    """Add the traffic of the crossroad, seen from the side."""
    rng = cast.rng
    for offset, direction in ((-1.7, 1), (1.7, -1)):
        pace = float(rng.uniform(4.0, 10.0)) * direction
        start = 0.0
        while start < _CROSS_LENGTH - 14:
            z0 = crossing + offset + float(rng.uniform(-0.2, 0.2))
            begin = start

            def across(t: float, z: float, begin: float = begin, pace: float = pace) -> float:
                return (begin + pace * t) % _CROSS_LENGTH - _CROSS_LENGTH / 2

            def ahead(t: float, z0: float = z0) -> float:
                return z0

            heading = math.copysign(math.pi / 2, direction)
            if rng.random() < 0.16:
                cast.two_wheeler(BICYCLE, across, ahead, heading)
            else:
                cast.any_vehicle(across, ahead, heading)
            start += float(rng.uniform(14, 38))


def _scenery(cast: Cast) -> None:
    rng, layout = cast.rng, cast.layout
    kerbs = (layout.road[0] - 0.45, layout.road[1] + 0.45)
    lamp_step = float(rng.uniform(24, 36))
    count = max(3, int(150 / lamp_step))
    lamp_seed = cast.seed()
    trees = rng.random() < 0.6 or layout.kind == "suburb"
    grove = [cast.seed() for _ in range(4)]
    for side, x in enumerate(kerbs):
        for post in range(count):
            if layout.kind == "highway" and rng.random() < 0.4:
                continue
            cast.still(
                lambda post_rng: scenery.make_lamp_post(post_rng, cast.lit),
                x,
                (post + 0.5 * side) * 150 / count,
                150.0,
                0.0 if side == 0 else math.pi,
                model=lamp_seed,
            )
        if trees:
            for slot in range(13):
                far = 0.5 if layout.kind != "highway" else float(rng.uniform(2, 8))
                seed = grove[int(rng.integers(4))]
                if rng.random() < 0.7 and not _at_crossing(layout, slot * 12.0):
                    cast.still(
                        scenery.make_tree,
                        x + (far if side else -far),
                        slot * 12.0,
                        156.0,
                        flat=True,
                        model=seed,
                    )
        for _ in range(int(rng.poisson(2.0))):
            cast.still(scenery.make_sign, x, float(rng.uniform(0, 150)), 150.0)
        if layout.kind in ("city", "junction"):
            for _ in range(int(rng.poisson(3.0))):
                cast.still(scenery.make_bollard, x, float(rng.uniform(0, 120)), 120.0)
    if layout.crossing is not None or (layout.kind == "city" and rng.random() < 0.4):
        z = (layout.crossing or 60.0) - 5.0
        cast.still(scenery.make_signal, kerbs[1], z, 150.0, math.pi * 0)
    if layout.median is not None:
        middle = sum(layout.median) / 2
        for slot in range(9):
            if rng.random() < 0.5:
                cast.still(
                    scenery.make_tree, middle, slot * 17.0, 153.0, flat=True, model=grove[slot % 3]
                )
