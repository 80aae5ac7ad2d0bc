"""Models of walkers, cyclists and motorcyclists: jointed figures of balls and limbs.

Walking is a few swings of hip, knee and arm; measures are metres, a figure faces its own +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.sources.street.bodywork import PAINTS, choose_paint
from pipeline.sources.street.light import Colour, Vector
from pipeline.sources.street.solids import Lamp, Part, Piece, Solid

_SKINS: tuple[Colour, ...] = (
    (0.86, 0.68, 0.57), (0.78, 0.58, 0.45), (0.62, 0.43, 0.31), (0.42, 0.28, 0.20),
    (0.27, 0.18, 0.13),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (0.06, 0.05, 0.05), (0.14, 0.09, 0.06), (0.30, 0.19, 0.10), (0.62, 0.48, 0.26),
    (0.55, 0.54, 0.53),
)  # fmt: skip
_TOPS: tuple[Colour, ...] = (
    (0.10, 0.10, 0.12), (0.20, 0.21, 0.24), (0.12, 0.16, 0.30), (0.38, 0.39, 0.42),
    (0.80, 0.80, 0.78), (0.55, 0.12, 0.12), (0.25, 0.32, 0.20), (0.56, 0.45, 0.32),
    (0.72, 0.50, 0.16), (0.25, 0.42, 0.62), (0.60, 0.30, 0.42), (0.85, 0.82, 0.70),
)  # fmt: skip
_LEGS: tuple[Colour, ...] = (
    (0.10, 0.12, 0.20), (0.17, 0.22, 0.36), (0.08, 0.08, 0.09), (0.28, 0.27, 0.26),
    (0.50, 0.44, 0.33), (0.30, 0.38, 0.52),
)  # fmt: skip
_RUBBER: Colour = (0.05, 0.05, 0.055)
_STEEL: Colour = (0.5, 0.51, 0.53)


@dataclass(frozen=True, slots=True)
class Look:
    """What stays the same about a person from frame to frame."""

    height: float
    build: float
    skin: Colour
    hair: Colour
    top: Colour
    legs: Colour
    shoes: Colour
    long_hair: bool
    hat: Colour | None
    bag: Colour | None
    skirt: bool
    bare_arms: bool


def draw_look(rng: np.random.Generator) -> Look:
    """Choose a person's size and clothes; one in eight is a child."""
    child = rng.random() < 0.12
    height = float(rng.uniform(1.05, 1.45) if child else rng.normal(1.71, 0.085))

    def pick(colours: tuple[Colour, ...]) -> Colour:
        base = colours[int(rng.integers(len(colours)))]
        r, g, b = (min(0.95, max(0.03, own + float(rng.uniform(-0.04, 0.04)))) for own in base)
        return r, g, b

    return Look(
        height=min(1.95, height),
        build=float(rng.uniform(0.88, 1.22)),
        skin=pick(_SKINS),
        hair=pick(_HAIRS),
        top=pick(_TOPS),
        legs=pick(_LEGS),
        shoes=pick(((0.06, 0.06, 0.06), (0.75, 0.75, 0.75), (0.25, 0.16, 0.1))),
        long_hair=bool(rng.random() < 0.35),
        hat=pick(_TOPS) if rng.random() < 0.15 else None,
        bag=pick(_TOPS) if rng.random() < 0.35 else None,
        skirt=bool(rng.random() < 0.16),
        bare_arms=bool(rng.random() < 0.3),
    )


def _limb(points: list[Vector], radii: list[float], colour: Colour, label: int) -> Piece:
    return Piece(points, colour, None, radii, label)


def _upper_body(
    look: Look, hip: Vector, lean: float, label: int, helmet: Colour | None
) -> list[Piece]:
    """Give torso, neck and head above ``hip`` (the middle between the hips), leant forward."""
    tall, wide = look.height, look.build
    x, y, z = hip
    shoulder_y = y + 0.295 * tall * math.cos(lean)
    shoulder_z = z + 0.295 * tall * math.sin(lean)
    half = 0.098 * tall * wide
    pieces = [
        _limb(
            [
                (x - half, shoulder_y - 0.01, shoulder_z),
                (x + half, shoulder_y - 0.01, shoulder_z),
                (x + half * 0.62, y, z),
                (x - half * 0.62, y, z),
            ],
            [0.040 * tall, 0.040 * tall, 0.05 * tall * wide, 0.05 * tall * wide],
            look.top,
            label,
        ),
        _limb(
            [(x, shoulder_y, shoulder_z), (x, shoulder_y + 0.07 * tall, shoulder_z + 0.02 * tall)],
            [0.034 * tall, 0.03 * tall],
            look.skin,
            label,
        ),
    ]
    head_y, head_z = shoulder_y + 0.122 * tall, shoulder_z + 0.02 * tall
    face = [(x, head_y + 0.012 * tall, head_z + 0.01), (x, head_y - 0.022 * tall, head_z + 0.02)]
    pieces.append(_limb(face, [0.053 * tall, 0.043 * tall], look.skin, label))
    cover = helmet or look.hat or look.hair
    size = 0.066 if helmet else 0.057
    crown = [(x, head_y + 0.026 * tall, head_z - 0.012), (x, head_y + 0.0 * tall, head_z - 0.03)]
    pieces.append(_limb(crown, [size * tall, (size - 0.008) * tall], cover, label))
    if look.long_hair and not helmet:
        tail = [(x, head_y, head_z - 0.04), (x, head_y - 0.1 * tall, head_z - 0.05)]
        pieces.append(_limb(tail, [0.055 * tall, 0.04 * tall], look.hair, label))
    return pieces


