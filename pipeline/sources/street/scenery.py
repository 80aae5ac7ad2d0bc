"""Models of what stands beside a road and is not detected: trees, lamps, signs, signals.

Pieces are labelled by the class of their pixels.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.sources.street.light import Colour, Vector
from pipeline.sources.street.pixel_classes import POLE, SIGN, TREE
from pipeline.sources.street.solids import Lamp, Part, Piece, Solid

_BARK: Colour = (0.22, 0.16, 0.11)
_POST: Colour = (0.36, 0.37, 0.38)


def make_tree(rng: np.random.Generator) -> Solid:
    """Make a broad-leaved tree, a poplar or a shrub: a trunk and a cloud of leafy balls."""
    kind = str(rng.choice(["round", "tall", "shrub"], p=[0.6, 0.2, 0.2]))
    high = {"round": 7.0, "tall": 10.0, "shrub": 1.6}[kind] * float(rng.uniform(0.75, 1.25))
    wide = {"round": 0.34, "tall": 0.15, "shrub": 0.6}[kind] * high
    stem = {"round": 0.34, "tall": 0.15, "shrub": 0.05}[kind] * high
    hue = np.array([0.23, 0.33, 0.12]) * float(rng.uniform(0.7, 1.3))
    if rng.random() < 0.12:
        hue = np.array([0.40, 0.26, 0.08])
    # Seen from near the ground, the crown is farther than the foot and so is drawn first.
    part, stand = Part((0.0, high, 0.0), leaf=float(rng.uniform(0.07, 0.13))), Part((0.0, 0.0, 0.0))
    trunk = [(0.0, 0.0, 0.0), (0.1 * float(rng.normal()), stem + (high - stem) * 0.12, 0.0)]
    stand.pieces.append(Piece(trunk, _BARK, None, (0.016 * high, 0.010 * high), TREE))
    count = 64
    angles, spread = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.uniform(0, 1, count))
    level = rng.uniform(0, 1, count)
    for angle, out, up in zip(angles, spread, np.sort(level), strict=True):
        round_off = math.sqrt(max(0.05, 1 - (2 * up - 1) ** 2))
        x = wide * out * round_off * math.cos(angle)
        y = stem + (high - stem) * (0.05 + 0.9 * up)
        front = math.sin(angle) * out
        light = 0.62 + 0.45 * up + 0.1 * front + float(rng.uniform(-0.14, 0.14))
        r, g, b = (float(min(0.9, part_colour * light)) for part_colour in hue)
        size = float(rng.uniform(0.12, 0.30)) * wide * (1.0 if kind != "tall" else 1.6)
        part.pieces.append(Piece([(x, y, 0.0)] * 2, (r, g, b), None, (size, size * 0.8), TREE))
    return Solid([part, stand], wide * 0.6, wide * 0.4, high)


def make_lamp_post(rng: np.random.Generator, lit: float) -> Solid:
    """Make a street lamp with an arm towards +x."""
    high, arm = float(rng.uniform(6.5, 9.0)), float(rng.uniform(1.2, 2.2))
    part = Part((0.0, high / 2, 0.0))
    shaft: list[Vector] = [(0.0, 0.0, 0.0), (0.0, high * 0.93, 0.0)]
    part.pieces.append(Piece(shaft, _POST, None, (0.10, 0.06), POLE))
    part.pieces.append(
        Piece([(0.0, high * 0.93, 0.0), (arm, high, 0.0)], _POST, None, (0.05, 0.04), POLE)
    )
    head: list[Vector] = [(arm - 0.1, high, 0.0), (arm + 0.5, high + 0.03, 0.0)]
    glow = 1.0 if lit > 0.4 else 0.0
    colour = (1.0, 0.86, 0.6) if glow else (0.5, 0.5, 0.5)
    part.pieces.append(Piece(head, colour, None, (0.10, 0.07), POLE, glow))
    solid = Solid([part], 0.12, 0.12, high, casts_shadow=False)
    if glow:
        solid.lamps = [Lamp((arm + 0.2, high, 0.0), (0, 0, 0), (1.0, 0.80, 0.50), 1.1)]
    return solid


def _disc(y: float, radius: float, colour: Colour, z: float, corners: int = 14) -> Piece:
    turn = math.pi / corners
    points = [
        (
            radius * math.sin(turn + a * 2 * math.pi / corners),
            y + radius * math.cos(turn + a * 2 * math.pi / corners),
            z,
        )
        for a in range(corners)
    ]
    return Piece(points, colour, None, (), SIGN)


def make_sign(rng: np.random.Generator) -> Solid:
    """Make a round, triangular, square or eight-cornered traffic sign, or a plate with a name."""
    high = float(rng.uniform(2.1, 2.7))
    part = Part((0.0, high / 2, 0.0))
    part.pieces.append(
        Piece([(0.0, 0.0, 0.0), (0.0, high, 0.0)], _POST, None, (0.035, 0.035), POLE)
    )
    white, red, blue = (0.88, 0.88, 0.88), (0.72, 0.06, 0.06), (0.08, 0.20, 0.55)
    kind = str(rng.choice(["limit", "stop", "blue", "warn", "name"]))
    if kind == "limit":
        part.pieces += [_disc(high, 0.34, red, -0.05), _disc(high, 0.26, white, -0.051)]
        part.pieces.append(_disc(high, 0.13, (0.1, 0.1, 0.1), -0.052, 4))
    elif kind == "stop":
        part.pieces += [_disc(high, 0.38, white, -0.05, 8), _disc(high, 0.35, red, -0.051, 8)]
        bar = [
            (-0.24, high - 0.06, -0.052),
            (0.24, high - 0.06, -0.052),
            (0.24, high + 0.06, -0.052),
            (-0.24, high + 0.06, -0.052),
        ]
        part.pieces.append(Piece(bar, white, None, (), SIGN))
    elif kind == "blue":
        part.pieces += [_disc(high, 0.33, white, -0.05), _disc(high, 0.30, blue, -0.051)]
        part.pieces.append(_disc(high, 0.12, white, -0.052, 5))
    elif kind == "warn":
        part.pieces += [_triangle(high, 0.45, red, -0.05), _triangle(high, 0.32, white, -0.051)]
    else:
        wide = float(rng.uniform(0.5, 0.9))
        tint = (0.05, 0.32, 0.20) if rng.random() < 0.5 else blue
        plate = [
            (-wide, high - 0.2, -0.05),
            (wide, high - 0.2, -0.05),
            (wide, high + 0.2, -0.05),
            (-wide, high + 0.2, -0.05),
        ]
        part.pieces.append(Piece(plate, tint, None, (), SIGN))
        line = [(-wide * 0.75, high, -0.051), (wide * 0.6, high, -0.051)]
        part.pieces.append(Piece(line, white, None, (0.05,), SIGN))
    return Solid([part], 0.05, 0.05, high, casts_shadow=False)


def _triangle(y: float, radius: float, colour: Colour, z: float) -> Piece:
    points = [(radius * math.sin(a), y + radius * math.cos(a), z) for a in (0.0, 2.094, 4.189)]
    return Piece(points, colour, None, (), SIGN)


def make_signal(rng: np.random.Generator) -> Solid:
    """Make a traffic light showing red or green."""
    high, arm = 5.2, float(rng.uniform(0.0, 3.0))
    part = Part((0.0, high / 2, 0.0))
    part.pieces.append(Piece([(0.0, 0.0, 0.0), (0.0, high, 0.0)], _POST, None, (0.08, 0.06), POLE))
    part.pieces.append(
        Piece([(0.0, high, 0.0), (arm, high + 0.1, 0.0)], _POST, None, (0.05, 0.05), POLE)
    )
    red = bool(rng.random() < 0.6)
    for x, y in ((arm, high - 0.4), (0.0, 2.7)):
        box = [
            (x - 0.17, y - 0.5, -0.1),
            (x + 0.17, y - 0.5, -0.1),
            (x + 0.17, y + 0.5, -0.1),
            (x - 0.17, y + 0.5, -0.1),
        ]
        part.pieces.append(Piece(box, (0.06, 0.06, 0.06), None, (), SIGN))
        colours = ((0.95, 0.1, 0.05), (0.25, 0.2, 0.05), (0.05, 0.25, 0.1))
        if not red:
            colours = ((0.25, 0.05, 0.05), (0.25, 0.2, 0.05), (0.1, 0.95, 0.5))
        for row, colour in enumerate(colours):
            lamp = _disc(y + 0.3 - 0.3 * row, 0.11, colour, -0.101)
            lamp.points = [(x + across, up, ahead) for across, up, ahead in lamp.points]
            lamp.emission = 0.9 if max(colour) > 0.9 else 0.0
            part.pieces.append(lamp)
    return Solid([part], 0.1, 0.1, high, casts_shadow=False)


def make_bollard(rng: np.random.Generator) -> Solid:
    """Make a bollard, a litter bin or a hydrant."""
    high = float(rng.uniform(0.7, 1.1))
    colour = ((0.1, 0.1, 0.1), (0.12, 0.25, 0.15), (0.65, 0.1, 0.06))[int(rng.integers(3))]
    wide = float(rng.uniform(0.06, 0.24))
    part = Part((0.0, high / 2, 0.0))
    part.pieces.append(
        Piece([(0.0, 0.05, 0.0), (0.0, high, 0.0)], colour, None, (wide, wide * 0.9), POLE)
    )
    band = [(0.0, high * 0.72, 0.0), (0.0, high * 0.8, 0.0)]
    part.pieces.append(Piece(band, (0.75, 0.75, 0.72), None, (wide, wide), POLE))
    return Solid([part], wide, wide, high)
