"""A procedurally drawn drive: a picture source whose true boxes are known.

:class:`Street` draws what a camera in (or above) the traffic sees: road, houses, trees, lamps,
vehicles, riders and walkers, by day or night, with haze, camera sway and sensor noise, from NumPy
and OpenCV alone. Every frame is a pure function of seed, size, rate and index. Its parts are in
the modules beside it: light, solid figures, vehicles, people, scenery, traffic, planes and
their paint, and the painted frame counter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.sources.street.backdrop import Camera, Haze, Image
from pipeline.sources.street.cast import STREET_CLASSES
from pipeline.sources.street.counter import paint_frame_counter, read_frame_counter
from pipeline.sources.street.fronts import paint_walls
from pipeline.sources.street.layout import Layout, bend_of, draw_layout
from pipeline.sources.street.light import draw_mood
from pipeline.sources.street.pasting import Seen, paste, truth
from pipeline.sources.street.pixel_classes import UNKNOWN
from pipeline.sources.street.roads import paint_ground
from pipeline.sources.street.sensor import Light, Sensor
from pipeline.sources.street.skies import paint_sky
from pipeline.sources.street.solids import Solid, turned
from pipeline.sources.street.stage import Stage
from pipeline.sources.street.traffic import draw_actors

__all__ = ["STREET_CLASSES", "Street", "StreetFrame", "read_frame_counter"]

LEAST_SIZE = 64
_SALT = 41  # any number would do; with this one, seed 0 is a lively street by day
_FARTHEST_METRES, _BEHIND_METRES = 170.0, 9.0


@dataclass(frozen=True)
class StreetFrame:
    """One picture of the drive and its truth; boxes are xyxy in pixels, continuous edges."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    boxes: npt.NDArray[np.float32]
    """(T, 4): the visible extent of each object, inside the picture."""
    class_ids: npt.NDArray[np.int64]
    """(T,) indices into :data:`STREET_CLASSES`."""
    ignored: npt.NDArray[np.float32]
    """(I, 4) boxes that count neither way: objects nearly hidden, cut off or tiny."""
    index: int
    classes: npt.NDArray[np.uint8] | None = None
    """(H, W) indices into `PIXEL_CLASSES`, 255 = unknown; None where they were not asked for."""


