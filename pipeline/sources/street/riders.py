"""Models of cyclists and motorcyclists on what they ride: jointed figures of balls and limbs.

Measures are metres, a rider faces its own +z.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.sources.street.bodywork import PAINTS, choose_paint
from pipeline.sources.street.light import Colour, Vector
from pipeline.sources.street.people import Look, arm, limb, upper_body
from pipeline.sources.street.solids import Lamp, Part, Piece, Solid

_RUBBER: Colour = (0.05, 0.05, 0.055)
_STEEL: Colour = (0.5, 0.51, 0.53)


def _ring(z: float, radius: float, half: float, colour: Colour) -> list[Piece]:
    angles = np.linspace(0, 2 * np.pi, 17)
    points = [
        (0.0, radius + radius * float(np.sin(a)), z + radius * float(np.cos(a))) for a in angles
    ]
    return [Piece(points, colour, None, (half,), 1)]


def make_cyclist(look: Look, paint: Colour, phase: float, upright: float) -> Solid:
    """Make a bicycle (object 1) and its rider (object 2); ``upright`` in [0, 1] is the posture."""
    part = Part((0.0, 0.8, 0.0), sort=True)
    pieces = part.pieces
    for z in (-0.53, 0.53):
        pieces.extend(_ring(z, 0.33, 0.028, _RUBBER))
        pieces.append(limb([(0.0, 0.33, z)], [0.05], _STEEL, 1))
        for angle in range(3):
            a = phase + angle * math.pi / 3
            dy, dz = 0.3 * math.sin(a), 0.3 * math.cos(a)
            pieces.append(
                Piece([(0.0, 0.33 + dy, z + dz), (0.0, 0.33 - dy, z - dz)], _STEEL, None, (0.004,))
            )
    crank, saddle, head = (0.0, 0.29, -0.05), (0.0, 0.92, -0.2), (0.0, 0.86, 0.36)
    for start, end in (
        (crank, saddle),
        (saddle, (0.0, 0.33, -0.53)),
        (crank, (0.0, 0.33, -0.53)),
        (crank, (0.0, 0.74, 0.39)),
        ((0.0, 0.84, -0.18), head),
        (head, (0.0, 0.33, 0.53)),
    ):
        pieces.append(Piece([start, end], paint, None, (0.022,)))
    bar_y = 0.98 + 0.1 * upright
    pieces.append(Piece([head, (0.0, bar_y, 0.36)], _STEEL, None, (0.02,)))
    pieces.append(
        Piece(
            [(-0.28, bar_y, 0.32), (0.0, bar_y, 0.38), (0.28, bar_y, 0.32)], _RUBBER, None, (0.018,)
        )
    )
    pieces.append(limb([(0.0, 0.95, -0.27), (0.0, 0.95, -0.12)], [0.065, 0.035], _RUBBER, 1))
    pieces.append(limb([(0.0, 0.78, -0.36)], [0.035], (0.6, 0.06, 0.05), 1))
    _ride(
        part, look, (0.0, 1.0, -0.2), (0.26, bar_y + 0.02, 0.31), 0.55 - 0.4 * upright, crank, phase
    )
    return Solid([part], 0.28, 0.85, 1.0 + 0.45 * look.height)


def _ride(
    part: Part,
    look: Look,
    hip: Vector,
    hand: Vector,
    lean: float,
    crank: Vector,
    phase: float,
    helmet: Colour | None = None,
) -> None:
    """Seat a rider (object 2): pedalling about ``crank``, hands at ``±hand``."""
    tall = look.height
    part.pieces.extend(upper_body(look, hip, lean, 2, helmet))
    for side in (-1.0, 1.0):
        turn = phase + (0.0 if side < 0 else math.pi)
        foot = (side * 0.11, crank[1] + 0.17 * math.sin(turn), crank[2] + 0.17 * math.cos(turn))
        start = (side * 0.075, hip[1], hip[2])
        knee = _knee(start, foot, 0.245 * tall, 0.25 * tall)
        part.pieces.append(limb([start, knee], [0.05 * tall, 0.038 * tall], look.legs, 2))
        part.pieces.append(limb([knee, foot], [0.036 * tall, 0.026 * tall], look.legs, 2))
        toe = (foot[0], foot[1] - 0.01, foot[2] + 0.12)
        part.pieces.append(limb([foot, toe], [0.04, 0.03], look.shoes, 2))
        shoulder = (
            side * 0.115 * tall * look.build,
            hip[1] + 0.28 * tall * math.cos(lean),
            hip[2] + 0.28 * tall * math.sin(lean),
        )
        part.pieces.extend(arm(look, shoulder, (side * hand[0], hand[1], hand[2]), 0.08, 2))


def _knee(hip: Vector, foot: Vector, thigh: float, shin: float) -> Vector:
    """Give the forward knee that joins hip and foot by bones of the two lengths."""
    dy, dz = foot[1] - hip[1], foot[2] - hip[2]
    apart = min(math.hypot(dy, dz), (thigh + shin) * 0.999)
    along = (thigh**2 - shin**2 + apart**2) / (2 * apart)
    out = math.sqrt(max(0.0, thigh**2 - along**2))
    uy, uz = dy / apart, dz / apart
    return (
        (hip[0] + foot[0]) / 2 * 1.15,
        hip[1] + uy * along + uz * out,
        hip[2] + uz * along - uy * out,
    )


def make_motorcyclist(
    look: Look, paint: Colour, helmet: Colour, scooter: bool, lit: float
) -> Solid:
    """Make a motorcycle or scooter (object 1) and its rider with a helmet (object 2)."""
    part = Part((0.0, 0.8, 0.0), sort=True)
    pieces = part.pieces
    radius = 0.24 if scooter else 0.31
    base = 0.58 if scooter else 0.70
    for z in (-base, base):
        pieces.extend(_ring(z, radius, 0.06, _RUBBER))
        pieces.append(limb([(0.0, radius, z)], [radius * 0.45], _STEEL, 1))
    pieces.append(Piece([(0.0, 0.95, base - 0.28), (0.0, radius, base)], _STEEL, None, (0.045,)))
    if scooter:
        pieces.append(
            limb(
                [(0.0, 0.5, -0.55), (0.0, 0.68, -0.3), (0.0, 0.4, -0.2)],
                [0.17, 0.15, 0.14],
                paint,
                1,
            )
        )
        pieces.append(limb([(0.0, 0.3, 0.1), (0.0, 0.3, -0.2)], [0.1, 0.12], paint, 1))
        pieces.append(
            limb(
                [(-0.12, 0.35, 0.3), (0.12, 0.35, 0.3), (-0.12, 0.85, 0.25), (0.12, 0.85, 0.25)],
                [0.06, 0.06, 0.05, 0.05],
                paint,
                1,
            )
        )
    else:
        dark = (0.12, 0.12, 0.13)
        pieces.append(limb([(0.0, 0.42, 0.12), (0.0, 0.42, -0.2)], [0.17, 0.16], dark, 1))
        pieces.append(limb([(0.0, 0.82, 0.18), (0.0, 0.74, -0.12)], [0.15, 0.12], paint, 1))
        pieces.append(limb([(0.0, 0.70, -0.25), (0.0, 0.80, -0.72)], [0.11, 0.07], dark, 1))
        pieces.append(limb([(0.16, 0.3, -0.1), (0.18, 0.4, -0.75)], [0.04, 0.06], _STEEL, 1))
        pieces.append(limb([(0.0, 0.9, 0.42), (0.0, 0.72, 0.5)], [0.13, 0.12], paint, 1))
    pieces.append(limb([(0.0, 0.84, base - 0.12)], [0.085], (0.9, 0.9, 0.85), 1))
    pieces.append(limb([(0.0, 0.72, -base - 0.08)], [0.055], (0.65, 0.05, 0.04), 1))
    pieces.append(
        limb(
            [(-0.07, 0.55, -base - 0.1), (0.07, 0.55, -base - 0.1)],
            [0.05, 0.05],
            (0.8, 0.8, 0.78),
            1,
        )
    )
    pieces.append(
        limb(
            [(-0.34, 1.02, 0.3), (0.0, 0.98, 0.38), (0.34, 1.02, 0.3)],
            [0.03, 0.05, 0.03],
            _RUBBER,
            1,
        )
    )
    for side in (-1.0, 1.0):
        pieces.append(limb([(side * 0.3, 1.18, 0.34)], [0.055], _RUBBER, 1))
    hip = (0.0, 0.84, -0.28)
    _ride(part, look, hip, (0.32, 1.04, 0.28), 0.28, (0.0, 0.36, 0.02), 0.15, helmet)
    lamps = []
    if lit > 0.05:
        lamps = [
            Lamp((0.0, 0.84, base), (0, 0, 1), (1.0, 0.96, 0.88), 0.4 + 0.4 * lit),
            Lamp((0.0, 0.72, -base), (0, 0, -1), (1.0, 0.12, 0.06), 0.15 + 0.15 * lit),
        ]
    return Solid([part], 0.34, 1.0, 1.55, lamps)


def draw_frame_paint(rng: np.random.Generator) -> Colour:
    """Choose the colour of a bicycle frame or a motorcycle."""
    if rng.random() < 0.5:
        return choose_paint(rng)
    return PAINTS[int(rng.integers(5, len(PAINTS)))]