def _arm(look: Look, shoulder: Vector, hand: Vector, bend: float, label: int) -> list[Piece]:
    """Give upper arm, forearm and hand; the elbow hangs ``bend`` metres below the straight line."""
    (sx, sy, sz), (hx, hy, hz) = shoulder, hand
    elbow = (
        (sx + hx) / 2 + math.copysign(0.02, sx),
        (sy + hy) / 2 - bend,
        (sz + hz) / 2 - bend * 0.5,
    )
    tall = look.height
    sleeve = look.skin if look.bare_arms else look.top
    thick = 0.026 * tall * look.build
    return [
        _limb([shoulder, elbow], [thick * 1.15, thick * 0.95], look.top, label),
        _limb([elbow, hand], [thick * 0.9, thick * 0.7], sleeve, label),
        _limb([hand], [thick * 0.85], look.skin, label),
    ]


def make_walker(look: Look, phase: float, stride: float = 1.0) -> Solid:
    """Make a person walking; ``phase`` in radians, ``stride`` 0 = standing, 1 = a brisk walk."""
    tall = look.height
    part = Part((0.0, tall / 2, 0.0), sort=True)
    hip_y = 0.515 * tall - 0.012 * stride * abs(math.sin(phase))
    for side in (-1.0, 1.0):
        swing = 0.46 * stride * side * math.sin(phase)
        knee_bend = 0.12 + 0.75 * stride * max(0.0, -side * math.cos(phase)) ** 2
        part.pieces.extend(_leg(look, side, hip_y, swing, knee_bend * min(1.0, stride + 0.1)))
        shoulder = (side * 0.118 * tall * look.build, hip_y + 0.285 * tall, 0.0)
        back = -0.55 * stride * side * math.sin(phase)
        reach = 0.33 * tall
        hand = (
            side * 0.15 * tall * look.build,
            shoulder[1] - reach * math.cos(back),
            reach * math.sin(back) + 0.04,
        )
        part.pieces.extend(_arm(look, shoulder, hand, 0.02, 1))
    part.pieces.extend(_upper_body(look, (0.0, hip_y, 0.0), 0.05, 1, None))
    if look.skirt:
        hem = [
            (-0.05, hip_y, 0.0),
            (0.05, hip_y, 0.0),
            (-0.1, 0.30 * tall, 0.0),
            (0.1, 0.30 * tall, 0.0),
        ]
        part.pieces.append(
            _limb(hem, [0.06 * tall, 0.06 * tall, 0.07 * tall, 0.07 * tall], look.legs, 1)
        )
    if look.bag is not None:
        back_z = -0.1 * tall
        pack = [(0.0, hip_y + 0.22 * tall, back_z), (0.0, hip_y + 0.08 * tall, back_z - 0.02)]
        part.pieces.append(_limb(pack, [0.075 * tall, 0.085 * tall], look.bag, 1))
    return Solid([part], 0.22 * look.build, 0.22, tall)


