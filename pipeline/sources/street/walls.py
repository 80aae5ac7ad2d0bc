"""Rows of houses or greenery beside a drawn street: upright planes, re-projected for each frame.

They are kept at several resolutions with the haze of their distance already laid on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.sources.street.backdrop import FAR_METRES, Camera, Image, Level, Plane, wrapped
from pipeline.sources.street.light import Mood

_WALL_BANDS = (
    (0.0, 22.0, 1),
    (22.0, 38.0, 1),
    (38.0, 56.0, 2),
    (56.0, 80.0, 2),
    (80.0, 120.0, 4),
    (120.0, 175.0, 4),
    (175.0, FAR_METRES, 8),
)


def _hazed(picture: Image, mood: Mood, distance: float) -> Image:
    veil = mood.veil(distance)
    haze = np.full_like(picture, 0)
    haze[:] = np.array(mood.haze, np.float64).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.addWeighted(picture, 1 - veil, haze, veil, 0), np.uint8)


class _Look(NamedTuple):
    """Where in a picture one level of a wall is seen, and which of its pixels are seen there."""

    level: Level
    region: tuple[slice, slice]
    map_x: Plane
    map_y: Plane


class Wall:
    """One row of houses, hedges or trees: an upright plane along the road.

    ``picture`` (rows from the top down to the ground, columns along the way, 3) is lit and loops
    over its columns; ``kinds`` (rows, columns) is its class, 0 where one sees through.
    """

    def __init__(self, picture: Image, kinds: Image, mood: Mood, x: float, scale: float) -> None:
        mask = np.where(kinds > 0, 255, 0).astype(np.uint8)
        # Averaging may leave opaque what just had no class; then the neighbour's will do.
        spread = cv2.dilate(kinds, np.ones((2 * _WALL_BANDS[-1][2] + 1,) * 2, np.uint8))
        filled = np.where(kinds > 0, kinds, spread).astype(np.uint8)
        self.x = x
        self.high = picture.shape[0] / scale
        self.loop = picture.shape[1] / scale
        self._levels: list[Level] = []
        for near, far, shrink in _WALL_BANDS:
            size = (picture.shape[1] // shrink, picture.shape[0] // shrink)
            small = _hazed(
                np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8),
                mood,
                (near + far) / 2,
            )
            veil = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)
            own_kinds = cv2.resize(filled, size, interpolation=cv2.INTER_NEAREST)
            veil = np.where(veil > 127, own_kinds, 0).astype(np.uint8)
            own = small.shape[1] / self.loop
            extra = math.ceil((far - near) * own) + 2
            self._levels.append(
                Level(
                    wrapped(small, extra, 1),
                    wrapped(veil, extra, 1),
                    near,
                    far,
                    small.shape[0] / self.high,
                    own,
                )
            )

    def draw(self, image: Image, camera: Camera) -> None:
        """Paint the plane over ``image`` (H, W, 3)."""
        for level, region, map_x, map_y in self._looks(image.shape[:2], camera):
            shown = cv2.remap(
                level.image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            cv2.copyTo(shown, _kinds_at(level, map_x, map_y), image[region])

    def draw_classes(self, classes: Image, camera: Camera) -> None:
        """Write the classes of the pixels that `draw` paints into ``classes`` (H, W)."""
        for level, region, map_x, map_y in self._looks(classes.shape, camera):
            kinds = _kinds_at(level, map_x, map_y)
            cv2.copyTo(kinds, kinds, classes[region])

    def _looks(self, size_hw: tuple[int, ...], camera: Camera) -> Iterator[_Look]:
        height, width = size_hw
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
            yield from self._look(
                camera, level, depth[first:last].astype(np.float32), first, height
            )

    def _look(
        self, camera: Camera, level: Level, depth: Plane, first: int, height: int
    ) -> Iterator[_Look]:
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
        region = slice(top, bottom), slice(first, first + len(depth))
        yield _Look(level, region, map_x, map_y)


def _kinds_at(level: Level, map_x: Plane, map_y: Plane) -> Image:
    assert level.mask is not None
    kinds = cv2.remap(level.mask, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(kinds, np.uint8)
