"""A small solid-figure renderer: models of faces and limbs in, shaded sprites out.

A model is built once in metres (right, up, forward; origin on the ground below its middle) and
drawn as often as its pose changes. Sprites keep their colour multiplied by their opacity, so that
pasting is one product and one sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street_light import Colour, Mood, Vector

NEAR_METRES = 0.4
_SHIFT = 3  # OpenCV takes corners in 1/8 pixel, which also hides the last bits of sin and cos
_SHADOW_MARGIN = 0.25


@dataclass(slots=True)
class Piece:
    """A plane face, a line, or the hull of some balls.

    ``radii`` empty: a face with corners ``points``; one radius: a line of that half-thickness
    through ``points``; as many radii as points: the hull of balls around the points.
    """

    points: Sequence[Vector]
    albedo: Colour
    normal: Vector | None = None
    """Outward unit normal of a face; a face with one is skipped when seen from behind."""
    radii: Sequence[float] = ()
    label: int = 1
    """Which object of the sprite it belongs to (1, 2), or 0 for scenery."""
    emission: float = 0.0
    """0 = lit by the mood, 1 = shines in its own colour."""
    gloss: float = 0.0
    """How much of its surroundings a face mirrors: 0 = matt, paint about 0.4, glass 1."""


class _Packed(NamedTuple):
    """The numbers of a part's pieces, one row for each point or piece."""

    points: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]
    """Of the ball around each point; 0 for corners of faces and lines."""
    starts: list[int]
    """Where each piece's points begin, and the end of the last."""
    normals: npt.NDArray[np.float64]
    """(pieces, 3); zero where a piece has none."""
    plain: npt.NDArray[np.bool_]
    """(pieces,) True where a piece has no normal."""
    albedos: npt.NDArray[np.float64]
    """(pieces, 3)"""
    emissions: npt.NDArray[np.float64]
    glosses: npt.NDArray[np.float64]
    round_faces: bool
    """Whether there is any ball."""


def _pack(pieces: list[Piece]) -> _Packed:
    points = [point for piece in pieces for point in piece.points]
    radii = [
        radius
        for piece in pieces
        for radius in (
            piece.radii if len(piece.radii) == len(piece.points) else [0.0] * len(piece.points)
        )
    ]
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece.points))
    normals = [piece.normal or (0.0, 0.0, 0.0) for piece in pieces]
    balls = np.array(radii)
    return _Packed(
        np.array(points),
        balls,
        starts,
        np.array(normals),
        np.array([piece.normal is None for piece in pieces]),
        np.array([piece.albedo for piece in pieces], np.float64),
        np.array([piece.emission for piece in pieces], np.float64),
        np.array([piece.gloss for piece in pieces], np.float64),
        bool(balls.any()),
    )


