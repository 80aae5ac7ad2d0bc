"""Models of passenger cars and pickups, each a little different.

Measures are metres; a car drives towards its own +z.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipeline.sources.street.bodywork import (
    DARK,
    GLASS,
    HEAD,
    PAINT_GLOSS,
    PLATES,
    SHINE,
    STEEL,
    TAIL,
    Corner,
    choose_paint,
    corner_lamps,
    end_patch,
    mix,
    pane,
    side_patch,
    tyres,
    wheels,
)
from pipeline.sources.street.light import Colour
from pipeline.sources.street.solids import Part, Piece, Solid


class _CarStyle:
    """Measures of a car body; ``kind`` is sedan, hatch, estate, suv, mpv or pickup."""

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        length, width, height, clearance = {
            "sedan": (4.65, 1.82, 1.44, 0.19),
            "hatch": (4.05, 1.76, 1.48, 0.18),
            "estate": (4.75, 1.83, 1.49, 0.18),
            "suv": (4.60, 1.90, 1.70, 0.24),
            "mpv": (4.75, 1.90, 1.78, 0.20),
            "pickup": (5.30, 1.90, 1.80, 0.28),
        }[kind]
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
            "sedan": (-0.36, -0.20, 0.09, 0.25),
            "hatch": (-0.49, -0.41, 0.08, 0.27),
            "estate": (-0.49, -0.43, 0.07, 0.25),
            "suv": (-0.49, -0.42, 0.08, 0.24),
            "mpv": (-0.495, -0.45, 0.14, 0.36),
            "pickup": (-0.10, -0.07, 0.15, 0.27),
        }[self.kind]
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
    solid.lamps = corner_lamps(half, wide, style.hood * 0.85, style.belt * 0.82, lit)
    return solid


def make_pickup(rng: np.random.Generator, lit: float) -> Solid:
    """Make a pickup, which the bundled classes count as a truck."""
    solid = make_car(rng, lit, "pickup")
    style_length, wide = solid.half_length, solid.half_width
    belt = solid.height * 0.60
    bed = Part((0.0, belt * 0.55, -style_length * 0.6))
    floor = [
        (-wide * 0.85, belt + 0.02, -style_length + 0.1),
        (wide * 0.85, belt + 0.02, -style_length + 0.1),
        (wide * 0.85, belt + 0.02, -style_length * 0.22),
        (-wide * 0.85, belt + 0.02, -style_length * 0.22),
    ]
    bed.face(floor, DARK)
    solid.parts.insert(1, bed)
    return solid


def _stations(style: _CarStyle) -> list[tuple[float, float, float, float]]:
    """Give cross-sections, rear to front: z, top, share of the width, underside."""
    half, belt, hood, low = style.length / 2, style.belt, style.hood, style.clearance
    rear_foot, _, _, front_foot = style.cabin()
    deck = belt - (0.03 if style.kind in ("sedan", "pickup") else 0.0)
    return [
        (-half, deck * 0.80, 0.80, low + 0.12),
        (-half + 0.05, deck * 0.93, 0.90, low + 0.03),
        (-half + 0.22, deck, 0.97, low),
        (max(rear_foot, -half + 0.3), belt, 1.0, low),
        (front_foot, belt, 1.0, low),
        ((front_foot + half) / 2, (belt + hood) / 2 + 0.02, 0.99, low),
        (half - 0.35, hood, 0.95, low),
        (half - 0.10, hood - 0.09, 0.86, low + 0.02),
        (half, hood - 0.24, 0.72, low + 0.08),
    ]


def _car_body(style: _CarStyle, paint: Colour, rng: np.random.Generator, lit: float) -> Part:
    half, wide, belt, low = style.length / 2, style.width / 2, style.belt, style.clearance
    # Its middle lies low, so that it is drawn before the cabin even under a raised eye.
    part = Part((0.0, belt * 0.35, 0.0))
    axles = (half * -0.59, half * 0.61)
    tyres(part, axles, wide - 0.03, style.radius, 0.21)
    stations = _stations(style)
    for (z0, y0, w0, u0), (z1, y1, w1, u1) in pairwise(stations):
        a, b, low_paint = w0 * wide, w1 * wide, mix(paint, DARK, 0.06)
        for side in (-1.0, 1.0):
            # Three strips up the side: below the waist, the door, and the shoulder that leans in.
            for (lower, out_low), (upper, out_high), own in (
                ((0.0, 0.97), (0.45, 1.0), low_paint),
                ((0.45, 1.0), (0.80, 0.985), paint),
                ((0.80, 0.985), (1.0, 0.90), paint),
            ):
                part.face(
                    [
                        (side * a * out_low, u0 + (y0 - u0) * lower, z0),
                        (side * b * out_low, u1 + (y1 - u1) * lower, z1),
                        (side * b * out_high, u1 + (y1 - u1) * upper, z1),
                        (side * a * out_high, u0 + (y0 - u0) * upper, z0),
                    ],
                    own,
                    gloss=PAINT_GLOSS,
                )
        part.face(
            [(-a * 0.9, y0, z0), (a * 0.9, y0, z0), (b * 0.9, y1, z1), (-b * 0.9, y1, z1)],
            paint,
            gloss=PAINT_GLOSS,
        )
    for z, y, w, u in (stations[0], stations[-1]):
        part.face(
            [(-w * wide, u, z), (w * wide, u, z), (w * wide * 0.9, y, z), (-w * wide * 0.9, y, z)],
            paint,
            gloss=PAINT_GLOSS,
        )
    sill = [
        (-half + 0.35, low),
        (half - 0.35, low),
        (half - 0.35, low + 0.09),
        (-half + 0.35, low + 0.09),
    ]
    side_patch(part, wide * 0.99, sill, DARK)
    _doors(part, style, paint)
    _car_rear(part, style, paint, rng, lit)
    _car_front(part, style, paint, rng, lit)
    rim = (0.62, 0.63, 0.65) if rng.random() < 0.75 else (0.2, 0.2, 0.21)
    wheels(part, axles, wide, style.radius, rim)
    return part


def _doors(part: Part, style: _CarStyle, paint: Colour) -> None:
    wide, belt = style.width / 2 + 0.003, style.belt
    gap = mix(paint, DARK, 0.65)
    _, roof_rear, roof_front, foot = style.cabin()
    middle = (roof_rear + roof_front) / 2
    for z in (middle - 0.03, foot - 0.12, roof_rear - 0.18):
        corners = [
            (z, belt - 0.03),
            (z, belt * 0.38),
            (z + 0.025, belt * 0.38),
            (z + 0.025, belt - 0.03),
        ]
        side_patch(part, wide, corners, gap)
    for z in (middle + 0.1, roof_rear - 0.02):
        handle = [(z, belt * 0.86), (z + 0.2, belt * 0.86), (z + 0.2, belt * 0.9), (z, belt * 0.9)]
        side_patch(part, wide, handle, mix(paint, DARK, 0.5))


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
        part.face(
            [(x0 * wide, y0, z0), (x1 * wide, y0, z1), (x1 * wide, y1, z1), (x0 * wide, y1, z0)],
            colour,
            gloss=0.2,
        )


def _corner_lamp(
    part: Part,
    style: _CarStyle,
    end: float,
    inner: float,
    up: Corner,
    colour: Colour,
    emission: float,
) -> None:
    """Add a pair of lamps that reach from the end round the corner to the side."""
    wide, z = style.width / 2, end * (style.length / 2 + 0.012)
    knee, turn = (0.80, 0.24) if end < 0 else (0.73, 0.34)
    for side in (-1.0, 1.0):
        for (x0, z0), (x1, z1) in (
            ((inner, z), (knee, z)),
            ((knee, z), (0.975, z - end * turn)),
        ):
            points = [
                (side * x0 * wide, up[0], z0),
                (side * x1 * wide, up[0], z1),
                (side * x1 * wide, up[1], z1),
                (side * x0 * wide, up[1], z0),
            ]
            part.face(points, colour, gloss=0.4)
            part.pieces[-1].emission = emission


def _car_rear(
    part: Part, style: _CarStyle, paint: Colour, rng: np.random.Generator, lit: float
) -> None:
    z, wide, belt = -style.length / 2 - 0.016, style.width / 2, style.belt
    low = style.clearance
    dark_bumper = rng.random() < 0.45
    _bumper(part, style, -1, mix(paint, DARK, 0.85), (low + 0.02, low + 0.16))
    if dark_bumper:
        _bumper(part, style, -1, mix(paint, DARK, 0.6), (low + 0.16, low + 0.36))
    else:
        _bumper(part, style, -1, mix(paint, DARK, 0.25), (low + 0.34, low + 0.37))
    tall = style.kind in ("suv", "mpv", "estate", "hatch", "pickup")
    y0, y1 = (0.60, 0.90) if tall else (0.64, 0.83)
    inner = float(rng.uniform(0.42, 0.66))
    glow = 0.35 + 0.65 * lit if lit > 0.05 else 0.2
    _corner_lamp(part, style, -1, inner, (belt * y0, belt * y1), TAIL, glow)
    _corner_lamp(
        part,
        style,
        -1,
        inner + 0.05,
        (belt * (y0 + 0.03), belt * (y0 + 0.09)),
        (0.72, 0.40, 0.30),
        glow * 0.5,
    )
    plate = PLATES[int(rng.choice(3, p=[0.7, 0.25, 0.05]))]
    at = belt * 0.64 if rng.random() < 0.6 else low + 0.2
    end_patch(part, z - 0.003, (-0.30, 0.30), (at - 0.03, at + 0.15), mix(paint, DARK, 0.5))
    end_patch(part, z - 0.004, (-0.26, 0.26), (at, at + 0.115), plate)
    end_patch(part, z - 0.004, (-0.06, 0.06), (belt * 0.86, belt * 0.92), STEEL)
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.5, side * wide * 0.62))
        end_patch(part, z - 0.004, (x0, x1), (low, low + 0.05), (0.3, 0.3, 0.31))


def _car_front(
    part: Part, style: _CarStyle, paint: Colour, rng: np.random.Generator, lit: float
) -> None:
    z, wide, low = style.length / 2 + 0.016, style.width / 2, style.clearance
    top = style.hood - 0.10
    _bumper(part, style, 1, mix(paint, DARK, 0.85), (low, low + 0.09))
    end_patch(part, z, (-wide * 0.6, wide * 0.6), (low + 0.06, low + 0.19), DARK)
    tall = float(rng.uniform(0.12, 0.26))
    grille = mix(DARK, STEEL, float(rng.uniform(0.0, 0.4)))
    end_patch(part, z, (-wide * 0.42, wide * 0.42), (top - tall - 0.04, top - 0.04), STEEL)
    end_patch(part, z + 0.001, (-wide * 0.40, wide * 0.40), (top - tall - 0.02, top - 0.06), grille)
    end_patch(part, z + 0.002, (-0.06, 0.06), (top - 0.13, top - 0.06), STEEL)
    glow = min(1.0, lit * 1.4) if lit > 0.05 else 0.1
    inner = float(rng.uniform(0.44, 0.52))
    _corner_lamp(part, style, 1, inner, (top - 0.17, top - 0.01), mix(HEAD, DARK, 0.45), glow * 0.5)
    _corner_lamp(part, style, 1, inner + 0.05, (top - 0.14, top - 0.03), HEAD, glow)
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.56, side * wide * 0.72))
        end_patch(part, z + 0.001, (x0, x1), (low + 0.08, low + 0.17), (0.3, 0.3, 0.3))
    plate = PLATES[int(rng.choice(2, p=[0.8, 0.2]))]
    if rng.random() < 0.85:
        end_patch(part, z + 0.003, (-0.26, 0.26), (low + 0.13, low + 0.24), plate)


def _car_cabin(style: _CarStyle, paint: Colour, rng: np.random.Generator) -> Part:
    wide, belt, top = style.width / 2, style.belt - 0.02, style.height
    z0, z1, z2, z3 = style.cabin()
    foot, roof = wide * 0.92, wide * (0.80 if style.kind in ("mpv", "suv", "pickup") else 0.74)
    part = Part((0.0, belt + 0.25, 0.0))
    quads = [
        [(-foot, belt, z0), (foot, belt, z0), (roof, top - 0.03, z1), (-roof, top - 0.03, z1)],
        [
            (-roof, top - 0.03, z1),
            (roof, top - 0.03, z1),
            (roof, top, (z1 + z2) / 2),
            (-roof, top, (z1 + z2) / 2),
        ],
        [
            (-roof, top, (z1 + z2) / 2),
            (roof, top, (z1 + z2) / 2),
            (roof, top - 0.02, z2),
            (-roof, top - 0.02, z2),
        ],
        [(-roof, top - 0.02, z2), (roof, top - 0.02, z2), (foot, belt, z3), (-foot, belt, z3)],
    ]
    for quad in quads:
        part.face(quad, paint, gloss=PAINT_GLOSS)
    tint = mix(GLASS, SHINE, float(rng.uniform(0.0, 0.35)))
    # Quads run rear foot to roof and roof to front foot: v = 1 is the roof, then the foot.
    pane(part, quads[0], (0.07, 0.93), (0.14, 0.90), tint)
    pane(part, quads[3], (0.06, 0.94), (0.08, 0.94), tint)
    for side in (-1.0, 1.0):
        wall = [
            (side * foot, belt, z0),
            (side * foot, belt, z3),
            (side * roof, top - 0.03, z2),
            (side * roof, top - 0.03, z1),
        ]
        part.face(wall, paint, gloss=PAINT_GLOSS)
        for u0, u1 in ((0.05, 0.485), (0.52, 0.95)):
            pane(part, wall, (u0, u1), (0.10, 0.86), tint)
    for side in (-1.0, 1.0):
        x = side * (wide + 0.10)
        mirror = Piece(
            [(x, belt + 0.06, z3 - 0.25), (side * wide, belt + 0.03, z3 - 0.25)],
            paint,
            None,
            (0.075, 0.04),
        )
        part.pieces.insert(0, mirror)
    return part
