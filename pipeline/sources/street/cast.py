"""The cast of a drawn street: actors, and how each kind of them is made.

Every :class:`Actor` gives its place as a pure function of time, so that any frame can be drawn
without those before it. Lanes are rings: who falls behind comes back far ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pipeline.sources.street import buses, cars, lorries, people, riders
from pipeline.sources.street.layout import Layout
from pipeline.sources.street.pixel_classes import PIXEL_CLASSES, RIDER
from pipeline.sources.street.solids import Solid

PERSON, BICYCLE, CAR, MOTORCYCLE, BUS, TRUCK = range(6)
STREET_CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
PHASES = 10
"""Drawn steps of a walk or a turn of the pedals."""


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

    def pixel_kinds(self) -> npt.NDArray[np.uint8]:
        """Give the pixel class (256,) of each label in its sprite."""
        kinds = np.arange(256, dtype=np.uint8)
        for label, class_id in self.classes.items():
            kinds[label] = PIXEL_CLASSES.index(STREET_CLASSES[class_id])
            if class_id == PERSON and len(self.classes) > 1:
                kinds[label] = RIDER
        return kinds

    def step(self, seconds: float) -> int:
        """Give the step of its movement at that time."""
        return (self.start_step + math.floor(seconds * self.steps_per_second)) % PHASES

    def solid(self, step: int) -> Solid:
        """Give the model for a step, made once."""
        if step not in self.solids:
            self.solids[step] = self.make(step)
        return self.solids[step]


class Cast:
    """Gathers the actors of a street."""

    def __init__(self, layout: Layout, lit: float, rng: np.random.Generator) -> None:
        self.layout, self.lit, self.rng = layout, lit, rng
        self.actors: list[Actor] = []
        self.solids: dict[object, dict[int, Solid]] = {}
        self.busy = float(rng.uniform(0.5, 1.4))

    def seed(self) -> int:
        return int(self.rng.integers(1 << 31))

    def still(
        self,
        make: Callable[[np.random.Generator], Solid],
        x: float,
        start: float,
        length: float,
        heading: float = 0.0,
        flat: bool = False,
        model: int | None = None,
    ) -> None:
        """Add scenery that stands on the ground; those with one ``model`` look the same."""
        seed = self.seed() if model is None else model
        key = None if model is None else (model, heading)
        self.actors.append(
            Actor(
                {},
                lambda _: make(np.random.default_rng(seed)),
                lambda t, z: x,
                self.grounded(start, length),
                heading,
                flat=flat,
                model=key,
                solids=self.solids.setdefault(key, {}) if key else {},
            )
        )

    def grounded(self, start: float, length: float, own: float = 0.0) -> Callable[[float], float]:
        """Give z(seconds) of something that moves over the ground at ``own`` metres a second."""

        def place(seconds: float) -> float:
            ahead = start - self.layout.travelled(seconds) + own * seconds
            return (ahead + 12.0) % length - 12.0

        return place

    def vehicle(
        self,
        class_id: int,
        x: Callable[[float, float], float],
        z: Callable[[float], float],
        heading: float,
        parked: bool = False,
    ) -> None:
        seed, lit = self.seed(), 0.0 if parked else self.lit
        make = {CAR: cars.make_car, BUS: buses.make_bus, TRUCK: lorries.make_truck}[class_id]
        self.actors.append(
            Actor(
                {1: class_id},
                lambda _: make(np.random.default_rng(seed), lit),
                x,
                z,
                heading,
                exact=True,
            )
        )

    def two_wheeler(
        self,
        class_id: int,
        x: Callable[[float, float], float],
        z: Callable[[float], float],
        heading: float,
    ) -> None:
        look = people.draw_look(self.rng)
        paint, helmet = riders.draw_frame_paint(self.rng), riders.draw_frame_paint(self.rng)
        flag, upright, lit = bool(self.rng.random() < 0.4), float(self.rng.random()), self.lit

        def make(step: int) -> Solid:
            if class_id == MOTORCYCLE:
                return riders.make_motorcyclist(look, paint, helmet, flag, lit)
            return riders.make_cyclist(look, paint, 2 * math.pi * step / PHASES, upright)

        steps = 0.0 if class_id == MOTORCYCLE else 1.1 * PHASES
        self.actors.append(
            Actor(
                {1: class_id, 2: PERSON},
                make,
                x,
                z,
                heading,
                steps,
                start_step=int(self.rng.integers(PHASES)),
            )
        )

    def walker(
        self,
        x: Callable[[float, float], float],
        z: Callable[[float], float],
        heading: float,
        stride: float = 1.0,
    ) -> None:
        look = people.draw_look(self.rng)
        self.actors.append(
            Actor(
                {1: PERSON},
                lambda step: people.make_walker(look, 2 * math.pi * step / PHASES, stride),
                x,
                z,
                heading,
                0.95 * PHASES if stride else 0.0,
                start_step=int(self.rng.integers(PHASES)),
            )
        )

    def traffic_class(self) -> int:
        """Choose what drives in a lane."""
        weights = {"highway": (0.76, 0.03, 0.02, 0.19), "pole": (0.72, 0.08, 0.08, 0.12)}
        chances = weights.get(self.layout.kind, (0.62, 0.11, 0.11, 0.16))
        return (CAR, MOTORCYCLE, BUS, TRUCK)[int(self.rng.choice(4, p=chances))]

    def any_vehicle(
        self, x: Callable[[float, float], float], z: Callable[[float], float], heading: float
    ) -> None:
        class_id = self.traffic_class()
        if class_id == MOTORCYCLE:
            self.two_wheeler(class_id, x, z, heading)
        else:
            self.vehicle(class_id, x, z, heading)


def ring(start: float, speed: float, length: float, behind: float) -> Callable[[float], float]:
    """Give z(seconds) of something with that speed against the camera, on a ring."""

    def place(seconds: float) -> float:
        return (start + speed * seconds + behind) % length - behind

    return place


def mirrored(actor: Actor) -> Actor:
    """Give the actor on the other side of the camera's axis, for left-hand traffic."""
    own = actor.x
    return replace(actor, x=lambda t, z: -own(t, z), heading=-actor.heading)


def weave(
    middle: float, rng: np.random.Generator, size: float = 0.25
) -> Callable[[float, float], float]:
    """Give x(seconds, z) of who keeps to ``middle``, a little aside and not quite straight."""
    offset, rate, phase = rng.uniform(-size, size), rng.uniform(0.2, 0.6), rng.uniform(0, 6.3)
    return lambda t, z: middle + offset + 0.4 * size * math.sin(rate * t + phase)


def constant(x: float) -> Callable[[float, float], float]:
    """Give x(seconds, z) of what stands in one line along the road."""
    return lambda t, z: x


def standing(z: float) -> Callable[[float], float]:
    """Give z(seconds) of what keeps its distance to the camera."""
    return lambda seconds: z
