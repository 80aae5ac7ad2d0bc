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


@dataclass(slots=True)
class Part:
    """Pieces drawn together, in their order, or from far to near when ``sort`` is set."""

    centre: Vector
    pieces: list[Piece] = field(default_factory=list)
    sort: bool = False

    def face(
        self, points: Sequence[Vector], albedo: Colour, *, label: int = 1, emission: float = 0.0
    ) -> None:
        """Add a face whose normal points away from the part's centre."""
        normal = outward_normal(points, self.centre)
        self.pieces.append(Piece(points, albedo, normal, (), label, emission))

    def box(self, low: Vector, high: Vector, albedo: Colour, *, label: int = 1) -> None:
        """Add the five visible sides of an upright box (never its bottom)."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        for corners in (
            ((x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)),
            ((x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)),
            ((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)),
            ((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)),
            ((x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)),
        ):
            self.face(corners, albedo, label=label)


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
    ``left`` and ``top`` give the picture's corner relative to the model's ground point in pixels.
    """

    colour: npt.NDArray[np.uint8]
    keep: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    left: float
    top: float


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


def place(points: Sequence[Vector], pose: Pose) -> npt.NDArray[np.float64]:
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
        self.labels = np.zeros((height * fine, width * fine), np.uint8)
        self.opacity = np.zeros((height * fine, width * fine), np.uint8)

    def corners(self, tangents: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        offset = np.array([self.left * self.fine + 0.5, self.top * self.fine + 0.5])
        pixels = np.clip(tangents * self.scale - offset, -20000, 20000)
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)

    def fill(self, polygon: npt.NDArray[np.int32], colour: Colour, label: int) -> None:
        cv2.fillPoly(self.colour, [polygon], colour, cv2.LINE_8, _SHIFT)
        cv2.fillPoly(self.labels, [polygon], (label,), cv2.LINE_8, _SHIFT)
        cv2.fillPoly(self.opacity, [polygon], (255,), cv2.LINE_8, _SHIFT)

    def line(
        self, points: npt.NDArray[np.int32], colour: Colour, label: int, thickness: int
    ) -> None:
        for image, value in (
            (self.colour, colour),
            (self.labels, (label,)),
            (self.opacity, (255,)),
        ):
            cv2.polylines(image, [points], False, value, thickness, cv2.LINE_8, _SHIFT)


def bounds(solid: Solid, pose: Pose, sun: Vector | None) -> Window:
    """Give the picture-plane rectangle that holds the drawn model and its shadow."""
    points: list[Vector] = []
    for part in solid.parts:
        for piece in part.pieces:
            points.extend(piece.points)
    placed = place(points, pose)
    placed = placed[placed[:, 2] > NEAR_METRES]
    if not len(placed):
        return Window(0.0, 0.0, 0.0, 0.0)
    spread = max((max(p.radii) for part in solid.parts for p in part.pieces if p.radii), default=0)
    flat = _tangents(placed, pose.eye_height)
    if solid.casts_shadow:
        ground = _tangents(_shadow_outline(solid, pose, sun), pose.eye_height)
        flat = np.concatenate([flat, ground])
    margin = (spread + 0.02) / max(NEAR_METRES, float(placed[:, 2].min()))
    low, high = flat.min(axis=0) - margin, flat.max(axis=0) + margin
    return Window(float(low[0]), float(low[1]), float(high[0]), float(high[1]))


def _shadow_outline(solid: Solid, pose: Pose, sun: Vector | None) -> npt.NDArray[np.float64]:
    """Give the ground points (n, 3) whose hull is the shadow; ``sun`` None: just beneath."""
    wide, long = solid.half_width + _SHADOW_MARGIN * 0.5, solid.half_length + _SHADOW_MARGIN
    foot = place(
        [(-wide, 0.0, -long), (wide, 0.0, -long), (wide, 0.0, long), (-wide, 0.0, long)], pose
    )
    if sun is not None:
        reach = min(2.0, 1.0 / max(0.3, sun[1])) * solid.height * 0.8
        moved = foot + np.array([-sun[0] * reach, 0.0, -sun[2] * reach])
        foot = np.concatenate([foot, moved])
    return foot


def _draw_piece(canvas: _Canvas, piece: Piece, points: npt.NDArray[np.float64],
                pose: Pose, mood: Mood) -> None:
    near = float(points[:, 2].min())
    if not piece.radii:
        normal = None
        if piece.normal is not None:
            normal = turned(piece.normal, pose.heading)
            x, y, z = points[0]
            if normal[0] * x + normal[1] * (y - pose.eye_height) + normal[2] * z >= 0:
                return
        if near < NEAR_METRES:
            points = _clip_near(points)
            if len(points) < 3:
                return
        colour = _lit(piece, normal, mood)
        canvas.fill(canvas.corners(_tangents(points, pose.eye_height)), colour, piece.label)
        return
    if near < NEAR_METRES:
        return
    flat = _tangents(points, pose.eye_height)
    colour = _lit(piece, None, mood)
    if len(piece.radii) == 1:
        thickness = 2.0 * piece.radii[0] / float(points[:, 2].mean()) * canvas.scale
        canvas.line(canvas.corners(flat), colour, piece.label, max(1, round(thickness)))
        return
    sizes = np.asarray(piece.radii) / points[:, 2]
    rings = (flat[:, None, :] + sizes[:, None, None] * _CIRCLE).reshape(-1, 2)
    hull = cv2.convexHull(canvas.corners(rings)).reshape(-1, 2)
    canvas.fill(hull, (colour[0] * 0.88, colour[1] * 0.88, colour[2] * 0.88), piece.label)
    if sizes.max() * canvas.scale > 2.0:
        # The lit side: a smaller hull moved up and towards the sun makes the limb look round.
        side = math.copysign(0.22, mood.towards_sun[0])
        inner = flat[:, None, :] + sizes[:, None, None] * (0.66 * _CIRCLE + np.array([side, -0.2]))
        hull = cv2.convexHull(canvas.corners(inner.reshape(-1, 2))).reshape(-1, 2)
        lit = (min(255.0, colour[0] * 1.1), min(255.0, colour[1] * 1.1), min(255.0, colour[2] * 1.1))
        canvas.fill(hull, lit, piece.label)


