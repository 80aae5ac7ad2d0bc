"""Models of trucks, each a little different.

Measures are metres; a vehicle drives towards its own +z.
"""

from __future__ import annotations

import numpy as np

from pipeline.sources.street.bodywork import (
    DARK,
    GLASS,
    HEAD,
    PAINTS,
    PLATES,
    SHINE,
    STEEL,
    TAIL,
    corner_lamps,
    end_patch,
    jitter,
    mix,
    pane,
    side_patch,
    tyres,
    wheels,
)
from pipeline.sources.street.cars import make_pickup
from pipeline.sources.street.light import Colour
from pipeline.sources.street.solids import Part, Piece, Solid


def make_truck(rng: np.random.Generator, lit: float) -> Solid:
    """Make a truck: pickup, box truck, tipper, flatbed with load, or articulated lorry."""
    kind = str(
        rng.choice(["pickup", "box", "tipper", "flat", "lorry"], p=[0.2, 0.34, 0.14, 0.1, 0.22])
    )
    if kind == "pickup":
        return make_pickup(rng, lit)
    wide = float(rng.uniform(1.05, 1.26))
    length = {"box": 7.2, "tipper": 7.4, "flat": 8.0, "lorry": 13.5}[kind] * float(
        rng.uniform(0.85, 1.1)
    )
    half = length / 2
    cab_long = float(rng.uniform(1.7, 2.2))
    cab_high = float(rng.uniform(2.4, 2.9)) if kind != "lorry" else float(rng.uniform(3.1, 3.6))
    paint = jitter(PAINTS[int(rng.integers(len(PAINTS)))], rng)
    cab = _truck_cab(half, cab_long, wide, cab_high, paint, rng, lit)
    split = half - cab_long - (0.7 if kind == "lorry" else 0.15)
    chassis = _chassis(half, split, wide, kind)
    load, top = _truck_load(kind, half, split, wide, rng)
    _truck_rear(load, -half, wide, lit)
    solid = Solid([chassis, cab, load], wide, half, max(cab_high, top))
    solid.lamps = corner_lamps(half, wide, 0.8, 0.85, lit)
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


def _truck_cab(
    half: float,
    long: float,
    wide: float,
    high: float,
    paint: Colour,
    rng: np.random.Generator,
    lit: float,
) -> Part:
    rear, slope = half - long, float(rng.uniform(0.05, 0.35))
    part = Part((0.0, 1.4, half - long / 2))
    w = wide * 0.96
    belt = 0.52 * high
    part.box((-w, 0.45, rear), (w, belt, half), paint, gloss=0.35)
    upper = [(rear, belt), (half, belt), (half - slope, high), (rear + 0.05, high)]
    for side in (-1.0, 1.0):
        wall = [
            (side * w, belt, rear),
            (side * w, belt, half),
            (side * w * 0.95, high, half - slope),
            (side * w * 0.95, high, rear + 0.05),
        ]
        part.face(wall, paint)
        pane(part, wall, (0.42, 0.94), (0.08, 0.66), GLASS)
    roof = [
        (-w * 0.95, high, upper[3][0]),
        (w * 0.95, high, upper[3][0]),
        (w * 0.95, high, upper[2][0]),
        (-w * 0.95, high, upper[2][0]),
    ]
    part.face(roof, paint)
    back = [
        (-w, belt, rear),
        (w, belt, rear),
        (w * 0.95, high, rear + 0.05),
        (-w * 0.95, high, rear + 0.05),
    ]
    part.face(back, paint)
    front = [
        (-w, belt, half),
        (w, belt, half),
        (w * 0.95, high, half - slope),
        (-w * 0.95, high, half - slope),
    ]
    part.face(front, paint)
    pane(part, front, (0.05, 0.95), (0.06, 0.72), mix(GLASS, SHINE, 0.2))
    z = half + 0.005
    end_patch(part, z, (-w * 0.62, w * 0.62), (0.75, belt * 0.92), mix(DARK, paint, 0.15))
    for row in range(3):
        y = 0.85 + row * 0.16
        end_patch(part, z + 0.002, (-w * 0.58, w * 0.58), (y, y + 0.04), STEEL)
    end_patch(part, z, (-w, w), (0.35, 0.72), mix(DARK, STEEL, 0.3))
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * w * 0.66, side * w * 0.96))
        end_patch(
            part,
            z + 0.003,
            (x0, x1),
            (0.6, 0.85),
            HEAD,
            min(1.0, lit * 1.4) if lit > 0.05 else 0.1,
        )
        part.pieces.append(
            Piece(
                [
                    (side * (w + 0.2), belt + 0.1, half - 0.1),
                    (side * (w + 0.2), belt + 0.6, half - 0.1),
                ],
                DARK,
                None,
                (0.07, 0.07),
            )
        )
    end_patch(part, z + 0.004, (-0.26, 0.26), (0.42, 0.54), PLATES[0])
    door = [(rear + 0.12, 0.6), (rear + 0.15, 0.6), (rear + 0.15, belt), (rear + 0.12, belt)]
    side_patch(part, w + 0.003, door, mix(paint, DARK, 0.6))
    step = [
        (half - long * 0.95, 0.4),
        (half - 0.1, 0.4),
        (half - 0.1, 0.6),
        (half - long * 0.95, 0.6),
    ]
    side_patch(part, w + 0.003, step, DARK)
    return part