class Street:
    """A drawn drive of ``seconds`` at ``fps``, the same for the same arguments.

    Args:
        seed: Chooses street, light, traffic and camera; any int from 0 on.
        size_hw: Height and width in pixels, each at least 64.
        fps: Frames per second of the drive's clock.
        seconds: Length of the drive.

    Raises:
        ValueError: An argument is out of range.

    Not for use by several threads at once: drawn sprites are kept between frames.
    """

    def __init__(
        self,
        seed: int = 0,
        size_hw: tuple[int, int] = (360, 640),
        fps: float = 25.0,
        seconds: float = 12.0,
    ) -> None:
        _check(seed, size_hw, fps, seconds)
        self.seed, self.size_hw, self.fps = seed, (int(size_hw[0]), int(size_hw[1])), float(fps)
        self._length = max(1, round(fps * seconds))
        # A stream of chance for each part, so that a change of one leaves the others as they are.
        streams = [np.random.default_rng([seed, part, _SALT]) for part in range(5)]
        self.layout = draw_layout(streams[0])
        self.mood = draw_mood(streams[1])
        self._view = _View(self.size_hw, self.layout, streams[2])
        focal, horizon = self._view.focal, round(self._view.horizon)
        self._sky = paint_sky(self.layout, self.mood, streams[3], self.size_hw, horizon)
        self._ground = paint_ground(self.layout, self.mood, streams[3])
        self._walls = paint_walls(self.layout, self.mood, streams[3])
        self._haze = Haze(self.size_hw, focal, self.layout.eye_height, self.mood)
        self._actors = draw_actors(self.layout, self.mood.lamps, streams[4])
        self._stage = Stage(self.size_hw, focal, self.layout.eye_height, self.mood)
        self._sensor = Sensor(self.size_hw, self.mood, horizon, streams[2])

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[StreetFrame]:
        return (self.frame(index) for index in range(len(self)))

    def frame(self, index: int, labelled: bool = False) -> StreetFrame:
        """Draw frame ``index``; any order gives the same frames.

        Args:
            index: From 0 on.
            labelled: Give the class of every pixel too. The picture is the same without.

        Raises:
            IndexError: ``index`` lies outside the drive.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"the drive has frames 0..{len(self) - 1}, not {index}")
        seconds = index / self.fps
        height, width = self.size_hw
        camera = self._view.at(seconds)
        image = np.empty((height, width, 3), np.uint8)
        self._sky.draw(image, camera, 4000.0 * camera.bend)
        self._ground.draw(image, camera)
        self._haze.draw(image, camera)
        for wall in self._walls:
            wall.draw(image, camera)
        owners = np.zeros((height, width), np.uint8)
        classes = self._classes_behind(camera) if labelled else None
        seen = self._paste_actors(image, owners, camera, seconds, classes)
        image = self._sensor.expose(image, index, seconds)
        high, wide = paint_frame_counter(image, index % (1 << 24))
        owners[-high:, :wide] = 0
        if classes is not None:
            classes[-high:, :wide] = UNKNOWN
        boxes, class_ids, ignored = truth(seen, owners)
        return StreetFrame(image, boxes, class_ids, ignored, index, classes)

    def _classes_behind(self, camera: Camera) -> Image:
        """Give the classes (H, W) of the street without its actors."""
        classes = np.full(self.size_hw, UNKNOWN, np.uint8)
        self._sky.draw_classes(classes, camera, 4000.0 * camera.bend)
        self._ground.draw_classes(classes, camera)
        for wall in self._walls:
            wall.draw_classes(classes, camera)
        return classes

    def _paste_actors(
        self,
        image: Image,
        owners: Image,
        camera: Camera,
        seconds: float,
        classes: Image | None = None,
    ) -> dict[int, Seen]:
        """Paste all actors, far ones first; give what was pasted under its number in ``owners``."""
        placed = []
        for number, actor in enumerate(self._actors):
            z = actor.z(seconds)
            if -_BEHIND_METRES < z < _FARTHEST_METRES:
                placed.append((z, number, actor.x(seconds, z)))
        placed.sort(key=lambda item: (-item[0], item[1]))
        seen: dict[int, Seen] = {}
        for z, number, x in placed:
            actor = self._actors[number]
            step = actor.step(seconds)
            if camera.focal < 24 * z:  # far off, some of the steps will do
                step -= step % (2 if camera.focal > 13 * z else 5)
            drawn = self._stage.draw(actor, number, step, x, z, camera)
            if drawn is None or len(seen) + len(actor.classes) > 255:
                continue
            names = {}
            for label, class_id in actor.classes.items():
                names[label] = len(seen) + 1
                seen[names[label]] = Seen(class_id)
            labelling = None if classes is None else (classes, actor.pixel_kinds())
            paste(image, owners, drawn, names, seen, labelling)
            for light in _lights(actor.solid(step), actor.heading, x, z, camera):
                self._sensor.shine(image, light)
        return seen


def _lights(solid: Solid, heading: float, x: float, z: float, camera: Camera) -> Iterator[Light]:
    """Give the lamps of a model at (x, z) that face the camera."""
    for lamp in solid.lamps:
        dx, dy, dz = turned(lamp.place, heading)
        facing, depth = turned(lamp.direction, heading)[2], z + dz
        if facing > 0.3 or depth < 2.0:
            continue
        row = camera.ground_row(x + dx, depth) - camera.focal * dy / depth
        size = camera.focal * (lamp.radius + 0.004 * depth) / depth
        yield Light(camera.column(x + dx, depth), row, size, lamp.colour)


class _View:
    """How the camera is mounted and how it sways; ``focal`` and ``horizon`` in pixels."""

    def __init__(self, size_hw: tuple[int, int], layout: Layout, rng: np.random.Generator) -> None:
        height, width = size_hw
        self.focal = max(width, height * 1.2) * float(rng.uniform(0.85, 1.25))
        low, high = (0.14, 0.32) if layout.kind == "pole" else (0.36, 0.52)
        self.horizon = height * float(rng.uniform(low, high))
        self._layout, self._centre = layout, width / 2
        still = 0.1 if layout.kind == "pole" else 1.0
        sizes = rng.uniform(0.2, 1.0, 3) * still * [0.004 * height, 0.006 * width, 0.0035]
        self._pitch, self._yaw, self._roll = sizes.tolist()
        self._rates, self._phases = (
            rng.uniform(0.5, 1.5, 6).tolist(),
            rng.uniform(0, 6.28, 6).tolist(),
        )
        self._bend = bend_of(layout, rng)

    def at(self, seconds: float) -> Camera:
        """Give the camera at that time."""
        waves = [
            math.sin(1.7 * rate * seconds + phase)
            for rate, phase in zip(self._rates, self._phases, strict=True)
        ]
        shake = 0.25 * math.sin(9.0 * self._rates[5] * seconds + self._phases[0])
        turn = math.sin(0.12 * self._rates[5] * seconds + self._phases[5])
        return Camera(
            focal=self.focal,
            centre=self._centre + self._yaw * (waves[0] + 0.4 * waves[1]),
            horizon=self.horizon + self._pitch * (waves[2] + 0.5 * waves[3] + shake),
            roll=self._roll * waves[4],
            bend=self._bend * turn,
            eye_height=self._layout.eye_height,
            travelled=self._layout.travelled(seconds),
        )


def _check(seed: int, size_hw: tuple[int, int], fps: float, seconds: float) -> None:
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}; use 0 or more")
    if min(size_hw) < LEAST_SIZE:
        raise ValueError(
            f"a street needs at least {LEAST_SIZE}x{LEAST_SIZE} pixels, got height {size_hw[0]}, "
            f"width {size_hw[1]}; ask for a larger size"
        )
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be above 0, got {fps}; 25 is usual")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds must be above 0, got {seconds}; 12 is usual")
