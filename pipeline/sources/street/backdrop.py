"""Road, house fronts and sky of a drawn street: painted once, then re-projected for each frame.

The road is a plane and each row of houses is another, so every pixel's place on them follows from
one division; OpenCV's remap does the rest. Each plane is kept at several resolutions with the
haze of their distance already laid on, and a band of distances is taken from each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources.street.light import Mood

Image = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]

FAR_METRES = 260.0
_GROUND_BANDS = ((0.0, 22.0, 1), (22.0, 60.0, 3), (60.0, 130.0, 8), (130.0, 1e9, 16))
_WALL_BANDS = (
    (0.0, 22.0, 1),
    (22.0, 38.0, 1),
    (38.0, 56.0, 2),
    (56.0, 80.0, 2),
    (80.0, 120.0, 4),
    (120.0, 175.0, 4),
    (175.0, FAR_METRES, 8),
)


class Camera(NamedTuple):
    """The camera in one frame; rows and columns in pixels."""

    focal: float
    centre: float
    """Column of the straight-ahead direction."""
    horizon: float
    """Row of the horizon in that column."""
    roll: float
    """Rows the horizon sinks per column to the right."""
    bend: float
    """Curve of the road: metres it turns aside per square metre ahead."""
    eye_height: float
    travelled: float

    def column(self, x: float, z: float) -> float:
        """Give the column of a point ``x`` metres right of the road's axis, ``z`` ahead."""
        return self.centre + self.focal * (x / z + self.bend * z)

    def ground_row(self, x: float, z: float) -> float:
        """Give the row where a point on the ground is seen."""
        return (
            self.horizon
            + self.focal * self.eye_height / z
            + self.roll * self.focal * (x / z + self.bend * z)
        )


class _Level(NamedTuple):
    """A plane's picture at one resolution, for distances from ``near`` to ``far`` metres."""

    image: Image
    mask: Image | None
    """Where the plane is opaque, or None: everywhere."""
    near: float
    far: float
    across: float
    """Pixels per metre over the first axis (rows)."""
    along: float
    """Pixels per metre over the direction of travel."""


def lit_picture(albedo: Image, mood: Mood, normal: tuple[float, float, float]) -> Image:
    """Turn a picture of reflectances (255 = white) into what the mood's light shows."""
    gains = mood.shade((1 / 255, 1 / 255, 1 / 255), normal)  # small: shade() clips at 255
    table = np.empty((1, 256, 3), np.uint8)
    ramp = np.arange(256, dtype=np.float64)
    for channel, gain in enumerate(gains):
        table[0, :, channel] = np.clip(ramp * gain, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(albedo, table), np.uint8)


def _hazed(picture: Image, mood: Mood, distance: float) -> Image:
    veil = mood.veil(distance)
    haze = np.full_like(picture, 0)
    haze[:] = np.array(mood.haze, np.float64).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.addWeighted(picture, 1 - veil, haze, veil, 0), np.uint8)


def _wrapped(image: Image, extra: int, axis: int) -> Image:
    """Repeat the beginning of a looped picture behind its end."""
    repeats = [image] * (1 + math.ceil(extra / image.shape[axis]))
    whole = np.concatenate(repeats, axis=axis)
    size = image.shape[axis] + extra
    return np.ascontiguousarray(whole[:size] if axis == 0 else whole[:, :size])


