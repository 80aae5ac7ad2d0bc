"""What lies behind the actors of a drawn street: painted once, then re-projected for each frame.

The road is a plane and each row of houses (`walls`) is another, so every pixel's place on them
follows from one division; OpenCV's remap does the rest. Each plane is kept at several resolutions,
and a band of distances is taken from each.
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


class Level(NamedTuple):
    """A plane's picture at one resolution, for distances from ``near`` to ``far`` metres."""

    image: Image
    mask: Image | None
    """Class of each pixel, 0 where the plane is not there; None: it is everywhere."""
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


def wrapped(image: Image, extra: int, axis: int) -> Image:
    """Repeat the beginning of a looped picture behind its end."""
    repeats = [image] * (1 + math.ceil(extra / image.shape[axis]))
    whole = np.concatenate(repeats, axis=axis)
    size = image.shape[axis] + extra
    return np.ascontiguousarray(whole[:size] if axis == 0 else whole[:, :size])


class Ground:
    """The plane of road, pavements and verges.

    ``picture`` (rows along the way, columns across, 3) is lit, loops over its rows, and begins
    ``left`` metres right of the camera's axis. ``kinds`` (rows, columns) are its classes.
    """

    def __init__(
        self, picture: Image, kinds: Image, left: float, along: float, across: float
    ) -> None:
        self.left, self._kinds = left, kinds
        self.loop = picture.shape[0] / along
        self.columns = picture.shape[1] / across
        self._levels: list[Level] = []
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
            image = wrapped(small, math.ceil((reach - near) * own) + 2, 0)
            self._levels.append(Level(image, None, near, far, small.shape[1] / self.columns, own))

    def draw(self, image: Image, camera: Camera) -> None:
        """Fill the rows of ``image`` (H, W, 3) below the horizon."""
        height, width = image.shape[:2]
        tilt = abs(camera.roll) * width
        scale = camera.focal * camera.eye_height
        for level in self._levels:
            low = camera.horizon + (scale / level.far if level.far < 1e6 else 0.0) - tilt
            high = camera.horizon + scale / level.near + tilt if level.near else float(height)
            top, bottom = max(0, math.floor(low)), min(height, math.ceil(high) + 1)
            if bottom <= top:
                continue
            depth, side = _on_ground(camera, top, bottom, width, 2 * FAR_METRES + level.near)
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

    def draw_classes(self, classes: Image, camera: Camera) -> None:
        """Fill the rows of ``classes`` (H, W) that `draw` fills, without averaging."""
        height, width = classes.shape
        top = max(0, math.floor(camera.horizon - abs(camera.roll) * width))
        if top >= height:
            return
        depth, side = _on_ground(camera, top, height, width, 2 * FAR_METRES)
        rows, columns = self._kinds.shape
        along, across = rows / self.loop, columns / self.columns
        row = np.rint((depth + np.float32(camera.travelled % self.loop)) * along).astype(np.intp)
        column = np.floor((side - np.float32(self.left)) * across).astype(np.intp)
        classes[top:] = self._kinds[row % rows, np.clip(column, 0, columns - 1)]


def _on_ground(
    camera: Camera, top: int, bottom: int, width: int, farthest: float
) -> tuple[Plane, Plane]:
    """Give metres ahead and to the right (rows, width) where the rows' pixels meet the ground."""
    columns = np.arange(width, dtype=np.float32) - np.float32(camera.centre)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(camera.horizon)
    under = np.maximum(rows - columns * np.float32(camera.roll), np.float32(0.25))
    depth = np.float32(camera.focal * camera.eye_height) / under
    np.minimum(depth, np.float32(farthest), out=depth)
    side = depth * (columns * np.float32(1 / camera.focal)) - depth * depth * np.float32(
        camera.bend
    )
    return np.asarray(depth, np.float32), np.asarray(side, np.float32)


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
