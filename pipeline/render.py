"""Draw what was found, straight on the planes of the decoded picture.

A box is a handful of filled rectangles, so the picture never has to become RGB and back: luma is
written at full size, chroma at half. Everything starts on even pixels, where the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import av
import numpy as np

from pipeline.blur import pixelate
from pipeline.frame import Boxes, Detections, Result
from pipeline.outline import outline
from pipeline.polygon import Point
from pipeline.settings import RenderSettings
from pipeline.text import plate, rasterise
from pipeline.yuv import Colours, own_yuv420p, planes, stamped
from pipeline.zones import Zone

# Told apart by every common kind of colour vision (after Okabe and Ito, "Color Universal
# Design", 2008), and brighter than theirs where grey road surface would swallow them.
PALETTE = (
    (255, 112, 67),  # vermilion
    (255, 225, 66),  # yellow
    (86, 190, 255),  # sky blue
    (233, 137, 197),  # pink
    (38, 209, 151),  # green
    (255, 170, 0),  # orange
    (154, 150, 255),  # violet
    (235, 235, 235),  # near white
)
INK = (18, 18, 20)
ZONE = (250, 250, 250)


class Rect(NamedTuple):
    """Whole pixels of a picture; `x2` and `y2` are the first ones outside."""

    x1: int
    y1: int
    x2: int
    y2: int

    def overlaps(self, other: Rect) -> bool:
        """Tell whether the two share a pixel."""
        return (
            self.x1 < other.x2 and other.x1 < self.x2 and self.y1 < other.y2 and other.y1 < self.y2
        )


class Label(NamedTuple):
    """A line of text on a plate, and where it goes."""

    text: str
    place: Rect


class Sign(NamedTuple):
    """A zone as it is drawn: its corners as shares of width and height, and its words."""

    corners: tuple[Point, ...]
    text: str


def render(
    results: Iterable[Result],
    class_names: Sequence[str],
    settings: RenderSettings,
    hud: Callable[[Result], Sequence[str]] | None = None,
    zones: Sequence[Zone] = (),
) -> Iterator[Result]:
    """Add to every result its picture with the detections drawn on it.

    What is private is made unreadable first, and also when nothing is drawn.

    Args:
        results: What was found, frame by frame.
        class_names: What the class ids mean.
        settings: What to draw; if drawing is not `enabled`, results without anything private
            pass through.
        hud: Gives the lines for the corner of a picture, when the settings want them.
        zones: Areas to outline, with the counts that the results carry.
    """
    for result in results:
        frame, found, private = result.frame, result.detections, result.private
        if settings.enabled:
            lines = hud(result) if hud and settings.hud else ()
            signs = signs_of(result, zones)
            picture = draw(frame.picture, found, class_names, settings, lines, signs, private)
        elif private is not None and len(private):
            picture = own_yuv420p(frame.picture)
            pixelate(planes(picture), private)
        else:
            yield result
            continue
        yield result.with_annotated(stamped(picture, frame.pts, frame.time_base))


def draw(
    picture: av.VideoFrame,
    detections: Detections,
    class_names: Sequence[str],
    settings: RenderSettings,
    hud_lines: Sequence[str] = (),
    signs: Sequence[Sign] = (),
    private: Boxes | None = None,
) -> av.VideoFrame:
    """Return a copy of `picture` (yuv420p, even size) with boxes, labels and figures on it.

    Boxes with higher scores lie above the others, and all of them above the zones. What lies in
    `private` boxes is not to be recognised. `picture` itself is not written to.
    """
    copy = own_yuv420p(picture)
    if private is not None:
        pixelate(planes(copy), private)
    canvas = Canvas(copy)
    style = Style.of(canvas, settings)
    taken = _draw_zones(canvas, style, signs)
    order = np.argsort(detections.scores, kind="stable")  # the best comes last, and on top
    outlines = ((int(i), style.outline(detections.boxes[i])) for i in order)
    boxes = {i: box for i, box in outlines if box is not None}
    labels = _labels(detections, boxes, class_names, style, settings, taken)
    colours = {i: canvas.colour(_rgb(detections.class_ids[i])) for i in boxes}
    for i, box in boxes.items():
        canvas.frame(box, style.line, colours[i])
    for i, label in labels.items():
        canvas.label(label, style.letters, colours[i])
    if hud_lines:
        canvas.hud(hud_lines, style.letters)
    return copy


def signs_of(result: Result, zones: Sequence[Zone]) -> list[Sign]:
    """What is drawn of the zones that lie in this picture."""
    counts = result.zones or {}
    here = (zone for zone in zones if zone.watches(result.frame.source))
    return [Sign(zone.corners, words(zone.name, counts.get(zone.name, {}))) for zone in here]


def words(name: str, counts: Mapping[str, int]) -> str:
    """What is written on a zone, such as "crossing: 2 person, 1 bicycle" or "crossing: 0"."""
    present = (f"{count} {label}" for label, count in counts.items() if count)
    return f"{name}: {', '.join(present) or 0}"


class Style:
    """Sizes that fit a picture, and where things go in it.

    Attributes:
        line: Width of outlines in pixels.
        letters: Size of letters in pixels.
    """

    def __init__(self, width: int, height: int, line: int, letters: int) -> None:
        self.width, self.height = width, height
        self.line, self.letters = line, letters

    @classmethod
    def of(cls, canvas: Canvas, settings: RenderSettings) -> Style:
        """Readable when the picture fills a screen, whether it has 360 lines or 2160."""
        side = min(canvas.width, canvas.height)
        line = settings.line_width or 2 * max(1, round(side / 640))
        return cls(canvas.width, canvas.height, line, max(11, round(4 + side / 60)))

    def outline(self, box: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Rect | None:
        """The outer edge of a box's outline, which runs around the object; None outside."""
        x1, y1, x2, y2 = box.tolist()
        x1, x2, y1, y2 = max(x1, 0), min(x2, self.width), max(y1, 0), min(y2, self.height)
        if not (x1 < x2 and y1 < y2):  # outside, empty, or not a number
            return None
        return Rect(
            max(0, _even(x1) - self.line),
            max(0, _even(y1) - self.line),
            min(self.width, _even(x2 + 1.99) + self.line),
            min(self.height, _even(y2 + 1.99) + self.line),
        )

    def plate(self, text: str) -> tuple[int, int]:
        """Width and height of a label that says so, in this picture."""
        height, width = rasterise(text, self.letters).shape
        return min(self.width, width), min(self.height, height)

    def place(self, box: Rect, size: tuple[int, int], taken: Sequence[Rect]) -> Rect:
        """Where a label of that width and height covers no other: over, in or under its box."""
        width, height = size
        x = max(0, min(box.x1, self.width - width))
        candidates = [
            Rect(x, y, x + width, y + height)
            for y in (box.y1 - height, box.y1, box.y2, box.y2 - height)
            if 0 <= y <= self.height - height
        ]
        if not candidates:
            y = max(0, min(box.y1, self.height - height))
            return Rect(x, y, x + width, y + height)
        free = (c for c in candidates if not any(c.overlaps(t) for t in taken))
        return next(free, candidates[0])


