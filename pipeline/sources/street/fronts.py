"""The painted sides of a drawn street: houses and shops, villas, hedges, belts of trees.

Painted as reflectance (255 = white); columns lie along the way, the last row on the ground.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Image, lit_picture
from pipeline.sources.street.foliage import break_into_leaves
from pipeline.sources.street.layout import Layout
from pipeline.sources.street.light import Mood
from pipeline.sources.street.pixel_classes import BUILDING, FENCE, TREE
from pipeline.sources.street.texture import cloud, grain
from pipeline.sources.street.walls import Wall

_WALL_LOOP, _WALL_SCALE = 128.0, 14.0
_FRONTS = ((168, 96, 72), (150, 84, 66), (196, 178, 148), (205, 196, 180), (176, 150, 120),
           (150, 150, 148), (120, 116, 112), (206, 186, 130), (190, 150, 140), (110, 128, 140),
           (222, 216, 204))  # fmt: skip  # a table


def paint_walls(layout: Layout, mood: Mood, rng: np.random.Generator) -> list[Wall]:
    """Paint the rows of houses, or of greenery, that close the street on both sides."""
    walls = []
    for side in (0, 1):
        x = layout.wall[side] * (-1 if layout.mirrored else 1)
        high = 24.0 if layout.kind in ("city", "junction") else 13.0
        rows, columns = round(high * _WALL_SCALE), round(_WALL_LOOP * _WALL_SCALE)
        picture, kinds = np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), np.uint8)
        if layout.kind in ("city", "junction"):
            _house_row(picture, kinds, rng, mood.lamps)
        elif layout.kind == "suburb":
            _greenery(picture, kinds, rng, 4.0)
            _villas(picture, kinds, rng, mood.lamps)
            _hedge(picture, kinds, rng, 1.3)
        else:
            _greenery(picture, kinds, rng, float(rng.uniform(2.0, 9.0)))
            if layout.kind == "pole" and rng.random() < 0.6:
                _villas(picture, kinds, rng, mood.lamps)
            high = float(rng.uniform(0.5, 3.0))
            _hedge(picture, kinds, rng, high, stone=bool(rng.random() < 0.5))
        windows = picture.copy() if mood.lamps > 0.4 else None
        grain(picture, rng, 4.0)
        if layout.crossing is not None:
            gap = slice(
                round((layout.crossing - 7) * _WALL_SCALE),
                round((layout.crossing + 7) * _WALL_SCALE),
            )
            kinds[:, gap] = 0
        lit = lit_picture(picture, mood, (-1.0 if x > 0 else 1.0, 0.0, 0.0))
        if windows is not None:
            red, _, blue = cv2.split(windows)
            bright = (red > 240) & (blue > 90)  # lit from within, whatever shines outside
            lit[bright] = windows[bright] * 0.85
        walls.append(Wall(lit, kinds, mood, x, _WALL_SCALE))
    return walls


def _rect(
    picture: Image, x0: float, y0: float, x1: float, y1: float, colour: npt.ArrayLike
) -> None:
    """Fill a rectangle given in metres along and metres above the ground."""
    rows = picture.shape[0]
    a, b = round(x0 * _WALL_SCALE), round(x1 * _WALL_SCALE)
    top, bottom = max(0, rows - round(y1 * _WALL_SCALE)), rows - round(y0 * _WALL_SCALE)
    picture[top : max(top, bottom), max(0, a) : max(0, b)] = np.asarray(colour)


def _glass(rng: np.random.Generator, lamps: float) -> tuple[int, int, int]:
    if lamps > 0.4 and rng.random() < 0.35:
        return (255, int(rng.integers(190, 235)), int(rng.integers(110, 190)))
    base = int(rng.integers(28, 92))
    return base, min(255, base + 6), min(255, base + 14)


def _house_row(picture: Image, kinds: Image, rng: np.random.Generator, lamps: float) -> None:
    x = 0.0
    while x < _WALL_LOOP:
        wide = min(float(rng.uniform(7, 20)), _WALL_LOOP - x)
        if rng.random() < 0.08:
            x += min(6.0, wide)  # a gap between two houses
            continue
        _house(picture, kinds, rng, x, x + wide, float(rng.uniform(6.5, 21)), lamps)
        x += wide


def _house(
    picture: Image,
    kinds: Image,
    rng: np.random.Generator,
    x0: float,
    x1: float,
    high: float,
    lamps: float,
) -> None:
    front = np.clip(
        np.array(_FRONTS[int(rng.integers(len(_FRONTS)))]) + rng.integers(-14, 15, 3), 0, 220
    )
    _rect(picture, x0, 0, x1, high, front)
    _rect(kinds, x0, 0, x1, high, BUILDING)
    if front[0] > front[2] + 40:  # brick courses
        for course in np.arange(0, high, 0.35):
            _rect(picture, x0, course, x1, course + 0.08, front * 0.88)
    _rect(picture, x0, high - 0.35, x1, high, front * 0.7)
    _rect(picture, x0, 0, x0 + 0.12, high, front * 0.72)
    storey, bay = float(rng.uniform(2.9, 3.6)), float(rng.uniform(1.9, 3.2))
    shop = rng.random() < 0.55
    pane_w, pane_h = bay * float(rng.uniform(0.4, 0.7)), storey * float(rng.uniform(0.45, 0.62))
    frame = (215, 212, 205) if rng.random() < 0.6 else tuple(int(v) for v in front * 0.55)
    base = 3.6 if shop else 0.9
    count = max(1, int((x1 - x0 - 0.6) / bay))
    step = (x1 - x0) / count
    y = base
    while y + pane_h < high - 0.5:
        for window in range(count):
            left = x0 + (window + 0.5) * step - pane_w / 2
            _rect(picture, left - 0.1, y - 0.12, left + pane_w + 0.1, y + pane_h + 0.1, frame)
            glass = _glass(rng, lamps)
            _rect(picture, left, y, left + pane_w, y + pane_h, glass)
            _rect(
                picture,
                left,
                y + pane_h * 0.6,
                left + pane_w,
                y + pane_h,
                np.minimum(np.array(glass) * 1.25, 255),
            )
            _rect(picture, left + pane_w / 2 - 0.04, y, left + pane_w / 2 + 0.04, y + pane_h, frame)
            _rect(picture, left - 0.15, y - 0.22, left + pane_w + 0.15, y - 0.1, front * 0.75)
        y += storey
    if shop:
        _shop(picture, rng, x0, x1, lamps)
    else:
        door = x0 + (x1 - x0) * float(rng.uniform(0.2, 0.8))
        _rect(picture, door, 0, door + 1.1, 2.2, rng.integers(30, 120, 3))
    if rng.random() < 0.4:  # pitched roof, seen as a tiled band
        roof = float(rng.uniform(1.2, 2.6))
        _rect(
            picture, x0, high, x1, high + roof, (96, 62, 50) if rng.random() < 0.6 else (70, 70, 74)
        )
        _rect(kinds, x0, high, x1, high + roof, BUILDING)
        chimney = x0 + (x1 - x0) * float(rng.uniform(0.1, 0.8))
        _rect(picture, chimney, high + roof, chimney + 0.9, high + roof + 0.9, front * 0.7)
        _rect(kinds, chimney, high + roof, chimney + 0.9, high + roof + 0.9, BUILDING)


def _shop(picture: Image, rng: np.random.Generator, x0: float, x1: float, lamps: float) -> None:
    _rect(picture, x0 + 0.2, 0.0, x1 - 0.2, 3.1, (58, 56, 54))
    bright = lamps > 0.4 and rng.random() < 0.7
    panes = max(1, int((x1 - x0) / 2.6))
    step = (x1 - x0 - 0.6) / panes
    for pane in range(panes):
        left = x0 + 0.3 + pane * step
        glass = (250, 225, 170) if bright else _glass(rng, 0.0)
        _rect(picture, left + 0.08, 0.4 if pane % 3 else 0.0, left + step - 0.08, 2.6, glass)
        _rect(picture, left + 0.3, 0.5, left + step * 0.6, 1.3, np.array(glass) * 0.6)
    sign = rng.integers(30, 200, 3)
    _rect(picture, x0 + 0.2, 2.7, x1 - 0.2, 3.35, sign)
    middle = (x0 + x1) / 2
    letters = (x1 - x0) * 0.25
    for letter in np.arange(middle - letters, middle + letters, 0.45):
        if rng.random() < 0.85:
            _rect(picture, letter, 2.85, letter + 0.3, 3.2, 255 - sign // 3)
    if rng.random() < 0.4:
        awning = rng.integers(60, 210, 3)
        for n, stripe in enumerate(np.arange(x0 + 0.3, x1 - 0.5, 0.5)):
            _rect(picture, stripe, 2.3, stripe + 0.5, 2.8, awning if n % 2 else (205, 200, 190))


def _villas(picture: Image, kinds: Image, rng: np.random.Generator, lamps: float) -> None:
    x = float(rng.uniform(0, 8))
    while x < _WALL_LOOP - 12:
        wide, high = float(rng.uniform(8, 12)), float(rng.uniform(3.2, 6.4))
        front = np.array(_FRONTS[int(rng.integers(len(_FRONTS)))])
        rows = picture.shape[0]

        def at(a: float, b: float, rows: int = rows) -> list[int]:
            return [round(a * _WALL_SCALE), rows - round(b * _WALL_SCALE)]

        roof = np.array(
            [
                at(x - 0.6, high),
                at(x + wide + 0.6, high),
                at(x + wide * 0.72, high + 2.6),
                at(x + wide * 0.28, high + 2.6),
            ],
            np.int32,
        )
        tiles = (112, 66, 50) if rng.random() < 0.5 else (78, 76, 78)
        cv2.fillPoly(picture, [roof], tiles)
        cv2.fillPoly(kinds, [roof], (BUILDING,))
        _rect(picture, x, 0, x + wide, high, front)
        _rect(kinds, x, 0, x + wide, high, BUILDING)
        for y in np.arange(0.9, high - 1.0, 2.7):
            for left in np.arange(x + 0.8, x + wide - 1.6, 2.4):
                _rect(picture, left - 0.1, y - 0.1, left + 1.4, y + 1.4, (210, 208, 200))
                _rect(picture, left, y, left + 1.3, y + 1.3, _glass(rng, lamps))
        _rect(picture, x + wide * 0.45, 0, x + wide * 0.45 + 1.1, 2.1, rng.integers(40, 120, 3))
        x += wide + float(rng.uniform(3, 14))


def _greenery(picture: Image, kinds: Image, rng: np.random.Generator, high: float) -> None:
    """Paint a ragged belt of trees."""
    rows, columns = kinds.shape
    base = np.array([58, 84, 38]) * float(rng.uniform(0.7, 1.2))
    for layer in range(4):
        level = high * (1 - layer * 0.18)
        for _ in range(150):
            x, y = int(rng.integers(columns)), float(rng.uniform(0.1, 1.0)) * level
            size = int(float(rng.uniform(0.35, 1.3)) * _WALL_SCALE * min(1.0, 0.4 + high / 8))
            light = (0.55 + 0.5 * y / high) * float(rng.uniform(0.75, 1.2))
            centre = (x, rows - round(y * _WALL_SCALE))
            colour = tuple(float(v) for v in np.clip(base * light, 0, 255))
            cv2.circle(picture, centre, size, colour, -1)
            cv2.circle(kinds, centre, size, (TREE,), -1)
    leafy, veil = break_into_leaves(picture, kinds, 0.16 * _WALL_SCALE)
    np.copyto(picture, leafy)
    np.copyto(kinds, veil)
    low = round(high * 0.25 * _WALL_SCALE)
    kinds[rows - low :] = TREE
    empty = picture[rows - low :].max(axis=2) == 0
    picture[rows - low :][empty] = np.clip(base * 0.5, 0, 255)


def _hedge(
    picture: Image, kinds: Image, rng: np.random.Generator, high: float, stone: bool = False
) -> None:
    """Paint a hedge, a fence or a barrier at the foot of the plane."""
    rows = kinds.shape[0]
    top = rows - round(high * _WALL_SCALE)
    colour = np.array([150, 148, 142]) if stone else np.array([62, 78, 40])
    strip = picture[top:]
    strip[:] = colour
    if stone:
        strip[:, :: round(4 * _WALL_SCALE)] = colour * 0.7
        strip[:3] = np.minimum(colour * 1.2, 235)
    else:
        lumps = cloud(rng, strip.shape[0], strip.shape[1], 220)[:, :, None]
        np.copyto(strip, np.clip(strip * (1 + 0.4 * lumps), 0, 255).astype(np.uint8))
    kinds[top:] = FENCE if stone else TREE