class Ground:
    """The plane of road, pavements and verges.

    ``picture`` (rows along the way, columns across, 3) is lit, loops over its rows, and begins
    ``left`` metres right of the camera's axis.
    """

    def __init__(
        self, picture: Image, mood: Mood, left: float, along: float, across: float
    ) -> None:
        self.left = left
        self.loop = picture.shape[0] / along
        self.columns = picture.shape[1] / across
        self._levels: list[_Level] = []
        for near, far, shrink in _GROUND_BANDS:
            reach = min(far, 2 * FAR_METRES)
            narrow = min(shrink, 4)
            small = (
                picture
                if shrink == 1
                else cv2.resize(
                    picture,
                    (picture.shape[1] // narrow, picture.shape[0] // shrink),
                    interpolation=cv2.INTER_AREA,
                )
            )
            small = np.asarray(small, np.uint8)
            own = small.shape[0] / self.loop
            image = _wrapped(small, math.ceil((reach - near) * own) + 2, 0)
            self._levels.append(_Level(image, None, near, far, small.shape[1] / self.columns, own))

    def draw(self, image: Image, camera: Camera) -> None:
        """Fill the rows of ``image`` (H, W, 3) below the horizon."""
        height, width = image.shape[:2]
        columns = np.arange(width, dtype=np.float32) - np.float32(camera.centre)
        tilt = abs(camera.roll) * width
        scale = camera.focal * camera.eye_height
        for level in self._levels:
            low = camera.horizon + (scale / level.far if level.far < 1e6 else 0.0) - tilt
            high = camera.horizon + scale / level.near + tilt if level.near else float(height)
            top, bottom = max(0, math.floor(low)), min(height, math.ceil(high) + 1)
            if bottom <= top:
                continue
            rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(camera.horizon)
            under = np.maximum(rows - columns * np.float32(camera.roll), np.float32(0.25))
            depth = np.float32(scale) / under
            np.minimum(depth, np.float32(2 * FAR_METRES + level.near), out=depth)
            side = depth * (columns * np.float32(1 / camera.focal)) - depth * depth * np.float32(
                camera.bend
            )
            map_x = (side - np.float32(self.left)) * np.float32(level.across)
            offset = (camera.travelled + level.near) % self.loop - level.near
            map_y = np.maximum(
                (depth + np.float32(offset)) * np.float32(level.along), np.float32(0)
            )
            cv2.remap(
                level.image,
                map_x - np.float32(0.5),
                map_y,
                cv2.INTER_LINEAR,
                image[top:bottom],
                cv2.BORDER_REPLICATE,
            )


class Haze:
    """What the air adds to the ground: a veil that thickens towards the horizon.

    Kept as a tall picture around the horizon row, so that a frame needs one product and one sum.
    """

    def __init__(
        self, size_hw: tuple[int, int], focal: float, eye_height: float, mood: Mood
    ) -> None:
        height, width = size_hw
        under = np.maximum(np.arange(height + 1, dtype=np.float64), 0.5)
        veil = 1.0 - np.exp(-focal * eye_height / under * mood.haze_per_metre)
        keep = np.rint(255 * (1 - veil)).astype(np.uint8)
        added = np.outer(veil, mood.haze).clip(0, 255).astype(np.uint8)
        self._keep = np.ascontiguousarray(
            np.broadcast_to(keep[:, None, None], (height + 1, width, 3))
        )
        self._added = np.ascontiguousarray(
            np.broadcast_to(added[:, None, :], (height + 1, width, 3))
        )
        self._rows = int(np.searchsorted(-veil, -0.02))

    def draw(self, image: Image, camera: Camera) -> None:
        """Lay the veil over the rows below the horizon."""
        top = max(0, math.ceil(camera.horizon))
        skip = top - math.ceil(camera.horizon)
        count = min(len(image) - top, self._rows - skip)
        if count > 0:
            region = image[top : top + count]
            cv2.multiply(region, self._keep[skip : skip + count], region, scale=1 / 255)
            cv2.add(region, self._added[skip : skip + count], region)


class Wall:
    """One row of houses, hedges or trees: an upright plane along the road.

    ``picture`` (rows from the top down to the ground, columns along the way, 3) is lit and loops
    over its columns; ``mask`` (rows, columns) is 255 where it is opaque.
    """

    def __init__(self, picture: Image, mask: Image, mood: Mood, x: float, scale: float) -> None:
        self.x = x
        self.high = picture.shape[0] / scale
        self.loop = picture.shape[1] / scale
        self._levels: list[_Level] = []
        for near, far, shrink in _WALL_BANDS:
            size = (picture.shape[1] // shrink, picture.shape[0] // shrink)
            small = _hazed(
                np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8),
                mood,
                (near + far) / 2,
            )
            veil = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
            veil = np.where(veil > 127, 255, 0).astype(np.uint8)
            own = small.shape[1] / self.loop
            extra = math.ceil((far - near) * own) + 2
            self._levels.append(
                _Level(
                    _wrapped(small, extra, 1),
                    _wrapped(veil, extra, 1),
                    near,
                    far,
                    small.shape[0] / self.high,
                    own,
                )
            )

    def draw(self, image: Image, camera: Camera) -> None:
        """Paint the plane over ``image`` (H, W, 3)."""
        height, width = image.shape[:2]
        sign = 1.0 if self.x > 0 else -1.0
        aside = (np.arange(width) - camera.centre) / camera.focal * sign
        bend, off = camera.bend * sign, abs(self.x)
        inside = aside * aside - 4 * bend * off
        root = aside + np.sqrt(np.maximum(inside, 0.0))
        hit = (inside >= 0) & (root > 1e-6)
        depth = np.where(hit, 2 * off / np.where(hit, root, 1.0), np.inf)
        for level in self._levels:
            columns = np.flatnonzero((depth >= level.near) & (depth < level.far))
            if not len(columns):
                continue
            first, last = int(columns[0]), int(columns[-1]) + 1
            self._draw_level(
                image, camera, level, depth[first:last].astype(np.float32), first, height
            )

    def _draw_level(
        self, image: Image, camera: Camera, level: _Level, depth: Plane, first: int, height: int
    ) -> None:
        finite = np.minimum(depth, np.float32(FAR_METRES))
        columns = np.arange(first, first + len(depth), dtype=np.float32) - np.float32(camera.centre)
        horizon = np.float32(camera.horizon) + columns * np.float32(camera.roll)
        nearest = float(finite.min())
        top = max(
            0,
            math.floor(
                float(horizon.min()) - camera.focal * (self.high - camera.eye_height) / nearest
            ),
        )
        bottom = min(
            height, math.ceil(float(horizon.max()) + camera.focal * camera.eye_height / nearest) + 1
        )
        if bottom <= top:
            return
        offset = (camera.travelled + level.near) % self.loop - level.near
        line = (finite + np.float32(offset)) * np.float32(level.along)
        rows = np.arange(top, bottom, dtype=np.float32)[:, None]
        step = finite * np.float32(level.across / camera.focal)
        start = np.float32((self.high - camera.eye_height) * level.across) - horizon * step
        map_y = rows * step + start
        map_x = np.broadcast_to(line, map_y.shape)
        shown = cv2.remap(
            level.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        assert level.mask is not None
        mask = cv2.remap(
            level.mask, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT
        )
        cv2.copyTo(shown, mask, image[top:bottom, first : first + len(depth)])


class Sky:
    """A wide picture of sky and skyline, of which a frame shows the part it looks at."""

    def __init__(self, picture: Image, horizon: int) -> None:
        self.picture = picture
        self.horizon = horizon

    def draw(self, image: Image, camera: Camera, turn: float) -> None:
        """Fill ``image`` (H, W, 3) down to just below the horizon; ``turn`` in pixels."""
        height, width = image.shape[:2]
        middle = (self.picture.shape[1] - width) / 2
        left = round(min(2 * middle, max(0.0, middle + turn)))
        bottom = min(height, round(camera.horizon + abs(camera.roll) * width) + 2)
        shift = self.horizon - round(camera.horizon)
        rows = np.clip(np.arange(max(0, bottom)) + shift, 0, self.picture.shape[0] - 1)
        if not len(rows):
            return
        low, high = int(rows[0]), int(rows[-1]) + 1
        if high - low == len(rows):
            image[: len(rows)] = self.picture[low:high, left : left + width]
        else:
            image[: len(rows)] = self.picture[rows, left : left + width]
