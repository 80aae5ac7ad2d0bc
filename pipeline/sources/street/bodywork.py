"""What the drawn vehicles share: paints, glass, wheels and lamps.

Measures are metres; a vehicle drives towards its own +z.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.sources.street.light import Colour, Vector
from pipeline.sources.street.solids import Lamp, Part, Piece

PAINTS: tuple[Colour, ...] = (
    (0.86, 0.87, 0.88), (0.80, 0.80, 0.78), (0.62, 0.64, 0.66), (0.48, 0.50, 0.52),
    (0.30, 0.31, 0.33), (0.10, 0.10, 0.11), (0.07, 0.07, 0.08), (0.10, 0.15, 0.30),
    (0.16, 0.28, 0.52), (0.55, 0.07, 0.07), (0.70, 0.10, 0.08), (0.12, 0.26, 0.18),
    (0.52, 0.46, 0.36), (0.30, 0.18, 0.12), (0.85, 0.62, 0.08), (0.75, 0.36, 0.06),
)  # fmt: skip  # a table
_PAINT_WEIGHTS = np.array([18, 5, 14, 9, 10, 12, 5, 6, 5, 4, 4, 2, 3, 2, 2, 1], float)
RUBBER: Colour = (0.045, 0.045, 0.05)
DARK: Colour = (0.07, 0.07, 0.075)
GLASS: Colour = (0.10, 0.12, 0.14)
SHINE: Colour = (0.30, 0.35, 0.40)
PAINT_GLOSS, GLASS_GLOSS = 0.55, 1.3
STEEL: Colour = (0.45, 0.46, 0.48)
TAIL: Colour = (0.62, 0.05, 0.04)
HEAD: Colour = (0.85, 0.87, 0.88)
PLATES: tuple[Colour, ...] = ((0.85, 0.85, 0.82), (0.85, 0.72, 0.15), (0.55, 0.65, 0.8))
Corner = tuple[float, float]
"""A point of a side view: forward, up."""


def jitter(colour: Colour, rng: np.random.Generator, spread: float = 0.04) -> Colour:
    r, g, b = (min(0.95, max(0.03, own + float(rng.uniform(-spread, spread)))) for own in colour)
    return r, g, b


def choose_paint(rng: np.random.Generator) -> Colour:
    """Choose a car paint as often as streets show it: mostly white, grey and black."""
    index = int(rng.choice(len(PAINTS), p=_PAINT_WEIGHTS / _PAINT_WEIGHTS.sum()))
    return jitter(PAINTS[index], rng, 0.03)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


def _inset(quad: Sequence[Vector], u0: float, u1: float, v0: float, v1: float) -> list[Vector]:
    """Cut a rectangle out of a quad by bilinear coordinates (u along 0-1, v along 0-3)."""
    a, b, c, d = quad

    def at(u: float, v: float) -> Vector:
        x, y, z = (
            (1 - v) * ((1 - u) * a[i] + u * b[i]) + v * ((1 - u) * d[i] + u * c[i])
            for i in range(3)
        )
        return x, y, z

    return [at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1)]


def pane(part: Part, quad: Sequence[Vector], u: Corner, v: Corner, tint: Colour) -> None:
    """Add glass that mirrors the sky to a quad, in a dark frame."""
    part.face(_inset(quad, u[0], u[1], v[0], v[1]), DARK)
    inner_u = (u[0] + 0.012, u[1] - 0.012)
    part.face(_inset(quad, *inner_u, v[0] + 0.03, v[1] - 0.03), tint, gloss=GLASS_GLOSS)
    middle = v[0] + 0.62 * (v[1] - v[0])
    part.face(
        _inset(quad, *inner_u, middle, v[1] - 0.03), mix(tint, SHINE, 0.22), gloss=GLASS_GLOSS
    )


def end_patch(
    part: Part, z: float, across: Corner, up: Corner, colour: Colour, emission: float = 0.0
) -> None:
    """Add a rectangle on a plane front (z beyond the part's middle) or rear."""
    (x0, x1), (y0, y1) = across, up
    points = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
    normal = (0.0, 0.0, 1.0 if z > part.centre[2] else -1.0)
    part.pieces.append(Piece(points, colour, normal, (), 1, emission))


def side_patch(
    part: Part, x: float, corners: Sequence[Corner], colour: Colour, emission: float = 0.0
) -> None:
    """Add a polygon, given as (z, y) corners, on both long sides at ``x`` and ``-x``."""
    for side in (-1.0, 1.0):
        points = [(side * x, y, z) for z, y in corners]
        part.pieces.append(Piece(points, colour, (side, 0.0, 0.0), (), 1, emission))


def _circle(z: float, y: float, radius: float) -> list[Corner]:
    angles = np.linspace(0, 2 * np.pi, 15)[:-1]
    return [(z + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]


def wheels(part: Part, places: Sequence[float], x: float, radius: float, rim: Colour) -> None:
    """Add the wheels seen from the side: dark arch, tyre, rim and hub."""
    for z in places:
        arch = [(a, max(y, radius * 0.55)) for a, y in _circle(z, radius * 1.08, radius * 1.22)]
        side_patch(part, x + 0.004, arch, DARK)
        side_patch(part, x + 0.008, _circle(z, radius, radius), RUBBER)
        side_patch(part, x + 0.012, _circle(z, radius, radius * 0.64), rim)
        side_patch(part, x + 0.014, _circle(z, radius, radius * 0.5), mix(rim, DARK, 0.45))
        side_patch(part, x + 0.016, _circle(z, radius, radius * 0.2), rim)


def tyres(part: Part, places: Sequence[float], x: float, radius: float, width: float) -> None:
    """Add the treads of the wheels as seen from the front or the rear, under the body."""
    for z in places:
        for side in (-1.0, 1.0):
            across = sorted((side * x, side * (x - width)))
            for end in (-radius * 0.4, radius * 0.4):
                middle = Part((0.0, radius, z))
                low = (0.08 * radius, radius * 1.1)
                end_patch(middle, z + end, (across[0], across[1]), low, RUBBER)
                part.pieces.extend(middle.pieces)


def corner_lamps(
    length: float, width: float, head_y: float, tail_y: float, lit: float
) -> list[Lamp]:
    """Give the four lamps of a vehicle, or none while they are off."""
    if lit <= 0.05:
        return []
    x = width - 0.22
    head, tail = 0.35 + 0.55 * lit, 0.10 + 0.22 * lit
    found = []
    for side in (-x, x):
        found.append(Lamp((side, head_y, length), (0, 0, 1), (1.0, 0.96, 0.86), head))
        found.append(Lamp((side, tail_y, -length), (0, 0, -1), (1.0, 0.12, 0.06), tail))
    return found
