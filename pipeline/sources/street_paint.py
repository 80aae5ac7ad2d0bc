"""Pictures of road, house fronts and sky that a drawn street is covered with.

Everything is painted as reflectance (255 = white) at a few pixels per metre.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street_backdrop import Ground, Image, Sky, Wall, lit_picture
from pipeline.sources.street_light import Mood
from pipeline.sources.street_solids import break_into_leaves
from pipeline.sources.street_traffic import LANE, Layout

_ROAD_LOOP, _ALONG, _ACROSS = 96.0, 12.0, 20.0
_WALL_LOOP, _WALL_SCALE = 128.0, 14.0
_WHITE, _YELLOW = (205, 205, 200), (200, 160, 60)


def cloud(rng: np.random.Generator, height: int, width: int, cells: int) -> npt.NDArray[np.float32]:
    """Give smooth noise (height, width) in about [-1, 1]: three octaves of ``cells`` lumps."""
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        rows = max(2, cells * 2**octave * height // max(height, width))
        columns = max(2, cells * 2**octave * width // max(height, width))
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total * np.float32(0.6)


def _grain(picture: Image, rng: np.random.Generator, size: float) -> None:
    """Roughen a picture in place with a repeated tile of grain."""
    tile = rng.normal(0, size, (96, 128, 1)).astype(np.int16)
    rows, columns = picture.shape[0] // 96 + 1, picture.shape[1] // 128 + 1
    whole = np.tile(tile, (rows, columns, 1))[: picture.shape[0], : picture.shape[1]]
    np.copyto(picture, np.clip(picture + whole, 0, 255).astype(np.uint8))


def paint_ground(layout: Layout, mood: Mood, rng: np.random.Generator) -> Ground:
    """Paint the ground: asphalt, lines, kerbs, pavements, and what lies behind them."""
    left, right = layout.wall[0] - 2.0, layout.wall[1] + 2.0
    rows, columns = round(_ROAD_LOOP * _ALONG), round((right - left) * _ACROSS)
    picture = np.empty((rows, columns, 3), np.uint8)
    green = np.array([88, 104, 52]) + rng.integers(-18, 18, 3)
    if rng.random() < 0.3:
        green = np.array([150, 132, 88]) + rng.integers(-15, 15, 3)  # dry grass
    picture[:] = green

    def column(x: float) -> int:
        return round((x - left) * _ACROSS)

    road0, road1 = column(layout.road[0]), column(layout.road[1])
    asphalt = int(rng.integers(78, 128))
    tint = rng.integers(-4, 5, 3)
    picture[:, road0:road1] = np.clip(asphalt + tint, 0, 255)
    _pavements(picture, layout, column, rng)
    _wear(picture, layout, column, road0, road1, rng)
    if layout.median is not None:
        m0, m1 = column(layout.median[0]), column(layout.median[1])
        picture[:, m0:m1] = green if rng.random() < 0.7 else (128, 126, 120)
        picture[:, m0 : m0 + 5] = picture[:, m1 - 5 : m1] = (150, 148, 142)
    if layout.crossing is not None:
        row = round(layout.crossing * _ALONG)
        half = round(4.2 * _ALONG)
        picture[row - half : row + half] = np.clip(asphalt + tint + 2, 0, 255)
    _lines(picture, layout, column, rng)
    shade = cloud(rng, rows // 8, columns // 8, 12)
    gain = cv2.resize(shade, (columns, rows), interpolation=cv2.INTER_LINEAR)[:, :, None] * 0.10 + 1.0
    picture = np.clip(picture * gain, 0, 255).astype(np.uint8)
    _grain(picture, rng, float(rng.uniform(4, 9)))
    if mood.shadow and layout.kind != "highway":
        _house_shadow(picture, layout, column, mood, rng)
    if layout.mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
        left = -right
    return Ground(lit_picture(picture, mood, (0.0, 1.0, 0.0)), mood, left, _ALONG, _ACROSS)


def _house_shadow(picture: Image, layout: Layout, column, mood: Mood, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    """Darken what the houses or trees on the sun's side keep the sun from."""
    towards = mood.towards_sun[0] * (-1 if layout.mirrored else 1)
    reach = float(rng.uniform(0.5, 1.4)) * abs(towards) / max(0.3, mood.towards_sun[1]) * 7.0
    rows = picture.shape[0]
    edge = layout.wall[1] - reach if towards > 0 else layout.wall[0] + reach
    cells = 24
    jags = np.repeat(rng.uniform(-2.5, 2.0, cells), rows // cells + 1)[:rows]
    jags = cv2.blur(jags.reshape(-1, 1), (1, 9)).ravel()
    columns = np.arange(picture.shape[1])[None, :]
    border = np.array([column(edge + jag) for jag in jags])[:, None]
    dark = columns > border if towards > 0 else columns < border
    soft = cv2.blur(dark.astype(np.float32), (9, 5))[:, :, None]
    np.copyto(picture, (picture * (1 - soft * mood.shadow)).astype(np.uint8))


def _pavements(picture: Image, layout: Layout, column, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    """Paint kerbs and pavements, or a highway's verge, on both sides."""
    if layout.kind == "highway":
        return
    stone = np.array([1.0, 0.98, 0.94]) * float(rng.integers(120, 175))
    slab = int(rng.integers(10, 24))
    for edge, out in ((layout.road[0], -1), (layout.road[1], 1)):
        near, far = edge, edge + out * layout.walk
        a, b = sorted((column(near), column(far)))
        picture[:, a:b] = stone
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


def _wear(picture: Image, layout: Layout, column, road0: int, road1: int,  # type: ignore[no-untyped-def]
          rng: np.random.Generator) -> None:
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
        steps = np.cumsum(rng.normal(0, 7, (14, 2)) + [0, rng.choice([-8, 8])], axis=0)
        points = (steps + [rng.integers(road0, road1), rng.integers(rows)]).astype(np.int32)
        inside = (points[:, 0] > road0) & (points[:, 0] < road1)
        cv2.polylines(picture, [points[inside]], False, (58, 57, 56), 1)
    for _ in range(int(rng.integers(0, 4))):
        place = (int(rng.integers(road0 + 10, road1 - 10)), int(rng.integers(rows)))
        cv2.ellipse(picture, (place, (11, 7), 0), (62, 60, 58), -1)


def _lines(picture: Image, layout: Layout, column, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    """Paint lane lines, edge lines, a zebra crossing."""
    rows = picture.shape[0]
    worn = float(rng.uniform(0.55, 1.0))

    def stripe(x: float, colour: tuple[int, int, int], on: float = 1.0, period: float = 0.0,
               half: float = 0.075) -> None:  # fmt: skip
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


def _zebra(picture: Image, layout: Layout, column, z: float, worn: float) -> None:  # type: ignore[no-untyped-def]
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


def paint_walls(layout: Layout, mood: Mood, rng: np.random.Generator) -> list[Wall]:
    """Paint the rows of houses, or of greenery, that close the street on both sides."""
    walls = []
    for side in (0, 1):
        x = layout.wall[side] * (-1 if layout.mirrored else 1)
        high = 24.0 if layout.kind in ("city", "junction") else 13.0
        rows, columns = round(high * _WALL_SCALE), round(_WALL_LOOP * _WALL_SCALE)
        picture, mask = np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), np.uint8)
        if layout.kind in ("city", "junction"):
            _house_row(picture, mask, rng, mood.lamps)
        elif layout.kind == "suburb":
            _greenery(picture, mask, rng, 4.0)
            _villas(picture, mask, rng, mood.lamps)
            _hedge(picture, mask, rng, 1.3)
        else:
            _greenery(picture, mask, rng, float(rng.uniform(2.0, 9.0)))
            if layout.kind == "pole" and rng.random() < 0.6:
                _villas(picture, mask, rng, mood.lamps)
            _hedge(picture, mask, rng, float(rng.uniform(0.5, 3.0)), stone=bool(rng.random() < 0.5))
        windows = picture.copy() if mood.lamps > 0.4 else None
        _grain(picture, rng, 4.0)
        if layout.crossing is not None:
            gap = slice(round((layout.crossing - 7) * _WALL_SCALE), round((layout.crossing + 7) * _WALL_SCALE))
            mask[:, gap] = 0
        lit = lit_picture(picture, mood, (-1.0 if x > 0 else 1.0, 0.0, 0.0))
        if windows is not None:
            red, _, blue = cv2.split(windows)
            bright = (red > 240) & (blue > 90)  # lit from within, whatever shines outside
            lit[bright] = windows[bright] * 0.85
        walls.append(Wall(lit, mask, mood, x, _WALL_SCALE))
    return walls


_FRONTS = ((168, 96, 72), (150, 84, 66), (196, 178, 148), (205, 196, 180), (176, 150, 120),
           (150, 150, 148), (120, 116, 112), (206, 186, 130), (190, 150, 140), (110, 128, 140),
           (222, 216, 204))  # fmt: skip


def _rect(picture: Image, x0: float, y0: float, x1: float, y1: float, colour: object) -> None:
    """Fill a rectangle given in metres along and metres above the ground."""
    rows = picture.shape[0]
    a, b = round(x0 * _WALL_SCALE), round(x1 * _WALL_SCALE)
    top, bottom = max(0, rows - round(y1 * _WALL_SCALE)), rows - round(y0 * _WALL_SCALE)
    picture[top : max(top, bottom), max(0, a) : max(0, b)] = colour


def _glass(rng: np.random.Generator, lamps: float) -> tuple[int, int, int]:
    if lamps > 0.4 and rng.random() < 0.35:
        return (255, int(rng.integers(190, 235)), int(rng.integers(110, 190)))
    base = int(rng.integers(28, 92))
    return base, min(255, base + 6), min(255, base + 14)


def _house_row(picture: Image, mask: Image, rng: np.random.Generator, lamps: float) -> None:
    x = 0.0
    while x < _WALL_LOOP:
        wide = min(float(rng.uniform(7, 20)), _WALL_LOOP - x)
        if rng.random() < 0.08:
            x += min(6.0, wide)  # a gap between two houses
            continue
        _house(picture, mask, rng, x, x + wide, float(rng.uniform(6.5, 21)), lamps)
        x += wide


def _house(picture: Image, mask: Image, rng: np.random.Generator, x0: float, x1: float, high: float,
           lamps: float) -> None:
    front = np.clip(np.array(_FRONTS[int(rng.integers(len(_FRONTS)))]) + rng.integers(-14, 15, 3), 0, 220)
    _rect(picture, x0, 0, x1, high, front)
    _rect(mask, x0, 0, x1, high, 255)
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
            _rect(picture, left, y + pane_h * 0.6, left + pane_w, y + pane_h, np.minimum(np.array(glass) * 1.25, 255))
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
        _rect(picture, x0, high, x1, high + roof, (96, 62, 50) if rng.random() < 0.6 else (70, 70, 74))
        _rect(mask, x0, high, x1, high + roof, 255)
        chimney = x0 + (x1 - x0) * float(rng.uniform(0.1, 0.8))
        _rect(picture, chimney, high + roof, chimney + 0.9, high + roof + 0.9, front * 0.7)
        _rect(mask, chimney, high + roof, chimney + 0.9, high + roof + 0.9, 255)


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


def _villas(picture: Image, mask: Image, rng: np.random.Generator, lamps: float) -> None:
    x = float(rng.uniform(0, 8))
    while x < _WALL_LOOP - 12:
        wide, high = float(rng.uniform(8, 12)), float(rng.uniform(3.2, 6.4))
        front = np.array(_FRONTS[int(rng.integers(len(_FRONTS)))])
        rows = picture.shape[0]

        def at(a: float, b: float, rows: int = rows) -> list[int]:
            return [round(a * _WALL_SCALE), rows - round(b * _WALL_SCALE)]

        roof = np.array([at(x - 0.6, high), at(x + wide + 0.6, high), at(x + wide * 0.72, high + 2.6),
                         at(x + wide * 0.28, high + 2.6)], np.int32)  # fmt: skip
        tiles = (112, 66, 50) if rng.random() < 0.5 else (78, 76, 78)
        cv2.fillPoly(picture, [roof], tiles)
        cv2.fillPoly(mask, [roof], (255,))
        _rect(picture, x, 0, x + wide, high, front)
        _rect(mask, x, 0, x + wide, high, 255)
        for y in np.arange(0.9, high - 1.0, 2.7):
            for left in np.arange(x + 0.8, x + wide - 1.6, 2.4):
                _rect(picture, left - 0.1, y - 0.1, left + 1.4, y + 1.4, (210, 208, 200))
                _rect(picture, left, y, left + 1.3, y + 1.3, _glass(rng, lamps))
        _rect(picture, x + wide * 0.45, 0, x + wide * 0.45 + 1.1, 2.1, rng.integers(40, 120, 3))
        x += wide + float(rng.uniform(3, 14))


def _greenery(picture: Image, mask: Image, rng: np.random.Generator, high: float) -> None:
    """Paint a ragged belt of trees."""
    rows, columns = mask.shape
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
            cv2.circle(mask, centre, size, (255,), -1)
    leafy, veil = break_into_leaves(picture, mask, 0.16 * _WALL_SCALE)
    np.copyto(picture, leafy)
    np.copyto(mask, veil)
    low = round(high * 0.25 * _WALL_SCALE)
    mask[rows - low :] = 255
    empty = (picture[rows - low :].max(axis=2) == 0)
    picture[rows - low :][empty] = np.clip(base * 0.5, 0, 255)


def _hedge(picture: Image, mask: Image, rng: np.random.Generator, high: float, stone: bool = False) -> None:
    """Paint a hedge, a fence or a barrier at the foot of the plane."""
    rows = mask.shape[0]
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
    mask[top:] = 255


def paint_sky(layout: Layout, mood: Mood, rng: np.random.Generator, size_hw: tuple[int, int],
              horizon: int) -> Sky:
    """Paint sky, clouds and a far skyline, wide enough to turn the camera a little."""
    height, width = size_hw[0], round(size_hw[1] * 1.3)
    shrink = max(1, width // 480)
    rows, columns = max(8, (horizon + 8) // shrink), width // shrink
    up = np.linspace(1, 0, rows, dtype=np.float32)[:, None, None] ** 0.8
    top, low = np.array(mood.sky_top, np.float32), np.array(mood.sky_low, np.float32)
    sky = np.broadcast_to(low + (top - low) * up, (rows, columns, 3)).copy()
    cover = {"day": rng.uniform(-0.7, 0.5), "overcast": 0.5}.get(mood.name, rng.uniform(-0.4, 0.3))
    flat = cloud(rng, rows * 4, columns, int(rng.integers(5, 12)))
    # Clouds lie flatter the nearer they are to the horizon.
    height_map = (np.linspace(0, 1, rows) ** 1.7 * (rows * 4 - 1)).astype(int)
    noise = flat[height_map]
    white = np.clip((noise + float(cover)) * 2.4, 0, 1)[:, :, None] * (0.35 + 0.65 * up)
    tone = np.clip(low * (1.12 if mood.name == "day" else 0.92), 0, 250)
    sky = sky + (tone * (0.94 + 0.08 * noise[:, :, None]) - sky) * white * 0.85
    ground = max(1, rows - max(1, 8 // shrink))
    _skyline(sky, ground, mood, rng, size_hw[0] / shrink)
    big = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (width, horizon + 8), interpolation=cv2.INTER_LINEAR)
    full = np.empty((height + horizon + 8, width, 3), np.uint8)
    full[: horizon + 8] = big
    full[horizon + 8 :] = np.clip(np.array(mood.haze) * 0.75, 0, 255)
    return Sky(full, horizon)


def _skyline(sky: npt.NDArray[np.float32], ground: int, mood: Mood, rng: np.random.Generator,
             height: float) -> None:
    """Paint hills, then woods or roofs, along the horizon, dimmed by haze."""
    columns = sky.shape[1]
    haze = np.array(mood.haze, np.float32)
    for share, size, rough in ((0.75, 0.06, 5), (0.55, 0.03, 40)):
        ridge = cloud(rng, 4, columns, rough)[0] * 0.5 + 0.6
        tall = np.clip(ridge, 0.1, None) * size * height * float(rng.uniform(0.4, 1.4))
        base = np.array(mood.shade((0.25, 0.30, 0.18), None), np.float32)
        colour = base + (haze - base) * share
        for x in range(columns):
            sky[max(0, ground - round(float(tall[x]))) : ground, x] = colour
    sky[ground:] = haze * 0.8


def vignette(size_hw: tuple[int, int], mood: Mood, horizon: int, rng: np.random.Generator) -> Image | None:
    """Give what to multiply a frame by, 128 = unchanged, or None: lens shading and head lamps."""
    height, width = size_hw
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    gain = 1.0 - float(rng.uniform(0.0, 0.16)) * (rows * rows + columns * columns) / 2
    if mood.lamps > 0.9:
        ahead = horizon / height * 2 - 1
        pool = np.exp(-((columns / 0.62) ** 2) - ((rows - ahead - 0.30) / 0.34) ** 2)
        gain = gain * (1.0 + pool * np.float32(rng.uniform(0.5, 1.0)))
    elif rng.random() < 0.5:
        return None
    return np.ascontiguousarray(np.repeat((np.clip(gain * 128, 0, 255)).astype(np.uint8)[:, :, None], 3, axis=2))


def bend_of(layout: Layout, rng: np.random.Generator) -> float:
    """Choose how much the road may curve, in 1/metres."""
    most = {"city": 0.0006, "suburb": 0.0012, "highway": 0.0005, "junction": 0.0, "pole": 0.0006}
    return most[layout.kind] * float(rng.uniform(0, 1)) * math.copysign(1, float(rng.normal()))