@dataclass(slots=True)
class Part:
    """Pieces drawn together, in their order, or from far to near when ``sort`` is set."""

    centre: Vector
    pieces: list[Piece] = field(default_factory=list)
    sort: bool = False
    leaf: float = 0.0
    """Size in metres of the leaves it is broken into, with all drawn before it; 0: smooth."""
    _packed: _Packed | None = None

    def packed(self) -> _Packed:
        """Give the pieces' numbers as arrays; call it once the part is complete."""
        if self._packed is None:
            self._packed = _pack(self.pieces)
        return self._packed

    def face(
        self, points: Sequence[Vector], albedo: Colour, *, label: int = 1, gloss: float = 0.0
    ) -> None:
        """Add a face whose normal points away from the part's centre."""
        normal = outward_normal(points, self.centre)
        self.pieces.append(Piece(points, albedo, normal, (), label, 0.0, gloss))

    def box(
        self, low: Vector, high: Vector, albedo: Colour, *, label: int = 1, gloss: float = 0.0
    ) -> None:
        """Add the five visible sides of an upright box (never its bottom)."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        for corners in (
            ((x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)),
            ((x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)),
            ((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)),
            ((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)),
            ((x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)),
        ):
            self.face(corners, albedo, label=label, gloss=gloss)


@dataclass(slots=True)
class Lamp:
    """A light that gets a halo; seen only from the side its ``direction`` points to."""

    place: Vector
    direction: Vector
    colour: Colour
    radius: float


@dataclass(slots=True)
class Solid:
    """A model: parts, the half-size of its footprint, its height and its lamps."""

    parts: list[Part]
    half_width: float
    half_length: float
    height: float
    lamps: list[Lamp] = field(default_factory=list)
    casts_shadow: bool = True


class Pose(NamedTuple):
    """Where a model stands before the camera (metres, radians; heading 0 = drives away)."""

    x: float
    z: float
    heading: float
    eye_height: float


class Sprite(NamedTuple):
    """A drawn model.

    ``colour`` (h, w, 3) uint8, already multiplied by the opacity; ``keep`` (h, w, 3) uint8 is
    255 minus the opacity; ``labels`` (h, w) uint8 names the object of each opaque pixel;
    ``left`` and ``top`` give the picture's corner relative to the model's ground point in pixels;
    ``extents`` gives left, top, width, height of each object's pixels.
    """

    colour: npt.NDArray[np.uint8]
    keep: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    left: float
    top: float
    extents: dict[int, tuple[int, int, int, int]]


class Window(NamedTuple):
    """A rectangle of the picture plane in tangents (x/z to the right, down positive)."""

    left: float
    top: float
    right: float
    bottom: float


def outward_normal(points: Sequence[Vector], centre: Vector) -> Vector:
    """Give the unit normal of a plane polygon, turned away from ``centre``."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = points[0], points[1], points[2]
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = cx - ax, cy - ay, cz - az
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    length = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    away = nx * (ax - centre[0]) + ny * (ay - centre[1]) + nz * (az - centre[2])
    scale = (1.0 if away >= 0 else -1.0) / length
    return nx * scale, ny * scale, nz * scale


def place(
    points: Sequence[Vector] | npt.NDArray[np.float64], pose: Pose
) -> npt.NDArray[np.float64]:
    """Turn and move model points; give (n, 3) right, up, forward from the camera's foot."""
    own = np.asarray(points, dtype=np.float64)
    sine, cosine = math.sin(pose.heading), math.cos(pose.heading)
    return np.stack(
        [
            pose.x + own[:, 0] * cosine + own[:, 2] * sine,
            own[:, 1],
            pose.z - own[:, 0] * sine + own[:, 2] * cosine,
        ],
        axis=1,
    )


def turned(vector: Vector, heading: float) -> Vector:
    """Turn a direction of the model into the camera's frame."""
    sine, cosine = math.sin(heading), math.cos(heading)
    x, y, z = vector
    return x * cosine + z * sine, y, z * cosine - x * sine


