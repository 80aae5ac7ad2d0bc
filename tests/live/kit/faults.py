"""What befalls cameras, drawn by chance from a seed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.live.kit.cameras import Camera

Step = Callable[[], object]
SIZES = [(320, 180), (640, 360), (176, 144), (160, 120)]
FIRST_AT, BETWEEN, LASTS = 10.0, (4.0, 14.0), (1.0, 20.0)


class Plan:
    """Break cameras now and then, and mend them; one fault at a time for each.

    Every camera needs a server of its own.

    Attributes:
        done: What was begun: second, camera, fault, and how long it lasts.
        next_at: The second at which `go_on` has something to do.
    """

    def __init__(self, cameras: Sequence[Camera], seed: int) -> None:
        self.done: list[dict[str, Any]] = []
        self._cameras = list(cameras)
        self._chance = random.Random(seed)
        self._mending: list[tuple[float, int, Camera, Step]] = []
        self._numbers = itertools.count()
        self._begin_at = FIRST_AT

    @property
    def next_at(self) -> float:
        return min(self._begin_at, self._mending[0][0] if self._mending else self._begin_at)

    def go_on(self, now: float, may_begin: bool = True) -> None:
        """Do what is due at the second `now`."""
        while self._mending and (not may_begin or self._mending[0][0] <= now):
            heapq.heappop(self._mending)[-1]()
        if now < self._begin_at:
            return
        self._begin_at = now + self._chance.uniform(*BETWEEN)
        broken = [camera for _, _, camera, _ in self._mending]
        whole = [camera for camera in self._cameras if camera not in broken]
        if may_begin and whole:
            self._break(self._chance.choice(whole), now)

    def _break(self, camera: Camera, now: float) -> None:
        lasts = self._chance.uniform(*LASTS)
        name = self._chance.choice(sorted(FAULTS))
        steps = FAULTS[name](camera, self._chance)
        next(steps)
        entry = (now + lasts, next(self._numbers), camera, lambda: next(steps, None))
        heapq.heappush(self._mending, entry)
        what = {"second": round(now, 1), "camera": camera.path, "fault": name}
        self.done.append(what | {"lasts": round(lasts, 1)})


def killed(camera: Camera, _chance: random.Random) -> Iterator[None]:
    """Dead, then back on the same port."""
    camera.server.kill()
    yield
    camera.server.start()


def reborn(camera: Camera, chance: random.Random) -> Iterator[None]:
    """Dead, then back with another picture."""
    camera.server.kill()
    yield
    width, height = chance.choice(SIZES)
    camera.options |= {"width": width, "height": height, "codec": chance.choice(["h264", "mjpeg"])}
    camera.server.start()


def stalled(camera: Camera, _chance: random.Random) -> Iterator[None]:
    """No pictures, and then those of the present."""
    camera.stall()
    yield
    camera.resume()


def held_back(camera: Camera, _chance: random.Random) -> Iterator[None]:
    """No pictures, and then all those of the past at once."""
    camera.stall()
    yield
    camera.resume(burst=True)


def frozen(camera: Camera, _chance: random.Random) -> Iterator[None]:
    """The process stands still."""
    camera.server.freeze()
    yield
    camera.server.thaw()


def hung_up(camera: Camera, _chance: random.Random) -> Iterator[None]:
    """Connections are closed, and taken again at once."""
    camera.server.hang_up()
    yield


def garbled(camera: Camera, chance: random.Random) -> Iterator[None]:
    """Wrong bytes in the coded picture."""
    camera.harm(damage=chance.choice([1e-5, 1e-4, 1e-3]))
    yield
    camera.harm()


def lossy(camera: Camera, chance: random.Random) -> Iterator[None]:
    """Packets that never come."""
    camera.harm(loss=chance.choice([0.01, 0.1, 0.5]))
    yield
    camera.harm()


def out_of_time(camera: Camera, chance: random.Random) -> Iterator[None]:
    """Timestamps jump, and jump back."""
    seconds = chance.choice([-6 * 3600.0, -3.0, 3.0, 6 * 3600.0])
    camera.jump(seconds)
    yield
    camera.jump(-seconds)


def flooding(camera: Camera, _chance: random.Random) -> Iterator[None]:
    """Many more pictures than announced."""
    camera.rate(5 * camera.options["fps"])
    yield
    camera.rate(camera.options["fps"])


FAULTS = {
    made.__name__: made
    for made in (
        *(killed, reborn, stalled, held_back, frozen, hung_up, garbled, lossy, out_of_time),
        flooding,
    )
}
