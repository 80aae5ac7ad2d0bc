"""Sprites of solid figures: shaded faces and limbs, haze and soft shadows.

Sprites keep their colour multiplied by their opacity, so that pasting is one product and one sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.canvas import SHIFT, Canvas, Window, clip_near, tangents
from pipeline.sources.street.foliage import break_into_leaves
from pipeline.sources.street.light import Colour, Mood, Vector
from pipeline.sources.street.shading import piece_colours
from pipeline.sources.street.solids import (
    NEAR_METRES,
    Part,
    Piece,
    Pose,
    Solid,
    place,
    turned,
)

_SHADOW_MARGIN = 0.25


class Sprite(NamedTuple):
    """A drawn model.

    ``colour`` (h, w, 3) uint8, already multiplied by the opacity; ``keep`` (h, w) uint8 is
    255 minus the opacity; ``labels`` (h, w) uint8 holds the label of each opaque pixel;
    ``left`` and ``top`` give the picture's corner relative to the model's ground point in pixels;
    ``extents`` gives left, top, width, height of each object's pixels.
    """

    colour: npt.NDArray[np.uint8]
    keep: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    left: float
    top: float
    extents: dict[int, tuple[int, int, int, int]]


_CIRCLE = np.array([(math.cos(a * math.pi / 6), math.sin(a * math.pi / 6)) for a in range(12)])


def bounds(solid: Solid, pose: Pose, sun: Vector | None) -> Window:
    """Give the picture-plane rectangle that holds the drawn model and its shadow."""
    placed = np.concatenate([place(part.packed().points, pose) for part in solid.parts])
    placed = placed[placed[:, 2] > NEAR_METRES]
    if not len(placed):
        return Window(0.0, 0.0, 0.0, 0.0)
    spread = max(float(part.packed().radii.max()) for part in solid.parts)
    flat = tangents(placed, pose.eye_height)
    if solid.casts_shadow:
        ground = tangents(_shadow_outline(solid, pose, sun), pose.eye_height)
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


def _project(part: Part, canvas: Canvas, pose: Pose, mood: Mood, veil: float) -> _Drawing:
    packed = part.packed()
    placed = place(packed.points, pose)
    flat = tangents(placed, pose.eye_height)
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
    colours = piece_colours(packed, normals, facings, rays, pose, mood)
    colours += veil * (np.array(mood.haze) - colours)
    return _Drawing(placed, canvas.corners(flat), rings, facings.tolist(), colours.tolist())


def _draw_part(canvas: Canvas, part: Part, pose: Pose, mood: Mood, veil: float) -> None:
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
    small = (spread.max(axis=1) < (1 << SHIFT)).tolist()
    closest = np.minimum.reduceat(drawing.placed[:, 2], starts[:-1]).tolist()
    for index in order:
        piece, span = part.pieces[index], slice(starts[index], starts[index + 1])
        if not piece.radii:
            if small[index] or (piece.normal is not None and drawing.facings[index] >= 0):
                continue
            polygon = drawing.corners[span]
            if closest[index] < NEAR_METRES:
                clipped = clip_near(drawing.placed[span])
                if len(clipped) < 3:
                    continue
                polygon = canvas.corners(tangents(clipped, pose.eye_height))
            canvas.fill(polygon, drawing.colours[index], piece.label)
        elif closest[index] >= NEAR_METRES:
            size = max(piece.radii) / closest[index] * canvas.scale
            _draw_round(canvas, piece, drawing, span, drawing.colours[index], size)


def _draw_round(
    canvas: Canvas,
    piece: Piece,
    drawing: _Drawing,
    span: slice,
    colour: Sequence[float],
    size: float,
) -> None:
    """Draw a line or a hull of balls; ``size`` is its largest radius in fine pixels."""
    if len(piece.radii) == 1 and span.stop - span.start > 1:
        canvas.line(drawing.corners[span], colour, piece.label, max(1, round(2 * size)))
        return
    layers = 3 if size > 5 else 2 if size > 2 else 1
    for ring, gain in zip(
        drawing.rings[: 1 if piece.emission else layers], _ROUND_GAINS, strict=False
    ):
        hull = np.asarray(cv2.convexHull(ring[span].reshape(-1, 2)).reshape(-1, 2), np.int32)
        if gain < _ROUND_GAINS[0] + 0.01:
            canvas.fill(hull, _times(colour, gain if layers > 1 else 0.95), piece.label)
        else:
            cv2.fillPoly(canvas.colour, [hull], _times(colour, gain), cv2.LINE_8, SHIFT)


def _times(colour: Sequence[float], gain: float) -> Colour:
    return min(255.0, colour[0] * gain), min(255.0, colour[1] * gain), min(255.0, colour[2] * gain)


def render(
    solid: Solid,
    pose: Pose,
    pixels_per_tangent: float,
    mood: Mood,
    *,
    veil: float,
    limit: Window | None = None,
    fine: int = 2,
) -> Sprite | None:
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
        window = Window(
            max(window.left, limit.left),
            max(window.top, limit.top),
            min(window.right, limit.right),
            min(window.bottom, limit.bottom),
        )
    if window.right <= window.left or window.bottom <= window.top:
        return None
    canvas = Canvas(window, pixels_per_tangent, fine)
    parts = sorted(solid.parts, key=lambda part: -_distance(part.centre, pose))
    for part in parts:
        _draw_part(canvas, part, pose, mood, veil)
        if part.leaf:
            size = part.leaf / pose.z * canvas.scale
            canvas.colour, canvas.owners = break_into_leaves(canvas.colour, canvas.owners, size)
    shadow = _shadow(canvas, solid, pose, mood) if solid.casts_shadow else None
    anchor = tangents(place([(0.0, 0.0, 0.0)], pose), pose.eye_height)[0] * pixels_per_tangent
    return _finish(canvas, shadow, veil, (float(anchor[0]), float(anchor[1])))


def _distance(point: Vector, pose: Pose) -> float:
    x, y, z = turned(point, pose.heading)
    return math.hypot(math.hypot(x + pose.x, z + pose.z), y - pose.eye_height)


def _shadow(canvas: Canvas, solid: Solid, pose: Pose, mood: Mood) -> npt.NDArray[np.uint8]:
    """Draw the shadow's opacity (h, w) at the finished size, with soft edges."""
    height, width = canvas.owners.shape
    dark = np.zeros((height // canvas.fine, width // canvas.fine), np.uint8)
    reach = mood.towards_sun if mood.shadow else None
    per_metre = canvas.scale / canvas.fine / max(1.0, pose.z)
    for sun, opacity in ((reach, mood.shadow), (None, 0.62)):
        outline = clip_near(_shadow_outline(solid, pose, sun))
        if len(outline) < 3 or not opacity:
            continue
        hull = cv2.convexHull(canvas.corners(tangents(outline, pose.eye_height)))
        layer = np.zeros_like(dark)
        cv2.fillPoly(layer, [hull // canvas.fine], (round(255 * opacity),), cv2.LINE_8, SHIFT)
        wide = min(30, max(1, round((0.14 if sun is None else 0.05) * per_metre)))
        high = max(1, round(0.5 * wide * min(1.0, 3 * pose.eye_height / max(1.0, pose.z))))
        soft = cv2.blur(layer, (2 * wide + 1, 2 * high + 1))
        dark = np.maximum(dark, soft).astype(np.uint8)
    return dark


def _finish(
    canvas: Canvas, shadow: npt.NDArray[np.uint8] | None, veil: float, anchor: tuple[float, float]
) -> Sprite:
    """Average the canvas down and lay the shadow beneath what was drawn."""
    colour, labels = canvas.colour, np.maximum(canvas.owners, 1) - np.uint8(1)
    opacity = _bytes(cv2.threshold(canvas.owners, 0, 255, cv2.THRESH_BINARY)[1])
    if canvas.fine > 1:
        size = (colour.shape[1] // canvas.fine, colour.shape[0] // canvas.fine)
        labels = np.ascontiguousarray(
            labels[canvas.fine - 1 :: canvas.fine, canvas.fine - 1 :: canvas.fine]
        )
        # Averaging with the empty (black) surroundings multiplies colour by opacity.
        colour = _bytes(cv2.resize(colour, size, interpolation=cv2.INTER_AREA))
        opacity = _bytes(cv2.resize(opacity, size, interpolation=cv2.INTER_AREA))
        labels = np.where(opacity >= 128, labels, 0)
    keep = _bytes(cv2.bitwise_not(opacity))
    if shadow is not None:
        # Haze thins a shadow as it thins everything else.
        clear = cv2.convertScaleAbs(shadow, alpha=-(1.0 - veil), beta=255.0)
        keep = _bytes(cv2.multiply(keep, clear, scale=1 / 255))
    extents = {}
    for label in (1, 2):
        x, y, width, height = cv2.boundingRect((labels == label).astype(np.uint8))
        if width:
            extents[label] = (x, y, width, height)
    return Sprite(
        colour,
        keep,
        labels,
        canvas.left - anchor[0],
        canvas.top - anchor[1],
        extents,
    )


def _bytes(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Tell the type checker what OpenCV gave."""
    return np.asarray(image, np.uint8)