def _lit(piece: Piece, normal: Vector | None, mood: Mood) -> Colour:
    red, green, blue = mood.shade(piece.albedo, normal)
    share, own = piece.emission, piece.albedo
    if share:
        red += share * (255 * own[0] - red)
        green += share * (255 * own[1] - green)
        blue += share * (255 * own[2] - blue)
    return red, green, blue


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
        placed = place([point for piece in part.pieces for point in piece.points], pose)
        ends = np.cumsum([len(piece.points) for piece in part.pieces])
        jobs = [(piece, placed[end - len(piece.points) : end])
                for piece, end in zip(part.pieces, ends, strict=True)]
        if part.sort:
            jobs.sort(key=lambda job: -float(job[1][:, 2].mean() + abs(job[1][:, 0].mean()) * 0.3))
        for piece, points in jobs:
            _draw_piece(canvas, piece, points, pose, mood)
    shadow = _shadow(canvas, solid, pose, mood) if solid.casts_shadow else None
    anchor = _tangents(place([(0.0, 0.0, 0.0)], pose), pose.eye_height)[0] * pixels_per_tangent
    return _finish(canvas, shadow, veil, mood, (float(anchor[0]), float(anchor[1])))


def _distance(point: Vector, pose: Pose) -> float:
    x, y, z = turned(point, pose.heading)
    return math.hypot(math.hypot(x + pose.x, z + pose.z), y - pose.eye_height)


def _shadow(canvas: _Canvas, solid: Solid, pose: Pose, mood: Mood) -> npt.NDArray[np.uint8]:
    """Draw the shadow's opacity (h, w) at the canvas' size, with soft edges."""
    dark = np.zeros(canvas.labels.shape, np.uint8)
    reach = mood.towards_sun if mood.shadow else None
    for sun, opacity in ((reach, mood.shadow), (None, 0.62)):
        outline = _clip_near(_shadow_outline(solid, pose, sun))
        if len(outline) < 3 or not opacity:
            continue
        hull = cv2.convexHull(canvas.corners(_tangents(outline, pose.eye_height)))
        layer = np.zeros_like(dark)
        cv2.fillPoly(layer, [hull], (round(255 * opacity),), cv2.LINE_8, _SHIFT)
        soft = 0.14 if sun is None else 0.05
        wide = max(1, round(soft * canvas.scale / max(1.0, pose.z)))
        high = max(1, round(0.5 * wide * min(1.0, 3 * pose.eye_height / max(1.0, pose.z))))
        np.maximum(dark, cv2.blur(layer, (2 * wide + 1, 2 * high + 1)), out=dark)
    return dark


def _finish(canvas: _Canvas, shadow: npt.NDArray[np.uint8] | None, veil: float, mood: Mood,
            anchor: tuple[float, float]) -> Sprite:
    """Average the canvas down, lay haze on it and multiply the colour by its opacity."""
    colour, opacity, labels = canvas.colour, canvas.opacity, canvas.labels
    if canvas.fine > 1:
        size = (colour.shape[1] // canvas.fine, colour.shape[0] // canvas.fine)
        labels = labels[canvas.fine - 1 :: canvas.fine, canvas.fine - 1 :: canvas.fine]
        colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        opacity = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
        if shadow is not None:
            shadow = cv2.resize(shadow, size, interpolation=cv2.INTER_AREA)
    # Averaging with the empty (black) surroundings has already multiplied colour by opacity.
    solid = opacity.astype(np.float32)[:, :, None] * (1.0 / 255.0)
    haze = np.asarray(mood.haze, np.float32)
    rows = np.linspace(1.06, 0.94, len(colour), dtype=np.float32)[:, None, None]
    shown = colour * (rows * (1.0 - veil)) + solid * (haze * veil)
    if shadow is not None:
        # Haze thins a shadow as it thins everything else.
        dark = shadow.astype(np.float32)[:, :, None] * ((1.0 - veil) / 255.0)
        solid = solid + dark * (1.0 - solid)
    keep = np.broadcast_to(255.0 - 255.0 * solid, colour.shape)
    return Sprite(
        np.clip(shown, 0, 255).astype(np.uint8),
        np.rint(keep).astype(np.uint8),
        np.where(opacity >= 128, labels, 0).astype(np.uint8),
        canvas.left - anchor[0],
        canvas.top - anchor[1],
    )
