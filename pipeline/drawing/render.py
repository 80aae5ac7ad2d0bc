"""Draw what was found, straight on the planes of a copy of the decoded picture.

A box is a handful of filled rectangles, so the picture never has to become RGB and back: luma is
written at full size, chroma at half. Everything starts on even pixels, where the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.drawing.canvas import Canvas, Label, Rect
from pipeline.drawing.canvas_choice import canvas_for
from pipeline.drawing.overlay import is_tinted
from pipeline.drawing.text import rasterise
from pipeline.frame import Detections, Result, SegmentationMap
from pipeline.polygon import Point
from pipeline.settings import RenderSettings
from pipeline.yuv import stamped
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
LEGEND_SHARE = 0.005  # of the picture, from which on a class is named
ZONE = (250, 250, 250)


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
    stays: Callable[[str], bool] = lambda _source: False,
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
        stays: Tells of a source whether all that want its pictures can take one on a GPU. There
            a picture that lies on one is drawn on; any other comes to main memory for it.
    """
    for result in results:
        private = result.private if result.private is not None and len(result.private) else None
        if not settings.enabled and private is None:
            yield result
            continue
        canvas = canvas_for(result.frame, stays)
        if private is not None:
            canvas.conceal(private)
        if settings.enabled:
            lines = hud(result) if hud and settings.hud else ()
            signs = signs_of(result, zones)
            found, map_of = result.detections, result.segmentation
            draw_on(canvas, found, class_names, settings, lines, signs, map_of)
        picture, frame = canvas.picture(), result.frame
        yield result.with_annotated(stamped(picture, frame.pts, frame.time_base))


def draw_on(
    canvas: Canvas,
    detections: Detections,
    class_names: Sequence[str],
    settings: RenderSettings,
    hud_lines: Sequence[str] = (),
    signs: Sequence[Sign] = (),
    segmentation: SegmentationMap | None = None,
) -> None:
    """Draw boxes, labels and figures.

    Boxes with higher scores lie above the others, and all of them above the zones, which lie
    above masks and classes of pixels.
    """
    style = Style.of(canvas, settings)
    order = np.argsort(detections.scores, kind="stable")  # the best comes last, and on top
    if segmentation is not None:
        canvas.classes(segmentation, settings.segmentation)
    if detections.masks is not None:
        tints = {int(i): _rgb(detections.class_ids[i]) for i in order}
        canvas.masks(detections, tints, settings.segmentation)
    taken = _draw_zones(canvas, style, signs)
    if segmentation is not None and settings.segmentation.legend:
        taken += _draw_legend(canvas, style, segmentation)
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


def _draw_legend(canvas: Canvas, style: Style, segmentation: SegmentationMap) -> list[Rect]:
    """Name the classes that are there in the lower left corner; return where the names lie.

    Only those that are laid over the picture; in the order of their numbers, so that they stay in
    place while shares change.
    """
    shares, meaning = segmentation.shares, segmentation.meaning
    lines = [
        (f"{name} {shares[name]:.0%}", colour)
        for name, colour in zip(meaning.names, meaning.colours, strict=True)
        if shares.get(name, 0.0) >= LEGEND_SHARE and is_tinted(name)
    ]
    if not lines:
        return []
    width, height = (max(sides) for sides in zip(*(style.plate(t) for t, _ in lines), strict=True))
    width, edge = min(width + width % 2, canvas.width), 2 * (style.letters // 4)
    fitting = lines[: max(0, (canvas.height - edge) // height)]
    top = canvas.height - edge - height * len(fitting)
    places = [Rect(edge, y, edge + width, y + height) for y in range(top, canvas.height, height)]
    for (text, colour), place in zip(fitting, places, strict=False):
        canvas.label(Label(text, place), style.letters, canvas.colour(colour))
    return places[: len(fitting)]


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


def _even(x: float) -> int:
    """The even number at or below `x`."""
    return int(x // 2) * 2