def _clip_near(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cut a polygon (n, 3) at the near plane (Sutherland and Hodgman, one plane)."""
    kept: list[npt.NDArray[np.float64]] = []
    previous = points[-1]
    for point in points:
        if (point[2] > NEAR_METRES) != (previous[2] > NEAR_METRES):
            share = (NEAR_METRES - previous[2]) / (point[2] - previous[2])
            kept.append(previous + share * (point - previous))
        if point[2] > NEAR_METRES:
            kept.append(point)
        previous = point
    return np.array(kept).reshape(-1, 3)


def _tangents(points: npt.NDArray[np.float64], eye_height: float) -> npt.NDArray[np.float64]:
    depth = np.maximum(points[:, 2], NEAR_METRES)
    return np.stack([points[:, 0] / depth, (eye_height - points[:, 1]) / depth], axis=1)


_CIRCLE = np.array([(math.cos(a * math.pi / 6), math.sin(a * math.pi / 6)) for a in range(12)])


class _Canvas:
    """The pixels of a sprite while it is drawn, ``fine`` times larger than the result."""

    def __init__(self, window: Window, pixels_per_tangent: float, fine: int) -> None:
        self.scale = pixels_per_tangent * fine
        self.fine = fine
        self.left = math.floor(window.left * pixels_per_tangent) - 1
        self.top = math.floor(window.top * pixels_per_tangent) - 1
        width = math.ceil(window.right * pixels_per_tangent) + 1 - self.left
        height = math.ceil(window.bottom * pixels_per_tangent) + 1 - self.top
        self.colour = np.zeros((height * fine, width * fine, 3), np.uint8)
        # 0 where nothing is drawn, 1 for scenery, 1 + label for objects.
        self.owners = np.zeros((height * fine, width * fine), np.uint8)

    def corners(self, tangents: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        offset = np.array([self.left * self.fine + 0.5, self.top * self.fine + 0.5])
        pixels = np.clip(tangents * self.scale - offset, -20000, 20000)
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)

    def fill(self, polygon: npt.NDArray[np.int32], colour: Sequence[float], label: int) -> None:
        cv2.fillPoly(self.colour, [polygon], colour, cv2.LINE_8, _SHIFT)
        cv2.fillPoly(self.owners, [polygon], (label + 1,), cv2.LINE_8, _SHIFT)

    def line(
        self, points: npt.NDArray[np.int32], colour: Sequence[float], label: int, thickness: int
    ) -> None:
        cv2.polylines(self.colour, [points], False, colour, thickness, cv2.LINE_8, _SHIFT)
        cv2.polylines(self.owners, [points], False, (label + 1,), thickness, cv2.LINE_8, _SHIFT)


def bounds(solid: Solid, pose: Pose, sun: Vector | None) -> Window:
    """Give the picture-plane rectangle that holds the drawn model and its shadow."""
    placed = np.concatenate([place(part.packed().points, pose) for part in solid.parts])
    placed = placed[placed[:, 2] > NEAR_METRES]
    if not len(placed):
        return Window(0.0, 0.0, 0.0, 0.0)
    spread = max(float(part.packed().radii.max()) for part in solid.parts)
    flat = _tangents(placed, pose.eye_height)
    if solid.casts_shadow:
        ground = _tangents(_shadow_outline(solid, pose, sun), pose.eye_height)
        flat = np.concatenate([flat, ground])
    margin = (spread + 0.02) / max(NEAR_METRES, float(placed[:, 2].min()))
    low, high = flat.min(axis=0) - margin, flat.max(axis=0) + margin
    return Window(float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def _shadow_outline(solid: Solid, pose: Pose, sun: Vector | None) -> npt.NDArray[np.float64]:
    """Give the ground points (n, 3) whose hull is the shadow; ``sun`` None: just beneath."""
    margin = min(_SHADOW_MARGIN, 0.2 * solid.half_width)
    wide, long = solid.half_width + 0.5 * margin, solid.half_length + margin
    foot = place(
        [(-wide, 0.0, -long), (wide, 0.0, -long), (wide, 0.0, long), (-wide, 0.0, long)], pose
    )
    if sun is not None:
        reach = min(2.0, 1.0 / max(0.3, sun[1])) * solid.height * 0.8
        moved = foot + np.array([-sun[0] * reach, 0.0, -sun[2] * reach])
        foot = np.concatenate([foot, moved])
    return foot


_ROUND = tuple(
    share * _CIRCLE + 1.6 * (1.0 - share) * np.array([0.2, -0.2]) for share in (1.0, 0.76, 0.46)
)
"""A ball's outline and, moved up and aside, two smaller ones that its light side is drawn with."""
_ROUND_GAINS = (0.82, 0.98, 1.1)


class _Drawing(NamedTuple):
    """A part's pieces projected onto a canvas."""

    placed: npt.NDArray[np.float64]
    """(points, 3) in the camera's frame."""
    corners: npt.NDArray[np.int32]
    """(points, 2) in the canvas' fine pixels."""
    rings: list[npt.NDArray[np.int32]]
    """Outlines of the balls, largest first, each (points, 12, 2); corners stay points."""
    facings: list[float]
    """Below 0 where a face looks at the camera."""
    colours: list[list[float]]
    """As the mood's light, the camera and the haze show each piece."""


def _project(part: Part, canvas: _Canvas, pose: Pose, mood: Mood, veil: float) -> _Drawing:
    packed = part.packed()
    placed = place(packed.points, pose)
    flat = _tangents(placed, pose.eye_height)
    rings: list[npt.NDArray[np.int32]] = []
    if packed.round_faces:
        sizes = (packed.radii / np.maximum(placed[:, 2], NEAR_METRES))[:, None, None]
        mirror = np.array([math.copysign(1.0, mood.towards_sun[0]), 1.0])
        rings = [canvas.corners(flat[:, None, :] + sizes * (ring * mirror)) for ring in _ROUND]
    sine, cosine = math.sin(pose.heading), math.cos(pose.heading)
    own = packed.normals
    normals = np.stack(
        [own[:, 0] * cosine + own[:, 2] * sine, own[:, 1], own[:, 2] * cosine - own[:, 0] * sine],
        axis=1,
    )
    rays = placed[packed.starts[:-1]] - np.array([0.0, pose.eye_height, 0.0])
    facings = (normals * rays).sum(axis=1)
    colours = _colours(packed, normals, facings, rays, pose, mood)
    colours += veil * (np.array(mood.haze) - colours)
    return _Drawing(placed, canvas.corners(flat), rings, facings.tolist(), colours.tolist())


def _draw_part(canvas: _Canvas, part: Part, pose: Pose, mood: Mood, veil: float) -> None:
    drawing = _project(part, canvas, pose, mood, veil)
    starts = part.packed().starts
    order = range(len(part.pieces))
    if part.sort:
        depth = drawing.placed[:, 2] + 0.3 * np.abs(drawing.placed[:, 0])
        sums = np.add.reduceat(depth, starts[:-1]) / np.diff(starts)
        order = np.argsort(-sums, kind="stable").tolist()
    corners = drawing.corners
    spread = np.maximum.reduceat(corners, starts[:-1]) - np.minimum.reduceat(corners, starts[:-1])
    # Details smaller than a fine pixel are left out.
    small = (spread.max(axis=1) < (1 << _SHIFT)).tolist()
    closest = np.minimum.reduceat(drawing.placed[:, 2], starts[:-1]).tolist()
    for index in order:
        piece, span = part.pieces[index], slice(starts[index], starts[index + 1])
        if not piece.radii:
            if small[index] or (piece.normal is not None and drawing.facings[index] >= 0):
                continue
            polygon = drawing.corners[span]
            if closest[index] < NEAR_METRES:
                clipped = _clip_near(drawing.placed[span])
                if len(clipped) < 3:
                    continue
                polygon = canvas.corners(_tangents(clipped, pose.eye_height))
            canvas.fill(polygon, drawing.colours[index], piece.label)
        elif closest[index] >= NEAR_METRES:
            size = max(piece.radii) / closest[index] * canvas.scale
            _draw_round(canvas, piece, drawing, span, drawing.colours[index], size)


def _draw_round(canvas: _Canvas, piece: Piece, drawing: _Drawing, span: slice,
                colour: Sequence[float], size: float) -> None:
    """Draw a line or a hull of balls; ``size`` is its largest radius in fine pixels."""
    if len(piece.radii) == 1 and span.stop - span.start > 1:
        canvas.line(drawing.corners[span], colour, piece.label, max(1, round(2 * size)))
        return
    layers = 3 if size > 5 else 2 if size > 2 else 1
    for ring, gain in zip(drawing.rings[: 1 if piece.emission else layers], _ROUND_GAINS, strict=False):
        hull = cv2.convexHull(ring[span].reshape(-1, 2)).reshape(-1, 2)
        if gain < _ROUND_GAINS[0] + 0.01:
            canvas.fill(hull, _times(colour, gain if layers > 1 else 0.95), piece.label)
        else:
            cv2.fillPoly(canvas.colour, [hull], _times(colour, gain), cv2.LINE_8, _SHIFT)


def _times(colour: Sequence[float], gain: float) -> Colour:
    return min(255.0, colour[0] * gain), min(255.0, colour[1] * gain), min(255.0, colour[2] * gain)


def _colours(packed: _Packed, normals: npt.NDArray[np.float64], facings: npt.NDArray[np.float64],
             rays: npt.NDArray[np.float64], pose: Pose, mood: Mood) -> npt.NDArray[np.float64]:
    """Give the colour (pieces, 3) in [0, 255] of each piece under the mood's light.

    Args:
        packed: The pieces.
        normals: (pieces, 3) in the camera's frame.
        facings: (pieces,) normal times ray.
        rays: (pieces, 3) from the eye to a point of each piece.
        pose: Where the model stands.
        mood: The light.
    """
    sky = np.where(packed.plain, 0.9, 0.72 + 0.28 * normals[:, 1])[:, None]
    sun = np.where(packed.plain, 0.45, np.maximum(0.0, normals @ np.array(mood.towards_sun)))[:, None]
    light = sky * np.array(mood.ambient) + sun * np.array(mood.sun)
    own = 255.0 * packed.albedos
    colours = np.minimum(255.0, own * light)
    colours += packed.emissions[:, None] * (own - colours)
    # What stands low gets less of the sky.
    low = np.minimum(1.04, 0.90 + 0.10 * (rays[:, 1] + pose.eye_height))
    colours *= np.where(packed.plain, 1.0, low)[:, None]
    if packed.glosses.any():
        length = np.sqrt((rays * rays).sum(axis=1))
        cosine = np.clip(-facings / length, 0.0, 1.0)
        up = rays[:, 1] / length + 2.0 * cosine * normals[:, 1]
        low_sky, top_sky, haze = np.array(mood.sky_low), np.array(mood.sky_top), np.array(mood.haze)
        mirrored = low_sky + np.clip(up, 0.0, 1.0)[:, None] * (top_sky - low_sky)
        # Below the roofs it is houses, then road, that a car mirrors.
        houses = np.where(up > -0.1, 0.42, 0.3)[:, None] * haze
        mirrored = np.where((up > 0.12)[:, None], mirrored, houses)
        share = np.minimum(0.8, packed.glosses * (0.10 + 0.75 * (1.0 - cosine) ** 4))
        colours += share[:, None] * (mirrored - colours)
    return np.clip(colours, 0.0, 255.0)


def render(solid: Solid, pose: Pose, pixels_per_tangent: float, mood: Mood, *, veil: float,
           limit: Window | None = None, fine: int = 2) -> Sprite | None:
    """Draw a model.

    Args:
        solid: The model.
        pose: Where it stands.
        pixels_per_tangent: Size of the result: focal length in pixels.
        mood: The light.
        veil: Share of haze in its colour, in [0, 1).
        limit: Part of the picture plane to draw, or None for all of the model.
        fine: How many times finer to draw before averaging down (1 or 2).

    Returns:
        The sprite, or None where nothing of it lies inside ``limit``.
    """
    sun = mood.towards_sun if mood.shadow else None
    window = bounds(solid, pose, sun)
    if limit is not None:
        window = Window(max(window.left, limit.left), max(window.top, limit.top),
                        min(window.right, limit.right), min(window.bottom, limit.bottom))
    if window.right <= window.left or window.bottom <= window.top:
        return None
    canvas = _Canvas(window, pixels_per_tangent, fine)
    parts = sorted(solid.parts, key=lambda part: -_distance(part.centre, pose))
    for part in parts:
        _draw_part(canvas, part, pose, mood, veil)
        if part.leaf:
            size = part.leaf / pose.z * canvas.scale
            canvas.colour, canvas.owners = break_into_leaves(canvas.colour, canvas.owners, size)
    shadow = _shadow(canvas, solid, pose, mood) if solid.casts_shadow else None
    anchor = _tangents(place([(0.0, 0.0, 0.0)], pose), pose.eye_height)[0] * pixels_per_tangent
    return _finish(canvas, shadow, veil, (float(anchor[0]), float(anchor[1])))


def _distance(point: Vector, pose: Pose) -> float:
    x, y, z = turned(point, pose.heading)
    return math.hypot(math.hypot(x + pose.x, z + pose.z), y - pose.eye_height)


def _leaf_tiles() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give fixed noise (192, 192): where a leaf's colour is taken from, and how light it is."""
    rng = np.random.default_rng(1871)
    shift = rng.uniform(-1, 1, (192, 192, 2)).astype(np.float32)
    light = rng.uniform(0.72, 1.22, (192, 192)).astype(np.float32)
    return shift, light


_LEAF_SHIFT, _LEAF_LIGHT = _leaf_tiles()


def break_into_leaves(
    colour: npt.NDArray[np.uint8], opacity: npt.NDArray[np.uint8], size: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Break smooth blobs into leaves of ``size`` pixels: ragged outline, mottled light.

    Args:
        colour: (h, w, 3), multiplied by its opacity.
        opacity: (h, w).
        size: Side of a leaf in pixels; below half a pixel nothing changes.
    """
    if size < 0.5:
        return colour, opacity
    height, width = opacity.shape
    cell = max(1.0, size)
    rows, columns = math.ceil(height / cell) + 1, math.ceil(width / cell) + 1
    tiles = (rows // 192 + 1, columns // 192 + 1)
    whole = (math.ceil(columns * cell), math.ceil(rows * cell))
    shift = cv2.resize(np.tile(_LEAF_SHIFT, (*tiles, 1))[:rows, :columns], whole,
                       interpolation=cv2.INTER_LINEAR)[:height, :width] * np.float32(2.6 * size)  # fmt: skip
    light = cv2.resize(np.tile(_LEAF_LIGHT, tiles)[:rows, :columns], whole,
                       interpolation=cv2.INTER_LINEAR)[:height, :width]  # fmt: skip
    map_x = shift[:, :, 0] + np.arange(width, dtype=np.float32)
    map_y = shift[:, :, 1] + np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(colour, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    mottled = np.clip(moved * light[:, :, None], 0, 255).astype(np.uint8)
    return mottled, np.asarray(
        cv2.remap(opacity, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT), np.uint8
    )


def _shadow(canvas: _Canvas, solid: Solid, pose: Pose, mood: Mood) -> npt.NDArray[np.uint8]:
    """Draw the shadow's opacity (h, w) at the finished size, with soft edges."""
    height, width = canvas.owners.shape
    dark = np.zeros((height // canvas.fine, width // canvas.fine), np.uint8)
    reach = mood.towards_sun if mood.shadow else None
    per_metre = canvas.scale / canvas.fine / max(1.0, pose.z)
    for sun, opacity in ((reach, mood.shadow), (None, 0.62)):
        outline = _clip_near(_shadow_outline(solid, pose, sun))
        if len(outline) < 3 or not opacity:
            continue
        hull = cv2.convexHull(canvas.corners(_tangents(outline, pose.eye_height)))
        layer = np.zeros_like(dark)
        cv2.fillPoly(layer, [hull // canvas.fine], (round(255 * opacity),), cv2.LINE_8, _SHIFT)
        wide = min(30, max(1, round((0.14 if sun is None else 0.05) * per_metre)))
        high = max(1, round(0.5 * wide * min(1.0, 3 * pose.eye_height / max(1.0, pose.z))))
        dark = cv2.max(dark, cv2.blur(layer, (2 * wide + 1, 2 * high + 1)))
    return dark


def _finish(canvas: _Canvas, shadow: npt.NDArray[np.uint8] | None, veil: float,
            anchor: tuple[float, float]) -> Sprite:
    """Average the canvas down and lay the shadow beneath what was drawn."""
    colour, labels = canvas.colour, cv2.subtract(canvas.owners, (1,))
    opacity = cv2.threshold(canvas.owners, 0, 255, cv2.THRESH_BINARY)[1]
    if canvas.fine > 1:
        size = (colour.shape[1] // canvas.fine, colour.shape[0] // canvas.fine)
        labels = np.ascontiguousarray(labels[canvas.fine - 1 :: canvas.fine, canvas.fine - 1 :: canvas.fine])
        # Averaging with the empty (black) surroundings multiplies colour by opacity.
        colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        opacity = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
        labels = np.where(opacity >= 128, labels, 0)
    keep = cv2.bitwise_not(opacity)
    if shadow is not None:
        # Haze thins a shadow as it thins everything else.
        clear = cv2.convertScaleAbs(shadow, alpha=-(1.0 - veil), beta=255.0)
        keep = cv2.multiply(keep, clear, scale=1 / 255)
    extents = {}
    for label in (1, 2):
        x, y, width, height = cv2.boundingRect((labels == label).astype(np.uint8))
        if width:
            extents[label] = (x, y, width, height)
    return Sprite(
        colour, cv2.merge([keep, keep, keep]), labels,
        canvas.left - anchor[0], canvas.top - anchor[1], extents,
    )  # fmt: skip
