"""People and what they wear, and models of walkers: jointed figures of balls and limbs.

Walking is a few swings of hip, knee and arm; measures are metres, a figure faces its own +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.sources.street.light import Colour, Vector
from pipeline.sources.street.solids import Part, Piece, Solid

_SKINS: tuple[Colour, ...] = (
    (0.86, 0.68, 0.57), (0.78, 0.58, 0.45), (0.62, 0.43, 0.31), (0.42, 0.28, 0.20),
    (0.27, 0.18, 0.13),
)  # fmt: skip  # a table
_HAIRS: tuple[Colour, ...] = (
    (0.06, 0.05, 0.05), (0.14, 0.09, 0.06), (0.30, 0.19, 0.10), (0.62, 0.48, 0.26),
    (0.55, 0.54, 0.53),
)  # fmt: skip  # a table
_TOPS: tuple[Colour, ...] = (
    (0.10, 0.10, 0.12), (0.20, 0.21, 0.24), (0.12, 0.16, 0.30), (0.38, 0.39, 0.42),
    (0.80, 0.80, 0.78), (0.55, 0.12, 0.12), (0.25, 0.32, 0.20), (0.56, 0.45, 0.32),
    (0.72, 0.50, 0.16), (0.25, 0.42, 0.62), (0.60, 0.30, 0.42), (0.85, 0.82, 0.70),
)  # fmt: skip  # a table
_LEGS: tuple[Colour, ...] = (
    (0.10, 0.12, 0.20), (0.17, 0.22, 0.36), (0.08, 0.08, 0.09), (0.28, 0.27, 0.26),
    (0.50, 0.44, 0.33), (0.30, 0.38, 0.52),
)  # fmt: skip  # a table


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


def limb(points: list[Vector], radii: list[float], colour: Colour, label: int) -> Piece:
    return Piece(points, colour, None, radii, label)


def upper_body(
    look: Look, hip: Vector, lean: float, label: int, helmet: Colour | None
) -> list[Piece]:
    """Give torso, neck and head above ``hip`` (the middle between the hips), leant forward."""
    tall, wide = look.height, look.build
    x, y, z = hip
    shoulder_y = y + 0.295 * tall * math.cos(lean)
    shoulder_z = z + 0.295 * tall * math.sin(lean)
    half = 0.098 * tall * wide
    pieces = [
        limb(
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
        limb(
            [(x, shoulder_y, shoulder_z), (x, shoulder_y + 0.07 * tall, shoulder_z + 0.02 * tall)],
            [0.034 * tall, 0.03 * tall],
            look.skin,
            label,
        ),
    ]
    head_y, head_z = shoulder_y + 0.122 * tall, shoulder_z + 0.02 * tall
    face = [(x, head_y + 0.012 * tall, head_z + 0.01), (x, head_y - 0.022 * tall, head_z + 0.02)]
    pieces.append(limb(face, [0.053 * tall, 0.043 * tall], look.skin, label))
    cover = helmet or look.hat or look.hair
    size = 0.066 if helmet else 0.057
    crown = [(x, head_y + 0.026 * tall, head_z - 0.012), (x, head_y + 0.0 * tall, head_z - 0.03)]
    pieces.append(limb(crown, [size * tall, (size - 0.008) * tall], cover, label))
    if look.long_hair and not helmet:
        tail = [(x, head_y, head_z - 0.04), (x, head_y - 0.1 * tall, head_z - 0.05)]
        pieces.append(limb(tail, [0.055 * tall, 0.04 * tall], look.hair, label))
    return pieces


def arm(look: Look, shoulder: Vector, hand: Vector, bend: float, label: int) -> list[Piece]:
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
        limb([shoulder, elbow], [thick * 1.15, thick * 0.95], look.top, label),
        limb([elbow, hand], [thick * 0.9, thick * 0.7], sleeve, label),
        limb([hand], [thick * 0.85], look.skin, label),
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
        part.pieces.extend(arm(look, shoulder, hand, 0.02, 1))
    part.pieces.extend(upper_body(look, (0.0, hip_y, 0.0), 0.05, 1, None))
    if look.skirt:
        hem = [
            (-0.05, hip_y, 0.0),
            (0.05, hip_y, 0.0),
            (-0.1, 0.30 * tall, 0.0),
            (0.1, 0.30 * tall, 0.0),
        ]
        part.pieces.append(
            limb(hem, [0.06 * tall, 0.06 * tall, 0.07 * tall, 0.07 * tall], look.legs, 1)
        )
    if look.bag is not None:
        back_z = -0.1 * tall
        pack = [(0.0, hip_y + 0.22 * tall, back_z), (0.0, hip_y + 0.08 * tall, back_z - 0.02)]
        part.pieces.append(limb(pack, [0.075 * tall, 0.085 * tall], look.bag, 1))
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
        limb([hip, knee], [0.052 * tall * wide, 0.036 * tall * wide], look.legs, 1),
        limb([knee, ankle], [0.035 * tall * wide, 0.025 * tall], calf, 1),
        limb([ankle, toe], [0.026 * tall, 0.018 * tall], look.shoes, 1),
    ]
