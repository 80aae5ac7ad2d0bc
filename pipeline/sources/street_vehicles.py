"""Models of cars, trucks and buses, each a little different.

Measures are metres; a vehicle drives towards its own +z.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.sources.street_light import Colour, Vector
from pipeline.sources.street_solids import Lamp, Part, Piece, Solid

PAINTS: tuple[Colour, ...] = (
    (0.86, 0.87, 0.88), (0.80, 0.80, 0.78), (0.62, 0.64, 0.66), (0.48, 0.50, 0.52),
    (0.30, 0.31, 0.33), (0.10, 0.10, 0.11), (0.07, 0.07, 0.08), (0.10, 0.15, 0.30),
    (0.16, 0.28, 0.52), (0.55, 0.07, 0.07), (0.70, 0.10, 0.08), (0.12, 0.26, 0.18),
    (0.52, 0.46, 0.36), (0.30, 0.18, 0.12), (0.85, 0.62, 0.08), (0.75, 0.36, 0.06),
)  # fmt: skip
_PAINT_WEIGHTS = np.array([18, 5, 14, 9, 10, 12, 5, 6, 5, 4, 4, 2, 3, 2, 2, 1], float)
_RUBBER: Colour = (0.045, 0.045, 0.05)
_DARK: Colour = (0.07, 0.07, 0.075)
_GLASS: Colour = (0.10, 0.12, 0.14)
_SHINE: Colour = (0.30, 0.35, 0.40)
_PAINT_GLOSS, _GLASS_GLOSS = 0.55, 1.3
_STEEL: Colour = (0.45, 0.46, 0.48)
_TAIL: Colour = (0.62, 0.05, 0.04)
_HEAD: Colour = (0.85, 0.87, 0.88)
_PLATES: tuple[Colour, ...] = ((0.85, 0.85, 0.82), (0.85, 0.72, 0.15), (0.55, 0.65, 0.8))

Corner = tuple[float, float]
"""A point of a side view: forward, up."""


def _jitter(colour: Colour, rng: np.random.Generator, spread: float = 0.04) -> Colour:
    r, g, b = (min(0.95, max(0.03, own + float(rng.uniform(-spread, spread)))) for own in colour)
    return r, g, b


def choose_paint(rng: np.random.Generator) -> Colour:
    """Choose a car paint as often as streets show it: mostly white, grey and black."""
    index = int(rng.choice(len(PAINTS), p=_PAINT_WEIGHTS / _PAINT_WEIGHTS.sum()))
    return _jitter(PAINTS[index], rng, 0.03)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
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
        side_patch(part, x + 0.004, arch, _DARK)
        side_patch(part, x + 0.008, _circle(z, radius, radius), _RUBBER)
        side_patch(part, x + 0.012, _circle(z, radius, radius * 0.64), rim)
        side_patch(part, x + 0.014, _circle(z, radius, radius * 0.5), _mix(rim, _DARK, 0.45))
        side_patch(part, x + 0.016, _circle(z, radius, radius * 0.2), rim)


def tyres(part: Part, places: Sequence[float], x: float, radius: float, width: float) -> None:
    """Add the treads of the wheels as seen from the front or the rear, under the body."""
    for z in places:
        for side in (-1.0, 1.0):
            across = sorted((side * x, side * (x - width)))
            for end in (-radius * 0.4, radius * 0.4):
                middle = Part((0.0, radius, z))
                low = (0.08 * radius, radius * 1.1)
                end_patch(middle, z + end, (across[0], across[1]), low, _RUBBER)
                part.pieces.extend(middle.pieces)


def _lamps(length: float, width: float, head_y: float, tail_y: float, lit: float) -> list[Lamp]:
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


class _CarStyle:
    """Measures of a car body; ``kind`` is sedan, hatch, estate, suv, mpv or pickup."""

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        length, width, height, clearance = {
            "sedan": (4.65, 1.82, 1.44, 0.19), "hatch": (4.05, 1.76, 1.48, 0.18),
            "estate": (4.75, 1.83, 1.49, 0.18), "suv": (4.60, 1.90, 1.70, 0.24),
            "mpv": (4.75, 1.90, 1.78, 0.20), "pickup": (5.30, 1.90, 1.80, 0.28),
        }[kind]  # fmt: skip
        self.kind = kind
        self.length = length * float(rng.uniform(0.95, 1.05))
        self.width = width * float(rng.uniform(0.96, 1.03))
        self.height = height * float(rng.uniform(0.96, 1.05))
        self.clearance = clearance
        self.belt = self.height * float(rng.uniform(0.60, 0.65))
        self.hood = self.height * float(rng.uniform(0.52, 0.57))
        self.radius = {"suv": 0.37, "pickup": 0.39}.get(kind, 0.32) * float(rng.uniform(0.95, 1.06))

    def cabin(self) -> tuple[float, float, float, float]:
        """Give where rear glass foot, roof rear, roof front and windscreen foot lie (z)."""
        shares = {
            "sedan": (-0.36, -0.20, 0.09, 0.25), "hatch": (-0.49, -0.41, 0.08, 0.27),
            "estate": (-0.49, -0.43, 0.07, 0.25), "suv": (-0.49, -0.42, 0.08, 0.24),
            "mpv": (-0.495, -0.45, 0.14, 0.36), "pickup": (-0.10, -0.07, 0.15, 0.27),
        }[self.kind]  # fmt: skip
        a, b, c, d = (share * self.length for share in shares)
        return a, b, c, d


def make_car(rng: np.random.Generator, lit: float, kind: str | None = None) -> Solid:
    """Make a passenger car; ``lit`` in [0, 1] tells how bright its lamps are."""
    kinds = ["sedan", "hatch", "estate", "suv", "mpv"]
    kind = kind or str(rng.choice(kinds, p=[0.3, 0.26, 0.12, 0.22, 0.1]))
    style, paint = _CarStyle(rng, kind), choose_paint(rng)
    half, wide = style.length / 2, style.width / 2
    body = _car_body(style, paint, rng, lit)
    cabin = _car_cabin(style, paint, rng)
    solid = Solid([body, cabin], wide, half, style.height)
    solid.lamps = _lamps(half, wide, style.hood * 0.85, style.belt * 0.82, lit)
    return solid


def _stations(style: _CarStyle) -> list[tuple[float, float, float, float]]:
    """Give cross-sections from rear to front: z, height of the top, share of the width, underside."""
    half, belt, hood, low = style.length / 2, style.belt, style.hood, style.clearance
    rear_foot, _, _, front_foot = style.cabin()
    deck = belt - (0.03 if style.kind in ("sedan", "pickup") else 0.0)
    return [
        (-half, deck * 0.80, 0.80, low + 0.12), (-half + 0.05, deck * 0.93, 0.90, low + 0.03),
        (-half + 0.22, deck, 0.97, low), (max(rear_foot, -half + 0.3), belt, 1.0, low),
        (front_foot, belt, 1.0, low), ((front_foot + half) / 2, (belt + hood) / 2 + 0.02, 0.99, low),
        (half - 0.35, hood, 0.95, low), (half - 0.10, hood - 0.09, 0.86, low + 0.02),
        (half, hood - 0.24, 0.72, low + 0.08),
    ]  # fmt: skip


def _car_body(style: _CarStyle, paint: Colour, rng: np.random.Generator, lit: float) -> Part:
    half, wide, belt, low = style.length / 2, style.width / 2, style.belt, style.clearance
    # Its middle lies low, so that it is drawn before the cabin even under a raised eye.
    part = Part((0.0, belt * 0.35, 0.0))
    axles = (half * -0.59, half * 0.61)
    tyres(part, axles, wide - 0.03, style.radius, 0.21)
    stations = _stations(style)
    for (z0, y0, w0, u0), (z1, y1, w1, u1) in zip(stations, stations[1:], strict=False):
        a, b, low_paint = w0 * wide, w1 * wide, _mix(paint, _DARK, 0.06)
        for side in (-1.0, 1.0):
            # Three strips up the side: below the waist, the door, and the shoulder that leans in.
            for (lower, out_low), (upper, out_high), own in (
                ((0.0, 0.97), (0.45, 1.0), low_paint),
                ((0.45, 1.0), (0.80, 0.985), paint),
                ((0.80, 0.985), (1.0, 0.90), paint),
            ):
                part.face(
                    [(side * a * out_low, u0 + (y0 - u0) * lower, z0),
                     (side * b * out_low, u1 + (y1 - u1) * lower, z1),
                     (side * b * out_high, u1 + (y1 - u1) * upper, z1),
                     (side * a * out_high, u0 + (y0 - u0) * upper, z0)], own, gloss=_PAINT_GLOSS)  # fmt: skip
        part.face([(-a * 0.9, y0, z0), (a * 0.9, y0, z0), (b * 0.9, y1, z1), (-b * 0.9, y1, z1)],
                  paint, gloss=_PAINT_GLOSS)  # fmt: skip
    for z, y, w, u in (stations[0], stations[-1]):
        part.face([(-w * wide, u, z), (w * wide, u, z), (w * wide * 0.9, y, z), (-w * wide * 0.9, y, z)],
                  paint, gloss=_PAINT_GLOSS)  # fmt: skip
    sill = [(-half + 0.35, low), (half - 0.35, low), (half - 0.35, low + 0.09), (-half + 0.35, low + 0.09)]
    side_patch(part, wide * 0.99, sill, _DARK)
    _doors(part, style, paint)
    _car_rear(part, style, paint, rng, lit)
    _car_front(part, style, paint, rng, lit)
    rim = (0.62, 0.63, 0.65) if rng.random() < 0.75 else (0.2, 0.2, 0.21)
    wheels(part, axles, wide, style.radius, rim)
    return part


def _doors(part: Part, style: _CarStyle, paint: Colour) -> None:
    wide, belt = style.width / 2 + 0.003, style.belt
    gap = _mix(paint, _DARK, 0.65)
    _, roof_rear, roof_front, foot = style.cabin()
    middle = (roof_rear + roof_front) / 2
    for z in (middle - 0.03, foot - 0.12, roof_rear - 0.18):
        corners = [(z, belt - 0.03), (z, belt * 0.38), (z + 0.025, belt * 0.38), (z + 0.025, belt - 0.03)]
        side_patch(part, wide, corners, gap)
    for z in (middle + 0.1, roof_rear - 0.02):
        handle = [(z, belt * 0.86), (z + 0.2, belt * 0.86), (z + 0.2, belt * 0.9), (z, belt * 0.9)]
        side_patch(part, wide, handle, _mix(paint, _DARK, 0.5))


def _bumper(part: Part, style: _CarStyle, end: float, colour: Colour, up: Corner) -> None:
    """Add a bumper that wraps round the corners; ``end`` is -1 (rear) or 1."""
    wide, z = style.width / 2, end * (style.length / 2 + 0.015)
    inner = 0.80 if end < 0 else 0.74
    y0, y1 = up
    for points in (
        [(-inner, z), (inner, z)],
        [(inner, z), (0.985, z - end * 0.30)],
        [(-inner, z), (-0.985, z - end * 0.30)],
    ):
        (x0, z0), (x1, z1) = points
        part.face([(x0 * wide, y0, z0), (x1 * wide, y0, z1), (x1 * wide, y1, z1), (x0 * wide, y1, z0)],
                  colour, gloss=0.2)  # fmt: skip


def _corner_lamp(part: Part, style: _CarStyle, end: float, inner: float, up: Corner, colour: Colour,
                 emission: float) -> None:
    """Add a pair of lamps that reach from the end round the corner to the side."""
    wide, z = style.width / 2, end * (style.length / 2 + 0.012)
    knee, turn = (0.80, 0.24) if end < 0 else (0.73, 0.34)
    for side in (-1.0, 1.0):
        for (x0, z0), (x1, z1) in (
            ((inner, z), (knee, z)),
            ((knee, z), (0.975, z - end * turn)),
        ):
            points = [(side * x0 * wide, up[0], z0), (side * x1 * wide, up[0], z1),
                      (side * x1 * wide, up[1], z1), (side * x0 * wide, up[1], z0)]  # fmt: skip
            part.face(points, colour, gloss=0.4)
            part.pieces[-1].emission = emission


def _car_rear(part: Part, style: _CarStyle, paint: Colour, rng: np.random.Generator,
              lit: float) -> None:
    z, wide, belt = -style.length / 2 - 0.016, style.width / 2, style.belt
    low = style.clearance
    dark_bumper = rng.random() < 0.45
    _bumper(part, style, -1, _mix(paint, _DARK, 0.85), (low + 0.02, low + 0.16))
    if dark_bumper:
        _bumper(part, style, -1, _mix(paint, _DARK, 0.6), (low + 0.16, low + 0.36))
    else:
        _bumper(part, style, -1, _mix(paint, _DARK, 0.25), (low + 0.34, low + 0.37))
    tall = style.kind in ("suv", "mpv", "estate", "hatch", "pickup")
    y0, y1 = (0.60, 0.90) if tall else (0.64, 0.83)
    inner = float(rng.uniform(0.42, 0.66))
    glow = 0.35 + 0.65 * lit if lit > 0.05 else 0.2
    _corner_lamp(part, style, -1, inner, (belt * y0, belt * y1), _TAIL, glow)
    _corner_lamp(part, style, -1, inner + 0.05, (belt * (y0 + 0.03), belt * (y0 + 0.09)),
                 (0.72, 0.40, 0.30), glow * 0.5)  # fmt: skip
    plate = _PLATES[int(rng.choice(3, p=[0.7, 0.25, 0.05]))]
    at = belt * 0.64 if rng.random() < 0.6 else low + 0.2
    end_patch(part, z - 0.003, (-0.30, 0.30), (at - 0.03, at + 0.15), _mix(paint, _DARK, 0.5))
    end_patch(part, z - 0.004, (-0.26, 0.26), (at, at + 0.115), plate)
    end_patch(part, z - 0.004, (-0.06, 0.06), (belt * 0.86, belt * 0.92), _STEEL)
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.5, side * wide * 0.62))
        end_patch(part, z - 0.004, (x0, x1), (low, low + 0.05), (0.3, 0.3, 0.31))


def _car_front(part: Part, style: _CarStyle, paint: Colour, rng: np.random.Generator,
               lit: float) -> None:
    z, wide, low = style.length / 2 + 0.016, style.width / 2, style.clearance
    top = style.hood - 0.10
    _bumper(part, style, 1, _mix(paint, _DARK, 0.85), (low, low + 0.09))
    end_patch(part, z, (-wide * 0.6, wide * 0.6), (low + 0.06, low + 0.19), _DARK)
    tall = float(rng.uniform(0.12, 0.26))
    grille = _mix(_DARK, _STEEL, float(rng.uniform(0.0, 0.4)))
    end_patch(part, z, (-wide * 0.42, wide * 0.42), (top - tall - 0.04, top - 0.04), _STEEL)
    end_patch(part, z + 0.001, (-wide * 0.40, wide * 0.40), (top - tall - 0.02, top - 0.06), grille)
    end_patch(part, z + 0.002, (-0.06, 0.06), (top - 0.13, top - 0.06), _STEEL)
    glow = min(1.0, lit * 1.4) if lit > 0.05 else 0.1
    inner = float(rng.uniform(0.44, 0.52))
    _corner_lamp(part, style, 1, inner, (top - 0.17, top - 0.01), _mix(_HEAD, _DARK, 0.45), glow * 0.5)
    _corner_lamp(part, style, 1, inner + 0.05, (top - 0.14, top - 0.03), _HEAD, glow)
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.56, side * wide * 0.72))
        end_patch(part, z + 0.001, (x0, x1), (low + 0.08, low + 0.17), (0.3, 0.3, 0.3))
    plate = _PLATES[int(rng.choice(2, p=[0.8, 0.2]))]
    if rng.random() < 0.85:
        end_patch(part, z + 0.003, (-0.26, 0.26), (low + 0.13, low + 0.24), plate)


def _car_cabin(style: _CarStyle, paint: Colour, rng: np.random.Generator) -> Part:
    wide, belt, top = style.width / 2, style.belt - 0.02, style.height
    z0, z1, z2, z3 = style.cabin()
    foot, roof = wide * 0.92, wide * (0.80 if style.kind in ("mpv", "suv", "pickup") else 0.74)
    part = Part((0.0, belt + 0.25, 0.0))
    quads = [
        [(-foot, belt, z0), (foot, belt, z0), (roof, top - 0.03, z1), (-roof, top - 0.03, z1)],
        [(-roof, top - 0.03, z1), (roof, top - 0.03, z1), (roof, top, (z1 + z2) / 2), (-roof, top, (z1 + z2) / 2)],
        [(-roof, top, (z1 + z2) / 2), (roof, top, (z1 + z2) / 2), (roof, top - 0.02, z2), (-roof, top - 0.02, z2)],
        [(-roof, top - 0.02, z2), (roof, top - 0.02, z2), (foot, belt, z3), (-foot, belt, z3)],
    ]  # fmt: skip
    for quad in quads:
        part.face(quad, paint, gloss=_PAINT_GLOSS)
    tint = _mix(_GLASS, _SHINE, float(rng.uniform(0.0, 0.35)))
    # Quads run rear foot to roof and roof to front foot: v = 1 is the roof, then the foot.
    _pane(part, quads[0], (0.07, 0.93), (0.14, 0.90), tint)
    _pane(part, quads[3], (0.06, 0.94), (0.08, 0.94), tint)
    for side in (-1.0, 1.0):
        wall = [(side * foot, belt, z0), (side * foot, belt, z3), (side * roof, top - 0.03, z2),
                (side * roof, top - 0.03, z1)]  # fmt: skip
        part.face(wall, paint, gloss=_PAINT_GLOSS)
        for u0, u1 in ((0.05, 0.485), (0.52, 0.95)):
            _pane(part, wall, (u0, u1), (0.10, 0.86), tint)
    for side in (-1.0, 1.0):
        x = side * (wide + 0.10)
        mirror = Piece([(x, belt + 0.06, z3 - 0.25), (side * wide, belt + 0.03, z3 - 0.25)], paint,
                       None, (0.075, 0.04))  # fmt: skip
        part.pieces.insert(0, mirror)
    return part


def _pane(part: Part, quad: Sequence[Vector], u: Corner, v: Corner, tint: Colour) -> None:
    """Add glass that mirrors the sky to a quad, in a dark frame."""
    part.face(_inset(quad, u[0], u[1], v[0], v[1]), _DARK)
    inner_u = (u[0] + 0.012, u[1] - 0.012)
    part.face(_inset(quad, *inner_u, v[0] + 0.03, v[1] - 0.03), tint, gloss=_GLASS_GLOSS)
    middle = v[0] + 0.62 * (v[1] - v[0])
    part.face(_inset(quad, *inner_u, middle, v[1] - 0.03), _mix(tint, _SHINE, 0.22), gloss=_GLASS_GLOSS)


def make_pickup(rng: np.random.Generator, lit: float) -> Solid:
    """Make a pickup, which the bundled classes count as a truck."""
    solid = make_car(rng, lit, "pickup")
    style_length, wide = solid.half_length, solid.half_width
    belt = solid.height * 0.60
    bed = Part((0.0, belt * 0.55, -style_length * 0.6))
    floor = [(-wide * 0.85, belt + 0.02, -style_length + 0.1), (wide * 0.85, belt + 0.02, -style_length + 0.1),
             (wide * 0.85, belt + 0.02, -style_length * 0.22), (-wide * 0.85, belt + 0.02, -style_length * 0.22)]  # fmt: skip
    bed.face(floor, _DARK)
    solid.parts.insert(1, bed)
    return solid


def make_truck(rng: np.random.Generator, lit: float) -> Solid:
    """Make a truck: pickup, box truck, tipper, flatbed with load, or articulated lorry."""
    kind = str(rng.choice(["pickup", "box", "tipper", "flat", "lorry"], p=[0.2, 0.34, 0.14, 0.1, 0.22]))
    if kind == "pickup":
        return make_pickup(rng, lit)
    wide = float(rng.uniform(1.05, 1.26))
    length = {"box": 7.2, "tipper": 7.4, "flat": 8.0, "lorry": 13.5}[kind] * float(rng.uniform(0.85, 1.1))
    half = length / 2
    cab_long = float(rng.uniform(1.7, 2.2))
    cab_high = float(rng.uniform(2.4, 2.9)) if kind != "lorry" else float(rng.uniform(3.1, 3.6))
    paint = _jitter(PAINTS[int(rng.integers(len(PAINTS)))], rng)
    cab = _truck_cab(half, cab_long, wide, cab_high, paint, rng, lit)
    split = half - cab_long - (0.7 if kind == "lorry" else 0.15)
    chassis = _chassis(half, split, wide, kind)
    load, top = _truck_load(kind, half, split, wide, rng)
    _truck_rear(load, -half, wide, lit)
    solid = Solid([chassis, cab, load], wide, half, max(cab_high, top))
    solid.lamps = _lamps(half, wide, 0.8, 0.85, lit)
    return solid


def _chassis(half: float, split: float, wide: float, kind: str) -> Part:
    # Its middle lies low and at the ground's centre: it is drawn before what it carries.
    part = Part((0.0, -2.0, 0.0))
    frame = Part((0.0, 0.7, 0.0))
    radius = 0.5
    rear = [-half + 1.5, -half + 2.75] if kind != "flat" else [-half + 1.6]
    if kind == "lorry":
        rear.append(split - 0.4)
    tyres(part, [*rear, half - 1.25], wide - 0.02, radius, 0.5)
    frame.box((-wide * 0.92, 0.5, -half + 0.05), (wide * 0.92, 1.0, half - 1.0), (0.11, 0.11, 0.12))
    part.pieces.extend(frame.pieces)
    guard = [(-half + 3.4, 0.55), (split - 1.0, 0.55), (split - 1.0, 0.95), (-half + 3.4, 0.95)]
    if split - 1.0 > -half + 3.6:
        side_patch(part, wide * 0.97, guard, (0.3, 0.31, 0.32))
    wheels(part, [*rear, half - 1.25], wide * 0.985, radius, (0.55, 0.55, 0.56))
    return part


def _truck_cab(half: float, long: float, wide: float, high: float, paint: Colour,
               rng: np.random.Generator, lit: float) -> Part:
    rear, slope = half - long, float(rng.uniform(0.05, 0.35))
    part = Part((0.0, 1.4, half - long / 2))
    w = wide * 0.96
    belt = 0.52 * high
    part.box((-w, 0.45, rear), (w, belt, half), paint, gloss=0.35)
    upper = [(rear, belt), (half, belt), (half - slope, high), (rear + 0.05, high)]
    for side in (-1.0, 1.0):
        wall = [(side * w, belt, rear), (side * w, belt, half), (side * w * 0.95, high, half - slope),
                (side * w * 0.95, high, rear + 0.05)]  # fmt: skip
        part.face(wall, paint)
        _pane(part, wall, (0.42, 0.94), (0.08, 0.66), _GLASS)
    roof = [(-w * 0.95, high, upper[3][0]), (w * 0.95, high, upper[3][0]),
            (w * 0.95, high, upper[2][0]), (-w * 0.95, high, upper[2][0])]  # fmt: skip
    part.face(roof, paint)
    back = [(-w, belt, rear), (w, belt, rear), (w * 0.95, high, rear + 0.05), (-w * 0.95, high, rear + 0.05)]
    part.face(back, paint)
    front = [(-w, belt, half), (w, belt, half), (w * 0.95, high, half - slope), (-w * 0.95, high, half - slope)]
    part.face(front, paint)
    _pane(part, front, (0.05, 0.95), (0.06, 0.72), _mix(_GLASS, _SHINE, 0.2))
    z = half + 0.005
    end_patch(part, z, (-w * 0.62, w * 0.62), (0.75, belt * 0.92), _mix(_DARK, paint, 0.15))
    for row in range(3):
        y = 0.85 + row * 0.16
        end_patch(part, z + 0.002, (-w * 0.58, w * 0.58), (y, y + 0.04), _STEEL)
    end_patch(part, z, (-w, w), (0.35, 0.72), _mix(_DARK, _STEEL, 0.3))
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * w * 0.66, side * w * 0.96))
        end_patch(part, z + 0.003, (x0, x1), (0.6, 0.85), _HEAD, min(1.0, lit * 1.4) if lit > 0.05 else 0.1)
        part.pieces.append(Piece([(side * (w + 0.2), belt + 0.1, half - 0.1), (side * (w + 0.2), belt + 0.6, half - 0.1)],
                                 _DARK, None, (0.07, 0.07)))  # fmt: skip
    end_patch(part, z + 0.004, (-0.26, 0.26), (0.42, 0.54), _PLATES[0])
    door = [(rear + 0.12, 0.6), (rear + 0.15, 0.6), (rear + 0.15, belt), (rear + 0.12, belt)]
    side_patch(part, w + 0.003, door, _mix(paint, _DARK, 0.6))
    step = [(half - long * 0.95, 0.4), (half - 0.1, 0.4), (half - 0.1, 0.6), (half - long * 0.95, 0.6)]
    side_patch(part, w + 0.003, step, _DARK)
    return part


def _truck_load(kind: str, half: float, split: float, wide: float,
                rng: np.random.Generator) -> tuple[Part, float]:
    """Give what stands on the chassis, and its height."""
    part = Part((0.0, 1.6, (split - half) / 2))
    if kind in ("box", "lorry"):
        top = float(rng.uniform(2.9, 3.6)) if kind == "box" else float(rng.uniform(3.6, 4.0))
        light = rng.random() < 0.6
        paint = _jitter((0.85, 0.85, 0.83), rng) if light else _jitter(PAINTS[int(rng.integers(8, 16))], rng, 0.1)
        part.box((-wide, 0.95, -half), (wide, top, split), paint, gloss=0.25)
        second = PAINTS[int(rng.integers(len(PAINTS)))]
        if rng.random() < 0.7:
            y0, y1 = 0.95 + (top - 0.95) * float(rng.uniform(0.05, 0.5)), top - float(rng.uniform(0.1, 0.5))
            z0, z1 = (split - half) / 2 - float(rng.uniform(0.5, 2.5)), (split - half) / 2 + float(rng.uniform(0.5, 2.0))
            z0, z1 = max(-half + 0.2, z0), min(split - 0.2, z1)
            side_patch(part, wide + 0.003, [(z0, y0), (z1, y0), (z1, y1), (z0, y1)], second)
        for y in (0.98, top - 0.1):
            side_patch(part, wide + 0.004, [(-half, y), (split, y), (split, y + 0.07), (-half, y + 0.07)], _STEEL)
        end_patch(part, -half - 0.003, (-0.015, 0.015), (1.0, top - 0.1), _mix(paint, _DARK, 0.6))
        for x in (-wide * 0.55, wide * 0.5):
            end_patch(part, -half - 0.004, (x, x + 0.05), (1.05, top - 0.15), _STEEL)
        for x in (-wide + 0.02, wide - 0.09):
            end_patch(part, -half - 0.004, (x, x + 0.07), (1.0, top - 0.02), _mix(paint, _STEEL, 0.7))
        return part, top
    top = float(rng.uniform(1.7, 2.3))
    paint = _jitter(PAINTS[int(rng.integers(len(PAINTS)))], rng)
    part.box((-wide, 1.0, -half), (wide, top, split), paint)
    count = 6
    for rib in range(count):
        z = -half + (split + half) * (rib + 0.5) / count
        side_patch(part, wide + 0.004, [(z, 1.05), (z + 0.1, 1.05), (z + 0.1, top), (z, top)], _mix(paint, _DARK, 0.4))
    heap = _jitter((0.36, 0.31, 0.24), rng, 0.1)
    mid = (split - half) / 2
    hill = [(0.0, top, mid - half * 0.3), (0.0, top, mid + half * 0.25)]
    part.pieces.insert(0, Piece(hill, heap, None, (wide * 0.7, wide * 0.6)))
    return part, top


def _truck_rear(part: Part, z: float, wide: float, lit: float) -> None:
    end_patch(part, z - 0.004, (-wide * 0.95, wide * 0.95), (0.55, 0.80), _DARK)
    glow = 0.35 + 0.65 * lit if lit > 0.05 else 0.15
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.62, side * wide * 0.93))
        end_patch(part, z - 0.006, (x0, x1), (0.62, 0.76), _TAIL, glow)
    end_patch(part, z - 0.006, (-0.26, 0.26), (0.62, 0.74), _PLATES[0])
    for x in range(-4, 4):
        left = x * wide * 0.23
        end_patch(part, z - 0.005, (left, left + wide * 0.1), (0.83, 0.93), (0.75, 0.12, 0.08))


def make_bus(rng: np.random.Generator, lit: float) -> Solid:
    """Make a city bus, a coach or a minibus."""
    mini = rng.random() < 0.25
    length = float(rng.uniform(6.0, 7.5)) if mini else float(rng.uniform(10.0, 12.5))
    wide = 1.05 if mini else 1.27
    top = float(rng.uniform(2.6, 2.9)) if mini else float(rng.uniform(2.95, 3.4))
    half = length / 2
    paint = [(0.72, 0.10, 0.08), (0.85, 0.62, 0.10), (0.15, 0.30, 0.58), (0.85, 0.86, 0.87),
             (0.80, 0.78, 0.72), (0.10, 0.42, 0.28), (0.82, 0.40, 0.08), (0.5, 0.52, 0.55)][
        int(rng.integers(8))
    ]  # fmt: skip
    paint = _jitter(paint, rng)
    second = _jitter(PAINTS[int(rng.integers(len(PAINTS)))], rng)
    part = Part((0.0, 1.4, 0.0))
    low, belt = 0.30, 0.42 * top
    axles = (-half + 0.24 * length, half - 0.22 * length)
    tyres(part, axles, wide - 0.04, 0.46, 0.3)
    part.box((-wide, low, -half), (wide, top, half), paint, gloss=0.35)
    skirt = [(-half, low), (half, low), (half, low + 0.3 * belt), (-half, low + 0.3 * belt)]
    side_patch(part, wide + 0.002, skirt, second if rng.random() < 0.6 else _mix(paint, _DARK, 0.3))
    roof_band = [(-half, top - 0.12), (half, top - 0.12), (half, top), (-half, top)]
    side_patch(part, wide + 0.002, roof_band, _mix(paint, (0.9, 0.9, 0.9), 0.3))
    _bus_windows(part, half, wide, belt, top, rng, lit)
    _bus_ends(part, half, wide, belt, top, lit, second, rng)
    if not mini and rng.random() < 0.6:
        part.box((-wide * 0.7, top, -half * 0.5), (wide * 0.7, top + 0.22, half * 0.1), _mix(paint, (0.8, 0.8, 0.8), 0.6))
    wheels(part, axles, wide, 0.46, (0.5, 0.5, 0.52))
    solid = Solid([part], wide, half, top)
    solid.lamps = _lamps(half, wide, 0.75, 1.0, lit)
    return solid


def _bus_windows(part: Part, half: float, wide: float, belt: float, top: float,
                 rng: np.random.Generator, lit: float) -> None:
    head = top - float(rng.uniform(0.3, 0.45))
    inside = min(0.55, lit * 0.6) if lit > 0.5 else 0.0
    tint = (0.62, 0.58, 0.45) if inside else _mix(_GLASS, _SHINE, float(rng.uniform(0.1, 0.4)))
    band = [(-half + 0.1, belt), (half - 0.05, belt), (half - 0.05, head), (-half + 0.1, head)]
    side_patch(part, wide + 0.003, band, _DARK)
    count = max(4, round(2 * half / 1.45))
    step = (2 * half - 0.3) / count
    for window in range(count):
        z = -half + 0.15 + window * step
        low = belt + 0.05
        pane = [(z + 0.05, low), (z + step - 0.05, low), (z + step - 0.05, head - 0.05), (z + 0.05, head - 0.05)]
        side_patch(part, wide + 0.004, pane, tint, inside)
        upper = [(z + 0.05, head - 0.3), (z + step - 0.05, head - 0.3), pane[2], pane[3]]
        side_patch(part, wide + 0.005, upper, _mix(tint, _SHINE, 0.5), inside)
    for z in (half - 1.3, -half + 0.46 * 2 * half):
        door = [(z, 0.38), (z + 1.0, 0.38), (z + 1.0, head), (z, head)]
        side_patch(part, wide + 0.006, door, _DARK)
        for leaf in (z + 0.05, z + 0.53):
            glass = [(leaf, 0.5), (leaf + 0.42, 0.5), (leaf + 0.42, head - 0.06), (leaf, head - 0.06)]
            side_patch(part, wide + 0.007, glass, _mix(tint, _SHINE, 0.15), inside)


def _bus_ends(part: Part, half: float, wide: float, belt: float, top: float, lit: float,
              second: Colour, rng: np.random.Generator) -> None:
    z = half + 0.004
    glow = min(1.0, lit * 1.4) if lit > 0.05 else 0.1
    end_patch(part, z, (-wide * 0.95, wide * 0.95), (belt * 0.88, top - 0.42), _DARK)
    end_patch(part, z + 0.002, (-wide * 0.91, wide * 0.91), (belt * 0.92, top - 0.46), _mix(_GLASS, _SHINE, 0.25))
    end_patch(part, z + 0.003, (-wide * 0.91, wide * 0.3), (top - 0.95, top - 0.46), _mix(_GLASS, _SHINE, 0.6))
    end_patch(part, z + 0.002, (-wide * 0.8, wide * 0.8), (top - 0.36, top - 0.08), _DARK)
    end_patch(part, z + 0.003, (-wide * 0.6, wide * 0.5), (top - 0.29, top - 0.15), (0.95, 0.62, 0.12), 0.8)
    end_patch(part, z, (-wide * 0.98, wide * 0.98), (0.3, 0.55), _mix(second, _DARK, 0.4))
    rear_glass = float(rng.uniform(0.5, 0.85))
    end_patch(part, -z, (-wide * rear_glass, wide * rear_glass), (belt * 1.05, top - 0.4), _DARK)
    end_patch(part, -z - 0.002, (-wide * (rear_glass - 0.04), wide * (rear_glass - 0.04)), (belt * 1.09, top - 0.45), _mix(_GLASS, _SHINE, 0.3))
    for row in range(4):
        y = 0.62 + row * 0.11
        end_patch(part, -z - 0.001, (-wide * 0.55, wide * 0.55), (y, y + 0.05), _DARK)
    end_patch(part, -z, (-wide * 0.97, wide * 0.97), (0.3, 0.5), _DARK)
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.66, side * wide * 0.94))
        end_patch(part, z + 0.003, (x0, x1), (0.6, 0.82), _HEAD, glow)
        end_patch(part, -z - 0.003, (x0 + side * 0.06, x1), (0.85, 1.25), _TAIL, 0.35 + 0.65 * lit if lit > 0.05 else 0.15)
        arm = [(side * (wide + 0.22), top - 0.9, half + 0.2), (side * (wide + 0.22), top - 0.5, half + 0.1)]
        part.pieces.append(Piece(arm, _DARK, None, (0.09, 0.09)))
    end_patch(part, z + 0.003, (-0.26, 0.26), (0.36, 0.48), _PLATES[0])
    end_patch(part, -z - 0.003, (-0.26, 0.26), (0.36, 0.48), _PLATES[0])
