"""Sprites for a frame: which drawing of an actor is shown, where and how large.

Drawings are kept and shown again while an actor's size and the direction it is seen from have
not changed much; vehicles close by are drawn anew, in the right perspective, for every frame.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from pipeline.sources.street.backdrop import Camera
from pipeline.sources.street.canvas import Window
from pipeline.sources.street.cast import Actor
from pipeline.sources.street.light import Mood
from pipeline.sources.street.render import Sprite, render
from pipeline.sources.street.solids import NEAR_METRES, Pose, Solid

_SPRITE_BYTES = 64 << 20
_NEAREST_METRES = 0.9
_CLOSE_METRES = 5.0
_Key = tuple[object, int, int, int, int]
"""What a stored sprite shows: model, step of movement, size, direction and height of view."""


class Placed(NamedTuple):
    """A sprite, the column and row of its corner in the frame, and its enlargement."""

    sprite: Sprite
    left: float
    top: float
    scale: float


class Stage:
    """Draws actors as a camera of ``focal`` pixels sees them, in frames of ``size_hw`` pixels."""

    def __init__(
        self, size_hw: tuple[int, int], focal: float, eye_height: float, mood: Mood
    ) -> None:
        self.size_hw, self.focal = size_hw, focal
        self.eye_height, self.mood = eye_height, mood
        self._sprites: OrderedDict[_Key, Sprite | None] = OrderedDict()
        self._sprite_bytes = 0

    def draw(
        self, actor: Actor, number: int, step: int, x: float, z: float, camera: Camera
    ) -> Placed | None:
        """Draw the actor of that number at a step of its movement; None: it is not in sight."""
        height, width = self.size_hw
        solid = actor.solid(step)
        reach = solid.half_length if abs(math.sin(actor.heading)) < 0.7 else solid.half_width
        if z + reach < 2.0 or (not actor.exact and z - reach * 0.5 < _NEAREST_METRES):
            return None
        if actor.exact and z - reach < _CLOSE_METRES:
            return self._draw_near(actor, solid, x, z, camera)
        column, row = camera.column(x, z), camera.ground_row(x, z)
        per_metre = camera.focal / z
        span = per_metre * (solid.half_length + solid.half_width + solid.height) + 8
        if per_metre * solid.height < (2.0 if actor.classes else 5.0):
            return None
        if column + span < 0 or column - span > width or row - span - 8 > height:
            return None
        # Vehicles are drawn anew for each half doubling of their size, all else for each doubling.
        doublings = math.log2(per_metre)
        level = math.ceil(2 * doublings) if actor.exact else 2 * math.ceil(doublings)
        # Close up, a large sprite is enlarged rather than kept at its full size.
        stored = min(2.0 ** (level / 2), 0.8 * height / max(1.0, solid.height))
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
        return Placed(sprite, column + sprite.left * scale, row + sprite.top * scale, scale)

    def _sprite(
        self, key: _Key, actor: Actor, solid: Solid, per_metre: float, aside: float, below: float
    ) -> Sprite | None:
        """Give a stored sprite, or draw and store it; the oldest go when too much is stored."""
        if key in self._sprites:
            self._sprites.move_to_end(key)
            return self._sprites[key]
        eye = self.eye_height
        distance = max(eye / below, solid.half_length + 1.5)
        pose = Pose(aside * distance, distance, actor.heading, eye)
        if actor.flat:
            pose = Pose(0.0, distance := 50.0, actor.heading, 0.6)
        sprite = render(
            solid,
            pose,
            per_metre * distance,
            self.mood,
            veil=self._veil(key[2]),
            fine=1 if actor.flat or per_metre * solid.height > 130 else 2,
        )
        self._sprites[key] = sprite
        self._sprite_bytes += _size_of(sprite)
        while self._sprite_bytes > _SPRITE_BYTES:
            self._sprite_bytes -= _size_of(self._sprites.popitem(last=False)[1])
        return sprite

    def _veil(self, level: int) -> float:
        """Give the haze of a stored sprite from its size alone, so that it can be kept."""
        return self.mood.veil(self.focal / 2.0 ** (level / 2 - 0.25))

    def _draw_near(
        self, actor: Actor, solid: Solid, x: float, z: float, camera: Camera
    ) -> Placed | None:
        """Draw what is too close for stored sprites exactly as it stands, cut to the picture."""
        height, width = self.size_hw
        edge = 0.25 * width / camera.focal
        limit = Window(
            -camera.centre / camera.focal - edge,
            -camera.horizon / camera.focal - edge,
            (width - camera.centre) / camera.focal + edge,
            (height - camera.horizon) / camera.focal + edge,
        )
        pose = Pose(x, z, actor.heading, camera.eye_height)
        sprite = render(
            solid, pose, camera.focal, self.mood, veil=self.mood.veil(z), limit=limit, fine=1
        )
        if sprite is None:
            return None
        depth = max(z, NEAR_METRES)
        column = camera.centre + camera.focal * (x / depth + camera.bend * depth)
        row = camera.horizon + camera.focal * camera.eye_height / depth
        return Placed(sprite, column + sprite.left, row + sprite.top, 1.0)


def _size_of(sprite: Sprite | None) -> int:
    return 200 if sprite is None else sum(image.nbytes for image in sprite[:3]) + 500
