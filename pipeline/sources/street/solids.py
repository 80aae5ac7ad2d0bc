"""Solid figures: models of faces, limbs and lamps, and where they stand before a camera.

A model is built once in metres (right, up, forward; origin on the ground below its middle) and
drawn, by ``render``, as often as its pose changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.sources.street.light import Colour, Vector

NEAR_METRES = 0.4


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
    """Which object of the sprite it belongs to (1, 2); the pixel class (3, ...) of scenery."""
    emission: float = 0.0
    """0 = lit by the mood, 1 = shines in its own colour."""
    gloss: float = 0.0
    """How much of its surroundings a face mirrors: 0 = matt, paint about 0.4, glass 1."""


class Packed(NamedTuple):
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


def _pack(pieces: list[Piece]) -> Packed:
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
    return Packed(
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
    _packed: Packed | None = None

    def packed(self) -> Packed:
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