def _truck_load(
    kind: str, half: float, split: float, wide: float, rng: np.random.Generator
) -> tuple[Part, float]:
    """Give what stands on the chassis, and its height."""
    part = Part((0.0, 1.6, (split - half) / 2))
    if kind in ("box", "lorry"):
        top = float(rng.uniform(2.9, 3.6)) if kind == "box" else float(rng.uniform(3.6, 4.0))
        light = rng.random() < 0.6
        paint = (
            jitter((0.85, 0.85, 0.83), rng)
            if light
            else jitter(PAINTS[int(rng.integers(8, 16))], rng, 0.1)
        )
        part.box((-wide, 0.95, -half), (wide, top, split), paint, gloss=0.25)
        second = PAINTS[int(rng.integers(len(PAINTS)))]
        if rng.random() < 0.7:
            y0, y1 = (
                0.95 + (top - 0.95) * float(rng.uniform(0.05, 0.5)),
                top - float(rng.uniform(0.1, 0.5)),
            )
            z0, z1 = (
                (split - half) / 2 - float(rng.uniform(0.5, 2.5)),
                (split - half) / 2 + float(rng.uniform(0.5, 2.0)),
            )
            z0, z1 = max(-half + 0.2, z0), min(split - 0.2, z1)
            side_patch(part, wide + 0.003, [(z0, y0), (z1, y0), (z1, y1), (z0, y1)], second)
        for y in (0.98, top - 0.1):
            side_patch(
                part,
                wide + 0.004,
                [(-half, y), (split, y), (split, y + 0.07), (-half, y + 0.07)],
                STEEL,
            )
        end_patch(part, -half - 0.003, (-0.015, 0.015), (1.0, top - 0.1), mix(paint, DARK, 0.6))
        for x in (-wide * 0.55, wide * 0.5):
            end_patch(part, -half - 0.004, (x, x + 0.05), (1.05, top - 0.15), STEEL)
        for x in (-wide + 0.02, wide - 0.09):
            end_patch(part, -half - 0.004, (x, x + 0.07), (1.0, top - 0.02), mix(paint, STEEL, 0.7))
        return part, top
    top = float(rng.uniform(1.7, 2.3))
    paint = jitter(PAINTS[int(rng.integers(len(PAINTS)))], rng)
    part.box((-wide, 1.0, -half), (wide, top, split), paint)
    count = 6
    for rib in range(count):
        z = -half + (split + half) * (rib + 0.5) / count
        side_patch(
            part,
            wide + 0.004,
            [(z, 1.05), (z + 0.1, 1.05), (z + 0.1, top), (z, top)],
            mix(paint, DARK, 0.4),
        )
    heap = jitter((0.36, 0.31, 0.24), rng, 0.1)
    mid = (split - half) / 2
    hill = [(0.0, top, mid - half * 0.3), (0.0, top, mid + half * 0.25)]
    part.pieces.insert(0, Piece(hill, heap, None, (wide * 0.7, wide * 0.6)))
    return part, top


def _truck_rear(part: Part, z: float, wide: float, lit: float) -> None:
    end_patch(part, z - 0.004, (-wide * 0.95, wide * 0.95), (0.55, 0.80), DARK)
    glow = 0.35 + 0.65 * lit if lit > 0.05 else 0.15
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.62, side * wide * 0.93))
        end_patch(part, z - 0.006, (x0, x1), (0.62, 0.76), TAIL, glow)
    end_patch(part, z - 0.006, (-0.26, 0.26), (0.62, 0.74), PLATES[0])
    for x in range(-4, 4):
        left = x * wide * 0.23
        end_patch(part, z - 0.005, (left, left + wide * 0.1), (0.83, 0.93), (0.75, 0.12, 0.08))
