"""Who is on the drawn street, and where, at any time.

A :class:`Layout` says where lanes, kerbs and walls lie; every :class:`Actor` gives its place as a
pure function of time, so that any frame can be drawn without those before it. Lanes are rings: an
actor that falls behind comes back far ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.sources import street_people as people
from pipeline.sources import street_scenery as scenery
from pipeline.sources import street_vehicles as vehicles
from pipeline.sources.street_solids import Solid

PERSON, BICYCLE, CAR, MOTORCYCLE, BUS, TRUCK = range(6)
LANE = 3.3
PHASES = 10
"""Drawn steps of a walk or a turn of the pedals."""


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


@dataclass
class Actor:
    """Something drawn: where it is, how it looks, and which classes its objects have."""

    classes: dict[int, int]
    """Class of each object label in its sprite; empty for scenery."""
    make: Callable[[int], Solid]
    """Gives the model for a step of its movement (0 for what does not move in itself)."""
    x: Callable[[float, float], float]
    """Gives metres to the right from (seconds, own z)."""
    z: Callable[[float], float]
    """Gives metres ahead of the camera at a time in seconds."""
    heading: float = 0.0
    steps_per_second: float = 0.0
    exact: bool = False
    """Drawn anew in perspective when close, instead of from a stored sprite."""
    flat: bool = False
    """Looks the same from everywhere (trees)."""
    start_step: int = 0
    model: object = None
    """What actors that look the same share, so that their sprites are shared too."""
    solids: dict[int, Solid] = field(default_factory=dict)

    def step(self, seconds: float) -> int:
        """Give the step of its movement at that time."""
        return (self.start_step + math.floor(seconds * self.steps_per_second)) % PHASES

    def solid(self, step: int) -> Solid:
        """Give the model for a step, made once."""
        if step not in self.solids:
            self.solids[step] = self.make(step)
        return self.solids[step]


def draw_layout(rng: np.random.Generator) -> Layout:
    """Choose the kind of street and its measures."""
    kind = str(
        rng.choice(["city", "suburb", "highway", "junction", "pole"], p=[0.4, 0.16, 0.16, 0.14, 0.14])
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
    yard = float(rng.uniform(0.0, 1.0)) if kind in ("city", "junction") else float(rng.uniform(2, 7))
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


def ring(start: float, speed: float, length: float, behind: float) -> Callable[[float], float]:
    """Give z(seconds) of something with that speed against the camera, on a ring."""

    def place(seconds: float) -> float:
        return (start + speed * seconds + behind) % length - behind

    return place


class _Cast:
    """Gathers the actors of a street."""

    def __init__(self, layout: Layout, lit: float, rng: np.random.Generator) -> None:
        self.layout, self.lit, self.rng = layout, lit, rng
        self.actors: list[Actor] = []
        self.solids: dict[object, dict[int, Solid]] = {}
        self.busy = float(rng.uniform(0.5, 1.4))

    def seed(self) -> int:
        return int(self.rng.integers(1 << 31))

    def still(self, make: Callable[[np.random.Generator], Solid], x: float, start: float,
              length: float, heading: float = 0.0, flat: bool = False,
              model: int | None = None) -> None:
        """Add scenery that stands on the ground; those with one ``model`` look the same."""
        seed = self.seed() if model is None else model
        key = None if model is None else (model, heading)
        self.actors.append(
            Actor({}, lambda _: make(np.random.default_rng(seed)), lambda t, z: x,
                  self._grounded(start, length), heading, flat=flat, model=key,
                  solids=self.solids.setdefault(key, {}) if key else {})
        )

    def _grounded(self, start: float, length: float, own: float = 0.0) -> Callable[[float], float]:
        """Give z(seconds) of something that moves over the ground at ``own`` metres a second."""

        def place(seconds: float) -> float:
            ahead = start - self.layout.travelled(seconds) + own * seconds
            return (ahead + 12.0) % length - 12.0

        return place

    def vehicle(self, class_id: int, x: Callable[[float, float], float], z: Callable[[float], float],
                heading: float, parked: bool = False) -> None:
        seed, lit = self.seed(), 0.0 if parked else self.lit
        make = {CAR: vehicles.make_car, BUS: vehicles.make_bus, TRUCK: vehicles.make_truck}[class_id]
        self.actors.append(
            Actor({1: class_id}, lambda _: make(np.random.default_rng(seed), lit), x, z, heading,
                  exact=True)
        )

    def two_wheeler(self, class_id: int, x: Callable[[float, float], float],
                    z: Callable[[float], float], heading: float) -> None:
        look = people.draw_look(self.rng)
        paint, helmet = people.draw_frame_paint(self.rng), people.draw_frame_paint(self.rng)
        flag, upright, lit = bool(self.rng.random() < 0.4), float(self.rng.random()), self.lit

        def make(step: int) -> Solid:
            if class_id == MOTORCYCLE:
                return people.make_motorcyclist(look, paint, helmet, flag, lit)
            return people.make_cyclist(look, paint, 2 * math.pi * step / PHASES, upright)

        steps = 0.0 if class_id == MOTORCYCLE else 1.1 * PHASES
        self.actors.append(Actor({1: class_id, 2: PERSON}, make, x, z, heading, steps,
                                 start_step=int(self.rng.integers(PHASES))))

    def walker(self, x: Callable[[float, float], float], z: Callable[[float], float],
               heading: float, stride: float = 1.0) -> None:
        look = people.draw_look(self.rng)
        self.actors.append(
            Actor({1: PERSON},
                  lambda step: people.make_walker(look, 2 * math.pi * step / PHASES, stride),
                  x, z, heading, 0.95 * PHASES if stride else 0.0,
                  start_step=int(self.rng.integers(PHASES)))
        )

    def traffic_class(self) -> int:
        """Choose what drives in a lane."""
        weights = {"highway": (0.76, 0.03, 0.02, 0.19), "pole": (0.72, 0.08, 0.08, 0.12)}
        chances = weights.get(self.layout.kind, (0.62, 0.11, 0.11, 0.16))
        return (CAR, MOTORCYCLE, BUS, TRUCK)[int(self.rng.choice(4, p=chances))]

    def any_vehicle(self, x: Callable[[float, float], float], z: Callable[[float], float],
                    heading: float) -> None:
        class_id = self.traffic_class()
        if class_id == MOTORCYCLE:
            self.two_wheeler(class_id, x, z, heading)
        else:
            self.vehicle(class_id, x, z, heading)


def draw_actors(layout: Layout, lit: float, rng: np.random.Generator) -> list[Actor]:
    """Choose everything that moves or stands on a street; ``lit`` tells how bright lamps are."""
    cast = _Cast(layout, lit, rng)
    _lanes(cast)
    if layout.kind != "highway":
        _parked(cast)
        _walkers(cast)
        _cyclists(cast)
    if layout.crossing is not None:
        _cross_traffic(cast, layout.crossing)
    _scenery(cast)
    if layout.mirrored:
        return [_mirrored(actor) for actor in cast.actors]
    return cast.actors


def _mirrored(actor: Actor) -> Actor:
    own = actor.x
    return replace(actor, x=lambda t, z: -own(t, z), heading=-actor.heading)


def _weave(middle: float, rng: np.random.Generator, size: float = 0.25) -> Callable[[float, float], float]:
    offset, rate, phase = rng.uniform(-size, size), rng.uniform(0.2, 0.6), rng.uniform(0, 6.3)
    return lambda t, z: middle + offset + 0.4 * size * math.sin(rate * t + phase)


def _lanes(cast: _Cast) -> None:
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
            cast.any_vehicle(_weave(middle, rng), ring(place, speed, length, 16.0),
                             0.0 if direction == 1 else math.pi)  # fmt: skip
            place += 15.0 + gap * float(rng.uniform(0.3, 1.7))


def _leaders(cast: _Cast) -> None:
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

        def z(t: float, start: float = start, sway: float = sway, rate: float = rate,
              phase: float = phase) -> float:
            return start + sway * math.sin(rate * t + phase)

        cast.any_vehicle(_weave(0.0, rng), z, 0.0)
        place += float(rng.uniform(17, 60))


def _queue(cast: _Cast, middle: float) -> None:
    """Add vehicles that wait beside us for the crossroad."""
    assert cast.layout.crossing is not None
    place = cast.layout.crossing - 8.0
    while place > 2.0:
        if cast.rng.random() < 0.6:
            start = place
            cast.vehicle(CAR, _weave(middle, cast.rng), lambda t, start=start: start, 0.0)
        place -= 6.5


def _parked(cast: _Cast) -> None:
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
            z = cast._grounded(slot * 7.0 + float(rng.uniform(-0.6, 0.6)), 154.0)
            cast.vehicle(kind, _constant(x + float(rng.uniform(-0.12, 0.12))), z,
                         heading + float(rng.uniform(-0.03, 0.03)), parked=True)  # fmt: skip


def _at_crossing(layout: Layout, z: float) -> bool:
    return layout.crossing is not None and abs(z - layout.crossing) < 9.0


def _constant(x: float) -> Callable[[float, float], float]:
    return lambda t, z: x


def _walkers(cast: _Cast) -> None:
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
        z = cast._grounded(float(rng.uniform(0, 110)), 110.0, pace)
        cast.walker(_weave(edge + off, rng, 0.2), z, heading, 0.0 if stands else 1.0)
    for _ in range(int(rng.poisson(2.2 * cast.busy))):
        _crosser(cast)


def _crosser(cast: _Cast) -> None:
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

        cast.walker(along, cast._grounded(float(rng.uniform(0, 150)), 150.0), heading)
        return
    base = layout.crossing - 6.2 if layout.crossing else float(rng.uniform(10, 45))
    z0, phase = base + float(rng.uniform(-1.2, 1.2)), float(rng.uniform(0, 1))
    pace = float(rng.uniform(1.0, 1.6)) / abs(right - left)
    cast.walker(lambda t, z: left + (right - left) * ((phase + pace * t) % 1.0),
                lambda t: z0, heading)  # fmt: skip


def _cyclists(cast: _Cast) -> None:
    rng, layout = cast.rng, cast.layout
    for _ in range(int(rng.poisson(2.4 * cast.busy))):
        ours = bool(rng.random() < 0.6)
        if ours:
            x = layout.road[1] - (2.75 if layout.parking[1] else 0.55)
        else:
            x = layout.road[0] + (2.75 if layout.parking[0] else 0.55)
        pace = float(rng.uniform(3.5, 6.0)) * (1 if ours else -1)
        z = cast._grounded(float(rng.uniform(0, 130)), 130.0, pace)
        cast.two_wheeler(BICYCLE, _weave(x, rng, 0.15), z, 0.0 if ours else math.pi)


def _cross_traffic(cast: _Cast, crossing: float) -> None:
    """Add the traffic of the crossroad, seen from the side."""
    rng = cast.rng
    for offset, direction in ((-1.7, 1), (1.7, -1)):
        pace, length = float(rng.uniform(4.0, 10.0)) * direction, 150.0
        start = 0.0
        while start < length - 14:
            z0 = crossing + offset + float(rng.uniform(-0.2, 0.2))
            begin = start

            def across(t: float, z: float, begin: float = begin, pace: float = pace) -> float:
                return (begin + pace * t) % length - length / 2

            def ahead(t: float, z0: float = z0) -> float:
                return z0

            heading = math.copysign(math.pi / 2, direction)
            if rng.random() < 0.16:
                cast.two_wheeler(BICYCLE, across, ahead, heading)
            else:
                cast.any_vehicle(across, ahead, heading)
            start += float(rng.uniform(14, 38))


def _scenery(cast: _Cast) -> None:
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
                x, (post + 0.5 * side) * 150 / count, 150.0, 0.0 if side == 0 else math.pi,
                model=lamp_seed,
            )  # fmt: skip
        if trees:
            for slot in range(13):
                far = 0.5 if layout.kind != "highway" else float(rng.uniform(2, 8))
                seed = grove[int(rng.integers(4))]
                if rng.random() < 0.7 and not _at_crossing(layout, slot * 12.0):
                    cast.still(scenery.make_tree, x + (far if side else -far), slot * 12.0, 156.0,
                               flat=True, model=seed)  # fmt: skip
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
                cast.still(scenery.make_tree, middle, slot * 17.0, 153.0, flat=True,
                           model=grove[slot % 3])  # fmt: skip