def _leg(look: Look, side: float, hip_y: float, swing: float, bend: float) -> list[Piece]:
    tall, wide = look.height, look.build
    x = side * 0.052 * tall * wide
    hip = (x, hip_y, 0.0)
    thigh, shin = 0.245 * tall, 0.235 * tall
    knee = (x, hip_y - thigh * math.cos(swing), thigh * math.sin(swing))
    ankle = (x, knee[1] - shin * math.cos(swing - bend), knee[2] + shin * math.sin(swing - bend))
    ankle = (ankle[0], max(0.03, ankle[1]), ankle[2])
    toe = (x, max(0.02, ankle[1] - 0.03), ankle[2] + 0.09 * tall)
    calf = look.skin if look.skirt else look.legs
    return [
        _limb([hip, knee], [0.052 * tall * wide, 0.036 * tall * wide], look.legs, 1),
        _limb([knee, ankle], [0.035 * tall * wide, 0.025 * tall], calf, 1),
        _limb([ankle, toe], [0.026 * tall, 0.018 * tall], look.shoes, 1),
    ]


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
        pieces.append(_limb([(0.0, 0.33, z)], [0.05], _STEEL, 1))
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
    pieces.append(_limb([(0.0, 0.95, -0.27), (0.0, 0.95, -0.12)], [0.065, 0.035], _RUBBER, 1))
    pieces.append(_limb([(0.0, 0.78, -0.36)], [0.035], (0.6, 0.06, 0.05), 1))
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
    part.pieces.extend(_upper_body(look, hip, lean, 2, helmet))
    for side in (-1.0, 1.0):
        turn = phase + (0.0 if side < 0 else math.pi)
        foot = (side * 0.11, crank[1] + 0.17 * math.sin(turn), crank[2] + 0.17 * math.cos(turn))
        start = (side * 0.075, hip[1], hip[2])
        knee = _knee(start, foot, 0.245 * tall, 0.25 * tall)
        part.pieces.append(_limb([start, knee], [0.05 * tall, 0.038 * tall], look.legs, 2))
        part.pieces.append(_limb([knee, foot], [0.036 * tall, 0.026 * tall], look.legs, 2))
        toe = (foot[0], foot[1] - 0.01, foot[2] + 0.12)
        part.pieces.append(_limb([foot, toe], [0.04, 0.03], look.shoes, 2))
        shoulder = (
            side * 0.115 * tall * look.build,
            hip[1] + 0.28 * tall * math.cos(lean),
            hip[2] + 0.28 * tall * math.sin(lean),
        )
        part.pieces.extend(_arm(look, shoulder, (side * hand[0], hand[1], hand[2]), 0.08, 2))


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
        pieces.append(_limb([(0.0, radius, z)], [radius * 0.45], _STEEL, 1))
    pieces.append(Piece([(0.0, 0.95, base - 0.28), (0.0, radius, base)], _STEEL, None, (0.045,)))
    if scooter:
        pieces.append(
            _limb(
                [(0.0, 0.5, -0.55), (0.0, 0.68, -0.3), (0.0, 0.4, -0.2)],
                [0.17, 0.15, 0.14],
                paint,
                1,
            )
        )
        pieces.append(_limb([(0.0, 0.3, 0.1), (0.0, 0.3, -0.2)], [0.1, 0.12], paint, 1))
        pieces.append(
            _limb(
                [(-0.12, 0.35, 0.3), (0.12, 0.35, 0.3), (-0.12, 0.85, 0.25), (0.12, 0.85, 0.25)],
                [0.06, 0.06, 0.05, 0.05],
                paint,
                1,
            )
        )
    else:
        dark = (0.12, 0.12, 0.13)
        pieces.append(_limb([(0.0, 0.42, 0.12), (0.0, 0.42, -0.2)], [0.17, 0.16], dark, 1))
        pieces.append(_limb([(0.0, 0.82, 0.18), (0.0, 0.74, -0.12)], [0.15, 0.12], paint, 1))
        pieces.append(_limb([(0.0, 0.70, -0.25), (0.0, 0.80, -0.72)], [0.11, 0.07], dark, 1))
        pieces.append(_limb([(0.16, 0.3, -0.1), (0.18, 0.4, -0.75)], [0.04, 0.06], _STEEL, 1))
        pieces.append(_limb([(0.0, 0.9, 0.42), (0.0, 0.72, 0.5)], [0.13, 0.12], paint, 1))
    pieces.append(_limb([(0.0, 0.84, base - 0.12)], [0.085], (0.9, 0.9, 0.85), 1))
    pieces.append(_limb([(0.0, 0.72, -base - 0.08)], [0.055], (0.65, 0.05, 0.04), 1))
    pieces.append(
        _limb(
            [(-0.07, 0.55, -base - 0.1), (0.07, 0.55, -base - 0.1)],
            [0.05, 0.05],
            (0.8, 0.8, 0.78),
            1,
        )
    )
    pieces.append(
        _limb(
            [(-0.34, 1.02, 0.3), (0.0, 0.98, 0.38), (0.34, 1.02, 0.3)],
            [0.03, 0.05, 0.03],
            _RUBBER,
            1,
        )
    )
    for side in (-1.0, 1.0):
        pieces.append(_limb([(side * 0.3, 1.18, 0.34)], [0.055], _RUBBER, 1))
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
