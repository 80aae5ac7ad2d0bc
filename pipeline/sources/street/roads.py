"""The painted ground of a drawn street: asphalt, lines, kerbs, pavements, verges.

Painted as reflectance (255 = white); rows lie along the way, columns across.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.sources.street.backdrop import Ground, Image, lit_picture
from pipeline.sources.street.layout import LANE, Layout
from pipeline.sources.street.light import Mood
from pipeline.sources.street.pixel_classes import GRASS, PAVEMENT, ROAD
from pipeline.sources.street.texture import cloud, grain

_ROAD_LOOP, _ALONG, _ACROSS = 96.0, 12.0, 20.0
Column = Callable[[float], int]
"""Gives the column of a place, metres right of the camera's lane."""
_WHITE, _YELLOW = (205, 205, 200), (200, 160, 60)


def paint_ground(layout: Layout, mood: Mood, rng: np.random.Generator) -> Ground:
    """Paint the ground: asphalt, lines, kerbs, pavements, and what lies behind them."""
    left, right = layout.wall[0] - 2.0, layout.wall[1] + 2.0
    rows, columns = round(_ROAD_LOOP * _ALONG), round((right - left) * _ACROSS)
    picture = np.empty((rows, columns, 3), np.uint8)
    green = np.array([88, 104, 52]) + rng.integers(-18, 18, 3)
    if rng.random() < 0.3:
        green = np.array([150, 132, 88]) + rng.integers(-15, 15, 3)  # dry grass
    picture[:] = green
    kinds = np.full((rows, columns), GRASS, np.uint8)

    def column(x: float) -> int:
        return round((x - left) * _ACROSS)

    road0, road1 = column(layout.road[0]), column(layout.road[1])
    asphalt = int(rng.integers(78, 128))
    tint = rng.integers(-4, 5, 3)
    picture[:, road0:road1] = np.clip(asphalt + tint, 0, 255)
    kinds[:, road0:road1] = ROAD
    _pavements(picture, kinds, layout, column, rng)
    _wear(picture, layout, column, road0, road1, rng)
    if layout.median is not None:
        m0, m1 = column(layout.median[0]), column(layout.median[1])
        grown = rng.random() < 0.7
        picture[:, m0:m1] = green if grown else (128, 126, 120)
        kinds[:, m0:m1] = GRASS if grown else PAVEMENT
        picture[:, m0 : m0 + 5] = picture[:, m1 - 5 : m1] = (150, 148, 142)
    if layout.crossing is not None:
        row = round(layout.crossing * _ALONG)
        half = round(4.2 * _ALONG)
        picture[row - half : row + half] = np.clip(asphalt + tint + 2, 0, 255)
        kinds[row - half : row + half] = ROAD
    _lines(picture, layout, column, rng)
    shade = cloud(rng, rows // 8, columns // 8, 12)
    gain = (
        cv2.resize(shade, (columns, rows), interpolation=cv2.INTER_LINEAR)[:, :, None] * 0.10 + 1.0
    )
    picture = np.clip(picture * gain, 0, 255).astype(np.uint8)
    grain(picture, rng, float(rng.uniform(4, 9)))
    if mood.shadow and layout.kind != "highway":
        _house_shadow(picture, layout, column, mood, rng)
    if layout.mirrored:
        picture, kinds = np.ascontiguousarray(picture[:, ::-1]), kinds[:, ::-1]
        left = -right
    return Ground(lit_picture(picture, mood, (0.0, 1.0, 0.0)), kinds, left, _ALONG, _ACROSS)


def _house_shadow(
    picture: Image, layout: Layout, column: Column, mood: Mood, rng: np.random.Generator
) -> None:
    """Darken what the houses or trees on the sun's side keep the sun from."""
    towards = mood.towards_sun[0] * (-1 if layout.mirrored else 1)
    reach = float(rng.uniform(0.5, 1.4)) * abs(towards) / max(0.3, mood.towards_sun[1]) * 7.0
    rows = picture.shape[0]
    edge = layout.wall[1] - reach if towards > 0 else layout.wall[0] + reach
    cells = 24
    jags = np.repeat(rng.uniform(-2.5, 2.0, cells), rows // cells + 1)[:rows]
    smooth = cv2.blur(jags.reshape(-1, 1), (1, 9)).ravel().tolist()
    columns = np.arange(picture.shape[1])[None, :]
    border = np.array([column(edge + jag) for jag in smooth])[:, None]
    dark = columns > border if towards > 0 else columns < border
    soft = cv2.blur(dark.astype(np.float32), (9, 5))[:, :, None]
    np.copyto(picture, (picture * (1 - soft * mood.shadow)).astype(np.uint8))


def _pavements(
    picture: Image, kinds: Image, layout: Layout, column: Column, rng: np.random.Generator
) -> None:
    """Paint kerbs and pavements, or a highway's verge, on both sides."""
    if layout.kind == "highway":
        return
    stone = np.array([1.0, 0.98, 0.94]) * float(rng.integers(120, 175))
    slab = int(rng.integers(10, 24))
    for edge, out in ((layout.road[0], -1), (layout.road[1], 1)):
        near, far = edge, edge + out * layout.walk
        a, b = sorted((column(near), column(far)))
        picture[:, a:b] = stone
        kinds[:, a:b] = PAVEMENT
        if layout.kind != "suburb":
            picture[::slab, a:b] = stone * 0.86
            for x in range(a, b, slab):
                picture[:, x] = stone * 0.86
        kerb = sorted((column(near), column(near + out * 0.22)))
        picture[:, kerb[0] : kerb[1]] = np.minimum(stone * 1.16, 215)
        gutter = sorted((column(near - out * 0.3), column(near)))
        picture[:, gutter[0] : gutter[1]] = picture[:, gutter[0] : gutter[1]] * 0.82
        if layout.kind in ("city", "junction"):
            # Forecourt up to the houses.
            a, b = sorted((column(far), column(far + out * 12)))
            picture[:, max(0, a) : max(0, b)] = stone * 0.9
            kinds[:, max(0, a) : max(0, b)] = PAVEMENT


def _wear(
    picture: Image,
    layout: Layout,
    column: Column,
    road0: int,
    road1: int,
    rng: np.random.Generator,
) -> None:
    """Add tyre tracks, patches, cracks and manhole covers."""
    rows = picture.shape[0]
    depth = float(rng.uniform(-0.14, 0.10))
    for middle, _ in layout.lanes:
        for track in (-0.8, 0.8):
            a, b = column(middle + track - 0.35), column(middle + track + 0.35)
            if road0 <= a and b <= road1:
                picture[:, a:b] = np.clip(picture[:, a:b] * (1 + depth), 0, 255)
    for _ in range(int(rng.integers(0, 7))):
        y, x = int(rng.integers(rows)), int(rng.integers(road0, road1))
        high, wide = int(rng.integers(10, 120)), int(rng.integers(10, 60))
        patch = picture[y : y + high, x : min(road1, x + wide)]
        patch[:] = np.clip(patch * float(rng.uniform(0.75, 1.18)), 0, 255)
    for _ in range(int(rng.integers(0, 10))):
        drift = np.array([0.0, rng.choice([-8.0, 8.0])])
        start = np.array([rng.integers(road0, road1), rng.integers(rows)])
        points = (start + np.cumsum(rng.normal(0, 7, (14, 2)) + drift, axis=0)).astype(np.int32)
        inside = (points[:, 0] > road0) & (points[:, 0] < road1)
        if inside.any():
            cv2.polylines(picture, [points[inside]], False, (58, 57, 56), 1)
    for _ in range(int(rng.integers(0, 4))):
        place = (int(rng.integers(road0 + 10, road1 - 10)), int(rng.integers(rows)))
        cv2.ellipse(picture, (place, (11, 7), 0), (62, 60, 58), -1)


def _lines(picture: Image, layout: Layout, column: Column, rng: np.random.Generator) -> None:
    """Paint lane lines, edge lines, a zebra crossing."""
    rows = picture.shape[0]
    worn = float(rng.uniform(0.55, 1.0))

    def stripe(
        x: float,
        colour: tuple[int, int, int],
        on: float = 1.0,
        period: float = 0.0,
        half: float = 0.075,
    ) -> None:
        a, b = column(x - half), max(column(x + half), column(x - half) + 2)
        where = np.ones(rows, bool)
        if period:
            where = (np.arange(rows) / _ALONG) % period < on
        own = picture[where, a:b].astype(np.float32)
        picture[where, a:b] = (own + (np.array(colour) - own) * worn).astype(np.uint8)

    period = (6.0, 8.0, 12.0)[int(rng.integers(3))]
    dash = period * float(rng.uniform(0.3, 0.55))
    by_direction = {way: sorted(x for x, d in layout.lanes if d == way) for way in (1, -1)}
    for middles in by_direction.values():
        for middle in middles[:-1]:
            stripe(middle + LANE / 2, _WHITE, dash, period)
    edge = rng.random() < 0.8 or layout.kind == "highway"
    centre = by_direction[1][0] - LANE / 2
    yellow = _YELLOW if rng.random() < 0.45 else _WHITE
    if layout.median is not None:
        stripe(centre + 0.15, yellow)
        stripe(layout.median[0] - 0.15, yellow)
    elif rng.random() < 0.5:
        stripe(centre - 0.2, yellow)
        stripe(centre + 0.05, yellow)
    else:
        stripe(centre - 0.07, yellow, dash, period)
    if edge:
        for side in (0, 1):
            inner = 2.2 if layout.parking[side] else 0.25
            if layout.kind == "highway":
                inner = 2.3
            x = layout.road[0] + inner if side == 0 else layout.road[1] - inner
            stripe(x, _WHITE)
    zebra: float | None = None
    if layout.crossing is not None:
        zebra = layout.crossing - 7.5
    elif layout.kind in ("city", "suburb", "pole") and rng.random() < 0.6:
        zebra = float(rng.uniform(8, 85))
    if zebra is not None:
        _zebra(picture, layout, column, zebra, worn)


def _zebra(picture: Image, layout: Layout, column: Column, z: float, worn: float) -> None:
    rows = slice(round(z * _ALONG), round((z + 2.8) * _ALONG))
    x = layout.road[0] + 0.5
    while x < layout.road[1] - 0.6:
        bar = picture[rows, column(x) : column(x + 0.5)].astype(np.float32)
        picture[rows, column(x) : column(x + 0.5)] = bar + (np.array(_WHITE) - bar) * worn
        x += 1.0
    near = slice(round((z - 1.6) * _ALONG), round((z - 1.2) * _ALONG))
    for middle, direction in layout.lanes:
        if direction == 1:
            picture[near, column(middle - 1.5) : column(middle + 1.5)] = _WHITE
