"""Light of a drawn street: what the sun, the sky and the lamps do to a surface's own colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue; reflectances and lights lie in [0, 1], finished colours in [0, 255]."""
Vector = tuple[float, float, float]
"""Right, up, forward in metres, seen from the camera's place on the ground."""


@dataclass(frozen=True)
class Mood:
    """Light of one drive; made once for each street by :func:`draw_mood`."""

    name: str
    """``day``, ``overcast``, ``dusk`` or ``night``."""
    ambient: Colour
    sun: Colour
    towards_sun: Vector
    sky_top: Colour
    sky_low: Colour
    haze: Colour
    haze_per_metre: float
    lamps: float
    """0 = vehicle and street lamps off, 1 = they are what one sees by."""
    shadow: float
    """Opacity of a cast shadow; soft contact shadows are always drawn."""

    def shade(self, albedo: Colour, normal: Vector | None) -> Colour:
        """Give the colour in [0, 255] that a matt surface shows; ``normal`` None means round."""
        if normal is None:
            sky, sun = 0.9, 0.45
        else:
            nx, ny, nz = normal
            sx, sy, sz = self.towards_sun
            sky = 0.72 + 0.28 * ny
            sun = max(0.0, nx * sx + ny * sy + nz * sz)
        (red, green, blue), (a_red, a_green, a_blue) = albedo, self.ambient
        s_red, s_green, s_blue = self.sun
        return (
            min(255.0, 255.0 * red * (sky * a_red + sun * s_red)),
            min(255.0, 255.0 * green * (sky * a_green + sun * s_green)),
            min(255.0, 255.0 * blue * (sky * a_blue + sun * s_blue)),
        )

    def veil(self, distance: float) -> float:
        """Share of the haze colour in what is seen at ``distance`` metres, in [0, 1)."""
        return 1.0 - math.exp(-max(0.0, distance) * self.haze_per_metre)


def _scaled(colour: Colour, gain: float) -> Colour:
    return colour[0] * gain, colour[1] * gain, colour[2] * gain


def _sun_at(azimuth: float, elevation: float) -> Vector:
    flat = math.cos(elevation)
    return math.sin(azimuth) * flat, math.sin(elevation), math.cos(azimuth) * flat


def draw_mood(rng: np.random.Generator) -> Mood:
    """Choose the light of a drive: six of ten by day, the others overcast, at dusk, at night."""
    kind = rng.choice(["day", "overcast", "dusk", "night"], p=[0.46, 0.26, 0.13, 0.15])
    azimuth = float(rng.uniform(-math.pi, math.pi))
    gain = float(rng.uniform(0.9, 1.12))
    clear = float(rng.uniform(0.0012, 0.004))
    if kind == "day":
        warm = float(rng.uniform(0.0, 1.0))
        return Mood(
            name="day",
            ambient=_scaled((0.60, 0.63, 0.70), gain),
            sun=_scaled((0.72, 0.68 - 0.04 * warm, 0.60 - 0.12 * warm), gain),
            towards_sun=_sun_at(azimuth, float(rng.uniform(0.5, 1.1))),
            sky_top=(88 + 30 * warm, 138 + 20 * warm, 205),
            sky_low=(188, 208, 228),
            haze=(190, 204, 220),
            haze_per_metre=clear,
            lamps=0.12 if rng.random() < 0.4 else 0.0,
            shadow=0.55,
        )
    if kind == "overcast":
        grey = float(rng.uniform(165, 225))
        return Mood(
            name="overcast",
            ambient=_scaled((0.86, 0.88, 0.91), gain),
            sun=(0.10, 0.10, 0.10),
            towards_sun=_sun_at(azimuth, 1.2),
            sky_top=(grey * 0.86, grey * 0.89, grey * 0.94),
            sky_low=(grey * 1.08, grey * 1.09, grey * 1.1),
            haze=(grey, grey, grey * 1.02),
            haze_per_metre=clear * float(rng.uniform(1.0, 3.0)),
            lamps=0.25 if rng.random() < 0.5 else 0.0,
            shadow=0.0,
        )
    if kind == "dusk":
        return Mood(
            name="dusk",
            ambient=_scaled((0.46, 0.43, 0.49), gain),
            sun=(0.34, 0.21, 0.12),
            towards_sun=_sun_at(azimuth, 0.22),
            sky_top=(78, 92, 138),
            sky_low=(232, 172, 128),
            haze=(176, 146, 138),
            haze_per_metre=clear,
            lamps=0.55,
            shadow=0.2,
        )
    glow = float(rng.uniform(0.8, 1.5))
    return Mood(
        name="night",
        ambient=_scaled((0.25, 0.235, 0.225), glow),
        sun=_scaled((0.16, 0.12, 0.07), glow),
        towards_sun=_sun_at(azimuth, 1.3),
        sky_top=(8, 10, 18),
        sky_low=(34, 32, 38),
        haze=(30, 28, 32),
        haze_per_metre=clear * 0.6,
        lamps=1.0,
        shadow=0.0,
    )