class Canvas:
    """A picture of our own, to draw on.

    Args:
        picture: yuv420p of even size.
    """

    def __init__(self, picture: av.VideoFrame) -> None:
        self._planes = planes(picture)
        self._colours = Colours.of(picture)
        self.width, self.height = picture.width, picture.height

    def colour(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        """The colour as Y, U, V of this picture."""
        return _yuv(self._colours, rgb)

    def fill(self, area: Rect, colour: tuple[int, int, int]) -> None:
        """Fill the rectangle; an edge on an odd pixel colours its whole neighbour."""
        x1, y1, x2, y2 = area
        luma, u, v = self._planes
        luma[y1:y2, x1:x2] = colour[0]
        half = slice(y1 // 2, (y2 + 1) // 2), slice(x1 // 2, (x2 + 1) // 2)
        u[half] = colour[1]
        v[half] = colour[2]

    def frame(self, box: Rect, line: int, colour: tuple[int, int, int]) -> None:
        """Outline a box, with a soft dark edge on both sides that parts it from any ground."""
        x1, y1, x2, y2 = box
        across, down = min(line, x2 - x1), min(line, y2 - y1)
        self._shade_around(box)
        self._shade_around(Rect(x1 + across + 1, y1 + down + 1, x2 - across - 1, y2 - down - 1))
        self.fill(Rect(x1, y1, x2, y1 + down), colour)
        self.fill(Rect(x1, y2 - down, x2, y2), colour)
        self.fill(Rect(x1, y1, x1 + across, y2), colour)
        self.fill(Rect(x2 - across, y1, x2, y2), colour)

    def polygon(self, corners: tuple[Point, ...], line: int, colour: tuple[int, int, int]) -> None:
        """Outline an area whose corners are shares of width and height, with soft dark edges."""
        pixels, (luma, u, v) = outline(corners, (self.height, self.width), line), self._planes
        luma[pixels.halo] >>= 1
        ground = luma[pixels.line] * (255 - pixels.cover)
        luma[pixels.line] = (ground + colour[0] * pixels.cover + 127) // 255
        u[pixels.chroma], v[pixels.chroma] = colour[1], colour[2]

    def label(self, label: Label, letters: int, colour: tuple[int, int, int]) -> None:
        """Put dark letters on a plate in the colour of the box."""
        x1, y1, x2, y2 = label.place
        self.fill(label.place, colour)
        text = plate(label.text, letters, colour[0], self.colour(INK)[0])
        self._planes[0][y1:y2, x1:x2] = text[: y2 - y1, : x2 - x1]

    def hud(self, lines: Sequence[str], letters: int) -> None:
        """Put light letters in the top left corner, on a ground that lets the picture through."""
        masks = [rasterise(line, letters) for line in lines]
        edge = 2 * (letters // 4)
        bottom = min(self.height, edge + sum(mask.shape[0] for mask in masks))
        right = min(self.width, edge + max(mask.shape[1] for mask in masks))
        self._dim(Rect(min(edge, right), min(edge, bottom), right, bottom))
        white, y = self.colour((250, 250, 250))[0], edge
        for mask in masks:
            part = self._planes[0][y : y + mask.shape[0], edge : edge + mask.shape[1]]
            cover = mask[: part.shape[0], : part.shape[1]].astype(np.uint16)
            part[:] = (part * (255 - cover) + white * cover + 127) // 255
            y += mask.shape[0]

    def _dim(self, area: Rect) -> None:
        """Leave a quarter of the light and the colour of a rectangle on even pixels."""
        x1, y1, x2, y2 = area
        luma, u, v = self._planes
        half = slice(y1 // 2, y2 // 2), slice(x1 // 2, x2 // 2)
        parts = luma[y1:y2, x1:x2], u[half], v[half]
        for part, black in zip(parts, self._colours.black, strict=True):
            np.right_shift(part, 2, out=part)
            part += black * 3 // 4

    def _shade_around(self, box: Rect) -> None:
        """Halve the light of the pixels just outside a rectangle."""
        x1, y1 = max(0, box.x1 - 1), max(0, box.y1 - 1)
        x2, y2 = min(self.width, box.x2 + 1), min(self.height, box.y2 + 1)
        if x1 + 2 > x2 or y1 + 2 > y2:
            return
        luma = self._planes[0]
        for edge in (luma[y1, x1:x2], luma[y2 - 1, x1:x2], luma[y1:y2, x1], luma[y1:y2, x2 - 1]):
            np.right_shift(edge, 1, out=edge)


def _draw_zones(canvas: Canvas, style: Style, signs: Sequence[Sign]) -> list[Rect]:
    """Draw outlines, then names and counts at the highest corners; return where those lie."""
    colour = canvas.colour(ZONE)
    for sign in signs:
        canvas.polygon(sign.corners, style.line, colour)
    taken: list[Rect] = []
    for sign in signs:
        x, y = min(sign.corners, key=lambda corner: (corner[1], corner[0]))
        left, top = _even(x * canvas.width), _even(y * canvas.height)
        bottom = _even(max(y for _, y in sign.corners) * canvas.height)
        place = style.place(Rect(left, top, left, bottom), style.plate(sign.text), taken)
        canvas.label(Label(sign.text, place), style.letters, colour)
        taken.append(place)
    return taken


def _labels(
    detections: Detections,
    boxes: dict[int, Rect],
    class_names: Sequence[str],
    style: Style,
    settings: RenderSettings,
    occupied: Sequence[Rect],
) -> dict[int, Label]:
    """The label of each box by its number; the last boxes, the best, choose places first."""
    if not (settings.labels or settings.scores):
        return {}
    labels: dict[int, Label] = {}
    taken = [*occupied]
    for i, box in reversed(boxes.items()):
        name = class_names[int(detections.class_ids[i])] if settings.labels else ""
        score = f"{detections.scores[i]:.2f}" if settings.scores else ""
        text = f"{name} {score}".strip()
        place = style.place(box, style.plate(text), taken)
        taken.append(place)
        labels[i] = Label(text, place)
    return dict(reversed(labels.items()))


def _rgb(class_id: int) -> tuple[int, int, int]:
    return PALETTE[int(class_id) % len(PALETTE)]


@lru_cache(maxsize=256)
def _yuv(colours: Colours, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    return colours.yuv(rgb)


def _even(x: float) -> int:
    """The even number at or below `x`."""
    return int(x // 2) * 2
