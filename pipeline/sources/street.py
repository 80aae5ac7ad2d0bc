"""A procedurally drawn drive: a picture source whose true boxes are known.

:class:`Street` draws what a camera in (or above) the traffic sees: road, houses, trees, lamps,
vehicles, riders and walkers, by day or night, with haze, camera sway and sensor noise, from NumPy
and OpenCV alone. Every frame is a pure function of seed, size, rate and index. Its parts are in
the modules beside it: light, solid figures, vehicles, people, scenery, traffic, planes and
their paint, and the painted frame counter.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.sources import street_sensor as sensor
from pipeline.sources.street_backdrop import Camera, Haze, Image
from pipeline.sources.street_cast import Actor
from pipeline.sources.street_counter import paint_frame_counter, read_frame_counter
from pipeline.sources.street_fronts import paint_walls
from pipeline.sources.street_layout import bend_of, draw_layout
from pipeline.sources.street_light import draw_mood
from pipeline.sources.street_pasting import Seen, paste, truth
from pipeline.sources.street_render import Sprite, Window, render
from pipeline.sources.street_roads import paint_ground
from pipeline.sources.street_skies import paint_sky
from pipeline.sources.street_solids import Pose, Solid, turned
from pipeline.sources.street_traffic import draw_actors

__all__ = ["STREET_CLASSES", "Street", "StreetFrame", "read_frame_counter"]

STREET_CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
LEAST_SIZE = 64
_SPRITE_BYTES = 64 << 20
_FARTHEST, _NEAREST = 170.0, 0.9
_Key = tuple[object, int, int, int, int]
"""What a stored sprite shows: model, step of movement, size, direction and height of view."""


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
        height, width = self.size_hw
        rng = np.random.default_rng([seed, 0x57EE7])
        self.layout = draw_layout(rng)
        self.mood = draw_mood(rng)
        self._focal = max(width, height * 1.2) * float(rng.uniform(0.85, 1.25))
        low, high = (0.14, 0.32) if self.layout.kind == "pole" else (0.36, 0.52)
        self._horizon = height * float(rng.uniform(low, high))
        self._sway = rng.uniform(0.2, 1.0, 3) * [0.004 * height, 0.006 * width, 0.0035]
        if self.layout.kind == "pole":
            self._sway *= 0.1
        self._waves = rng.uniform(0.5, 1.5, 6), rng.uniform(0, 6.28, 6)
        self._bend = bend_of(self.layout, rng)
        self._ground = paint_ground(self.layout, self.mood, rng)
        self._haze = Haze(self.size_hw, self._focal, self.layout.eye_height, self.mood)
        self._walls = paint_walls(self.layout, self.mood, rng)
        self._sky = paint_sky(self.layout, self.mood, rng, self.size_hw, round(self._horizon))
        self._vignette = sensor.vignette(self.size_hw, self.mood, round(self._horizon), rng)
        self._actors = draw_actors(self.layout, self.mood.lamps, rng)
        self._noise = sensor.noise_bank(rng, self.size_hw, self.mood.lamps)
        self._soft = float(rng.uniform(0.0, 0.7))
        self._drift = rng.uniform(0.0, 0.09), rng.uniform(0.1, 0.4), rng.uniform(0, 6.28)
        self._halo = sensor.draw_halo()
        self._sprites: OrderedDict[_Key, Sprite | None] = OrderedDict()
        self._sprite_bytes = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[StreetFrame]:
        return (self.frame(index) for index in range(len(self)))

    def frame(self, index: int) -> StreetFrame:
        """Draw frame ``index``; any order gives the same frames.

        Raises:
            IndexError: ``index`` lies outside the drive.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"the drive has frames 0..{len(self) - 1}, not {index}")
        seconds = index / self.fps
        height, width = self.size_hw
        camera = self._camera(seconds)
        image = np.empty((height, width, 3), np.uint8)
        self._sky.draw(image, camera, 4000.0 * camera.bend)
        self._ground.draw(image, camera)
        self._haze.draw(image, camera)
        for wall in self._walls:
            wall.draw(image, camera)
        owners = np.zeros((height, width), np.uint8)
        seen, halos = self._paste_actors(image, owners, camera, seconds)
        for light in halos:
            self._shine(image, *light)
        image = self._expose(image, index, seconds)
        high, wide = paint_frame_counter(image, index % (1 << 24))
        owners[-high:, :wide] = 0
        boxes, class_ids, ignored = truth(seen, owners)
        return StreetFrame(image, boxes, class_ids, ignored, index)

    def _camera(self, seconds: float) -> Camera:
        rates, phases = self._waves
        waves = [
            math.sin(rate * 1.7 * seconds + phase)
            for rate, phase in zip(rates, phases, strict=True)
        ]
        shake = 0.25 * math.sin(9.0 * rates[5] * seconds + phases[0])
        pitch, yaw, roll = self._sway
        return Camera(
            focal=self._focal,
            centre=self.size_hw[1] / 2 + float(yaw) * (waves[0] + 0.4 * waves[1]),
            horizon=self._horizon + float(pitch) * (waves[2] + 0.5 * waves[3] + shake),
            roll=float(roll) * waves[4],
            bend=self._bend * math.sin(0.12 * rates[5] * seconds + phases[5]),
            eye_height=self.layout.eye_height,
            travelled=self.layout.travelled(seconds),
        )

    def _paste_actors(
        self, image: Image, owners: Image, camera: Camera, seconds: float
    ) -> tuple[dict[int, Seen], list[tuple[float, float, float, tuple[float, float, float]]]]:
        """Paste all actors, far ones first; give what was pasted and the lights to add."""
        placed = []
        for number, actor in enumerate(self._actors):
            z = actor.z(seconds)
            if -9.0 < z < _FARTHEST:
                placed.append((z, number, actor.x(seconds, z)))
        placed.sort(key=lambda item: (-item[0], item[1]))
        seen: dict[int, Seen] = {}
        halos: list[tuple[float, float, float, tuple[float, float, float]]] = []
        for z, number, x in placed:
            actor = self._actors[number]
            step = actor.step(seconds)
            if camera.focal < 24 * z:
                step -= step % 2  # far off, half the steps will do
            solid = actor.solid(step)
            drawn = self._draw(actor, number, step, x, z, camera)
            if drawn is None:
                continue
            sprite, left, top, scale = drawn
            names = {}
            for label, class_id in actor.classes.items():
                owner = len(seen) + 1
                if owner > 255:
                    break
                names[label] = owner
                seen[owner] = Seen(class_id, 0, (0, 0, 0, 0), 0.0)
            paste(image, owners, sprite, left, top, scale, names, seen)
            if solid.lamps and z > 3:
                halos.extend(self._lights(solid, actor, x, z, camera))
        return seen, halos

    def _draw(
        self, actor: Actor, number: int, step: int, x: float, z: float, camera: Camera
    ) -> tuple[Sprite, float, float, float] | None:
        """Give an actor's sprite, the corner to paste it at and its scale; None: not in sight."""
        height, width = self.size_hw
        solid = actor.solid(step)
        reach = solid.half_length if abs(math.sin(actor.heading)) < 0.7 else solid.half_width
        if z + reach < 2.0 or (not actor.exact and z - reach * 0.5 < _NEAREST):
            return None
        if actor.exact and z - reach < 5.0:
            return self._draw_near(actor, solid, x, z, camera)
        column, row = camera.column(x, z), camera.ground_row(x, z)
        per_metre = camera.focal / z
        span = per_metre * (solid.half_length + solid.half_width + solid.height) + 8
        if per_metre * solid.height < (2.0 if actor.classes else 5.0):
            return None
        if column + span < 0 or column - span > width or row - span - 8 > height:
            return None
        # Vehicles are drawn anew for each half doubling of their size, all else for each doubling.
        level = math.ceil((2 if actor.exact else 1) * math.log2(per_metre)) * (
            1 if actor.exact else 2
        )
        # Close up, a large sprite is enlarged rather than kept at its full size.
        most = 0.8 if actor.flat else 1.1
        stored = min(2.0 ** (level / 2), most * height / max(1.0, solid.height))
        aside = 0.0 if actor.flat else x / z - camera.bend * z
        below = camera.eye_height / z
        fine = (0.08, 0.06) if actor.exact else (0.14, 0.11)
        turn = round(aside / fine[0])
        pitch = 0 if actor.flat else round(below / fine[1])
        model = number if actor.model is None else actor.model
        key = (model, step, level, turn, pitch)
        sprite = self._sprite(
            key, actor, solid, stored, turn * fine[0], max(0.012, pitch * fine[1])
        )
        if sprite is None:
            return None
        scale = per_metre / stored
        return sprite, column + sprite.left * scale, row + sprite.top * scale, scale

    def _sprite(
        self, key: _Key, actor: Actor, solid: Solid, per_metre: float, aside: float, below: float
    ) -> Sprite | None:
        """Give a stored sprite, or draw and store it; the oldest go when too much is stored."""
        if key in self._sprites:
            self._sprites.move_to_end(key)
            return self._sprites[key]
        eye = self.layout.eye_height
        distance = max(eye / below, solid.half_length + 1.5)
        pose = Pose(aside * distance, distance, actor.heading, eye)
        if actor.flat:
            pose = Pose(0.0, distance := 50.0, actor.heading, 0.6)
        sprite = render(solid, pose, per_metre * distance, self.mood, veil=self._veil(key[2]),
                        fine=1 if actor.flat or per_metre * solid.height > 250 else 2)  # fmt: skip
        self._sprites[key] = sprite
        self._sprite_bytes += _size_of(sprite)
        while self._sprite_bytes > _SPRITE_BYTES:
            self._sprite_bytes -= _size_of(self._sprites.popitem(last=False)[1])
        return sprite

    def _veil(self, level: int) -> float:
        """Give the haze of a stored sprite from its size alone, so that it can be kept."""
        return self.mood.veil(self._focal / 2.0 ** (level / 2 - 0.25))

    def _draw_near(
        self, actor: Actor, solid: Solid, x: float, z: float, camera: Camera
    ) -> tuple[Sprite, float, float, float] | None:
        """Draw what is too close for stored sprites exactly as it stands, cut to the picture."""
        height, width = self.size_hw
        edge = 0.25 * width / camera.focal
        limit = Window(-camera.centre / camera.focal - edge, -camera.horizon / camera.focal - edge,
                       (width - camera.centre) / camera.focal + edge,
                       (height - camera.horizon) / camera.focal + edge)  # fmt: skip
        pose = Pose(x, z, actor.heading, camera.eye_height)
        sprite = render(
            solid, pose, camera.focal, self.mood, veil=self.mood.veil(z), limit=limit, fine=1
        )
        if sprite is None:
            return None
        depth = max(z, 0.4)
        left = camera.centre + camera.focal * x / depth + sprite.left
        return (
            sprite,
            left,
            camera.horizon + camera.focal * camera.eye_height / depth + sprite.top,
            1.0,
        )

    def _lights(
        self, solid: Solid, actor: Actor, x: float, z: float, camera: Camera
    ) -> list[tuple[float, float, float, tuple[float, float, float]]]:
        """Give column, row, radius and colour of the lamps that face the camera."""
        found = []
        for lamp in solid.lamps:
            dx, dy, dz = turned(lamp.place, actor.heading)
            _, _, facing = turned(lamp.direction, actor.heading)
            if facing > 0.3 or z + dz < 2.0:
                continue
            depth = z + dz
            column = camera.column(x + dx, depth)
            row = camera.ground_row(x + dx, depth) - camera.focal * dy / depth
            size = camera.focal * (lamp.radius + 0.004 * depth) / depth
            found.append((column, row, size, lamp.colour))
        return found

    def _shine(
        self,
        image: Image,
        column: float,
        row: float,
        radius: float,
        colour: tuple[float, float, float],
    ) -> None:
        """Add a halo to the picture."""
        side = max(3, min(round(2 * radius), self.size_hw[0]))
        left, top = round(column - side / 2), round(row - side / 2)
        y0, y1 = max(0, top), min(image.shape[0], top + side)
        x0, x1 = max(0, left), min(image.shape[1], left + side)
        if y0 >= y1 or x0 >= x1:
            return
        halo = cv2.resize(self._halo, (side, side), interpolation=cv2.INTER_LINEAR)
        part = halo[y0 - top : y1 - top, x0 - left : x1 - left]
        tinted = cv2.merge([cv2.multiply(part, (own * self.mood.lamps,)) for own in colour])
        region = image[y0:y1, x0:x1]
        cv2.add(region, tinted.reshape(region.shape), region)

    def _expose(self, image: Image, index: int, seconds: float) -> Image:
        """Do what the camera does to light: lens, exposure, blur and noise."""
        if self._vignette is not None:
            image = cv2.multiply(image, self._vignette, scale=1 / 128)  # type: ignore[assignment]
        size, rate, phase = self._drift
        gain = 1.0 + size * math.sin(rate * seconds + phase)
        warm = 0.25 * size * math.sin(0.7 * rate * seconds + 2 * phase)
        ramp = np.arange(256, dtype=np.float64)
        table = np.empty((1, 256, 3), np.uint8)
        for channel, tint in enumerate((gain * (1 + warm), gain, gain * (1 - warm))):
            # A soft shoulder keeps highlights from clipping at once.
            lit = ramp * tint / 255.0
            table[0, :, channel] = np.clip(
                255 * np.where(lit > 0.8, 0.8 + 0.2 * np.tanh((lit - 0.8) / 0.2), lit), 0, 255
            )
        image = cv2.LUT(image, table)  # type: ignore[assignment]
        if self._soft > 0.25:
            image = cv2.GaussianBlur(image, (3, 3), self._soft)  # type: ignore[assignment]
        height, width = self.size_hw
        y, x = (index * 37) % 64, (index * 53) % 64
        more, less = self._noise
        cv2.add(image, more[y : y + height, x : x + width], image)
        cv2.subtract(image, less[y : y + height, x : x + width], image)
        return image


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


def _size_of(sprite: Sprite | None) -> int:
    return 200 if sprite is None else sprite.colour.nbytes * 2 + sprite.labels.nbytes + 500








