"""Models of city buses, coaches and minibuses.

Measures are metres; a bus drives towards its own +z.
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
    TAIL,
    corner_lamps,
    end_patch,
    jitter,
    mix,
    side_patch,
    tyres,
    wheels,
)
from pipeline.sources.street.light import Colour
from pipeline.sources.street.solids import Part, Piece, Solid


def make_bus(rng: np.random.Generator, lit: float) -> Solid:
    """Make a city bus, a coach or a minibus."""
    mini = rng.random() < 0.25
    length = float(rng.uniform(6.0, 7.5)) if mini else float(rng.uniform(10.0, 12.5))
    wide = 1.05 if mini else 1.27
    top = float(rng.uniform(2.6, 2.9)) if mini else float(rng.uniform(2.95, 3.4))
    half = length / 2
    paint = [
        (0.72, 0.10, 0.08),
        (0.85, 0.62, 0.10),
        (0.15, 0.30, 0.58),
        (0.85, 0.86, 0.87),
        (0.80, 0.78, 0.72),
        (0.10, 0.42, 0.28),
        (0.82, 0.40, 0.08),
        (0.5, 0.52, 0.55),
    ][int(rng.integers(8))]
    paint = jitter(paint, rng)
    second = jitter(PAINTS[int(rng.integers(len(PAINTS)))], rng)
    part = Part((0.0, 1.4, 0.0))
    low, belt = 0.30, 0.42 * top
    axles = (-half + 0.24 * length, half - 0.22 * length)
    tyres(part, axles, wide - 0.04, 0.46, 0.3)
    part.box((-wide, low, -half), (wide, top, half), paint, gloss=0.35)
    skirt = [(-half, low), (half, low), (half, low + 0.3 * belt), (-half, low + 0.3 * belt)]
    side_patch(part, wide + 0.002, skirt, second if rng.random() < 0.6 else mix(paint, DARK, 0.3))
    roof_band = [(-half, top - 0.12), (half, top - 0.12), (half, top), (-half, top)]
    side_patch(part, wide + 0.002, roof_band, mix(paint, (0.9, 0.9, 0.9), 0.3))
    _bus_windows(part, half, wide, belt, top, rng, lit)
    _bus_ends(part, half, wide, belt, top, lit, second, rng)
    if not mini and rng.random() < 0.6:
        part.box(
            (-wide * 0.7, top, -half * 0.5),
            (wide * 0.7, top + 0.22, half * 0.1),
            mix(paint, (0.8, 0.8, 0.8), 0.6),
        )
    wheels(part, axles, wide, 0.46, (0.5, 0.5, 0.52))
    solid = Solid([part], wide, half, top)
    solid.lamps = corner_lamps(half, wide, 0.75, 1.0, lit)
    return solid


def _bus_windows(
    part: Part,
    half: float,
    wide: float,
    belt: float,
    top: float,
    rng: np.random.Generator,
    lit: float,
) -> None:
    head = top - float(rng.uniform(0.3, 0.45))
    inside = min(0.55, lit * 0.6) if lit > 0.5 else 0.0
    tint = (0.62, 0.58, 0.45) if inside else mix(GLASS, SHINE, float(rng.uniform(0.1, 0.4)))
    band = [(-half + 0.1, belt), (half - 0.05, belt), (half - 0.05, head), (-half + 0.1, head)]
    side_patch(part, wide + 0.003, band, DARK)
    count = max(4, round(2 * half / 1.45))
    step = (2 * half - 0.3) / count
    for window in range(count):
        z = -half + 0.15 + window * step
        low = belt + 0.05
        pane = [
            (z + 0.05, low),
            (z + step - 0.05, low),
            (z + step - 0.05, head - 0.05),
            (z + 0.05, head - 0.05),
        ]
        side_patch(part, wide + 0.004, pane, tint, inside)
        upper = [(z + 0.05, head - 0.3), (z + step - 0.05, head - 0.3), pane[2], pane[3]]
        side_patch(part, wide + 0.005, upper, mix(tint, SHINE, 0.5), inside)
    for z in (half - 1.3, -half + 0.46 * 2 * half):
        door = [(z, 0.38), (z + 1.0, 0.38), (z + 1.0, head), (z, head)]
        side_patch(part, wide + 0.006, door, DARK)
        for leaf in (z + 0.05, z + 0.53):
            glass = [
                (leaf, 0.5),
                (leaf + 0.42, 0.5),
                (leaf + 0.42, head - 0.06),
                (leaf, head - 0.06),
            ]
            side_patch(part, wide + 0.007, glass, mix(tint, SHINE, 0.15), inside)


def _bus_ends(
    part: Part,
    half: float,
    wide: float,
    belt: float,
    top: float,
    lit: float,
    second: Colour,
    rng: np.random.Generator,
) -> None:
    z = half + 0.004
    glow = min(1.0, lit * 1.4) if lit > 0.05 else 0.1
    end_patch(part, z, (-wide * 0.95, wide * 0.95), (belt * 0.88, top - 0.42), DARK)
    end_patch(
        part,
        z + 0.002,
        (-wide * 0.91, wide * 0.91),
        (belt * 0.92, top - 0.46),
        mix(GLASS, SHINE, 0.25),
    )
    end_patch(
        part,
        z + 0.003,
        (-wide * 0.91, wide * 0.3),
        (top - 0.95, top - 0.46),
        mix(GLASS, SHINE, 0.6),
    )
    end_patch(part, z + 0.002, (-wide * 0.8, wide * 0.8), (top - 0.36, top - 0.08), DARK)
    end_patch(
        part,
        z + 0.003,
        (-wide * 0.6, wide * 0.5),
        (top - 0.29, top - 0.15),
        (0.95, 0.62, 0.12),
        0.8,
    )
    end_patch(part, z, (-wide * 0.98, wide * 0.98), (0.3, 0.55), mix(second, DARK, 0.4))
    rear_glass = float(rng.uniform(0.5, 0.85))
    end_patch(part, -z, (-wide * rear_glass, wide * rear_glass), (belt * 1.05, top - 0.4), DARK)
    end_patch(
        part,
        -z - 0.002,
        (-wide * (rear_glass - 0.04), wide * (rear_glass - 0.04)),
        (belt * 1.09, top - 0.45),
        mix(GLASS, SHINE, 0.3),
    )
    for row in range(4):
        y = 0.62 + row * 0.11
        end_patch(part, -z - 0.001, (-wide * 0.55, wide * 0.55), (y, y + 0.05), DARK)
    end_patch(part, -z, (-wide * 0.97, wide * 0.97), (0.3, 0.5), DARK)
    for side in (-1.0, 1.0):
        x0, x1 = sorted((side * wide * 0.66, side * wide * 0.94))
        end_patch(part, z + 0.003, (x0, x1), (0.6, 0.82), HEAD, glow)
        end_patch(
            part,
            -z - 0.003,
            (x0 + side * 0.06, x1),
            (0.85, 1.25),
            TAIL,
            0.35 + 0.65 * lit if lit > 0.05 else 0.15,
        )
        arm = [
            (side * (wide + 0.22), top - 0.9, half + 0.2),
            (side * (wide + 0.22), top - 0.5, half + 0.1),
        ]
        part.pieces.append(Piece(arm, DARK, None, (0.09, 0.09)))
    end_patch(part, z + 0.003, (-0.26, 0.26), (0.36, 0.48), PLATES[0])
    end_patch(part, -z - 0.003, (-0.26, 0.26), (0.36, 0.48), PLATES[0])
