"""Turn labelled pictures of any size into varied training canvases of one size.

A canvas is cut into one, two or four cells; every cell is filled by a random crop of a picture,
enlarged or reduced, perhaps mirrored and stretched; then light, colour and camera faults are
applied to the whole. Cells exist because square pictures would waste half of a wide canvas, and
because four small pictures show four times as many objects for the price of one (the "mosaic" of
YOLOv4, arXiv:2004.10934, sec. 3.4).
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.random import Generator

SMALLEST_PIXELS = 5.0
"""Boxes with a shorter side than this on the canvas are ignored: too little is left to learn
from."""
LEAST_VISIBLE = 0.35
"""Boxes of which a crop leaves less than this share are ignored."""


@dataclass(frozen=True)
class Labelled:
    """A picture and what is in it."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    boxes: np.ndarray
    """(G, 4) float32 ``x1, y1, x2, y2`` in pixels of ``image``."""
    class_ids: np.ndarray
    """(G,) int64."""
    ignored: np.ndarray
    """(I, 4) float32 regions in which nothing is known."""
    regions: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(R, 4) float32 proposals, which move with the picture."""
    masks: np.ndarray | None = None
    """(G, H, W) uint8, 1 where the object is; None where only boxes are known."""


def blank(height: int, width: int, value: int = 114) -> Labelled:
    """A grey picture with nothing in it."""
    none = np.zeros((0, 4), np.float32)
    return Labelled(
        np.full((height, width, 3), value, np.uint8), none, np.zeros(0, np.int64), none.copy()
    )


def clip(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) cut at the edges of a picture."""
    height, width = size_hw
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def place(
    item: Labelled,
    canvas_hw: tuple[int, int],
    scale_xy: np.ndarray,
    shift_xy: np.ndarray,
    grey: int,
) -> Labelled:
    """Map ``item`` by ``xy * scale + shift`` onto a grey canvas; boxes cut too much become
    ignored."""
    height, width = canvas_hw
    # An area average when shrinking, as the decoder's own scaler does at run time; warpAffine would
    # alias.
    sized = resize(item.image, scale_xy)
    image = np.full((height, width, 3), grey, np.uint8)
    x, y = round(float(shift_xy[0])), round(float(shift_xy[1]))
    paste(sized, image, x, y)
    # The picture has whole pixels, so it was scaled by a little more or less than asked.
    scaled_xy = np.array(sized.shape[1::-1]) / item.image.shape[1::-1]
    factor = np.tile(scaled_xy, 2).astype(np.float32)
    offset = np.array([x, y, x, y], np.float32)
    whole = item.boxes * factor + offset
    seen = clip(whole, canvas_hw)
    visible = area(seen) / np.maximum(area(whole), 1e-6)
    sides = np.minimum(seen[:, 2] - seen[:, 0], seen[:, 3] - seen[:, 1])
    good = (visible >= LEAST_VISIBLE) & (sides >= SMALLEST_PIXELS)
    remains = ~good & (area(seen) > 0)
    ignored = clip(item.ignored * factor + offset, canvas_hw)
    ignored = np.concatenate([ignored[area(ignored) > 0], seen[remains]])
    regions = clip(item.regions * factor + offset, canvas_hw)
    regions = regions[(regions[:, 2:] - regions[:, :2]).min(1, initial=np.inf) >= 1.0]
    masks = None
    if item.masks is not None:
        masks = np.zeros((int(good.sum()), height, width), np.uint8)
        for own, mask in zip(masks, item.masks[good], strict=True):
            paste((resize(mask * 255, scale_xy) > 127).astype(np.uint8), own, x, y)
    return Labelled(image, seen[good], item.class_ids[good], ignored, regions, masks)


def paste(part: np.ndarray, canvas: np.ndarray, x: int, y: int) -> None:
    """Put ``part`` with its corner at (x, y) into ``canvas``; what sticks out is lost."""
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + part.shape[1], canvas.shape[1]), min(y + part.shape[0], canvas.shape[0])
    if right > left and bottom > top:
        canvas[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]


def resize(image: np.ndarray, scale_xy: np.ndarray) -> np.ndarray:
    """Resize by factors in x and y."""
    height, width = image.shape[:2]
    size = max(round(width * float(scale_xy[0])), 1), max(round(height * float(scale_xy[1])), 1)
    shrinks = size[0] < width and size[1] < height
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def letterbox(item: Labelled, canvas_hw: tuple[int, int], grey: int = 114) -> Labelled:
    """Fit the whole picture, centred, shape kept."""
    height, width = item.image.shape[:2]
    scale = min(canvas_hw[0] / height, canvas_hw[1] / width)
    shift = (np.array(canvas_hw[::-1]) - scale * np.array([width, height])) / 2
    return place(item, canvas_hw, np.array([scale, scale]), shift, grey)


def mirror(item: Labelled) -> Labelled:
    """Left and right exchanged."""
    width = item.image.shape[1]

    def flip(boxes: np.ndarray) -> np.ndarray:
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)

    return replace(
        item,
        image=np.ascontiguousarray(item.image[:, ::-1]),
        boxes=flip(item.boxes),
        ignored=flip(item.ignored),
        regions=flip(item.regions),
        masks=None if item.masks is None else np.ascontiguousarray(item.masks[:, :, ::-1]),
    )


def random_view(item: Labelled, cell_hw: tuple[int, int], rng: Generator) -> Labelled:
    """A random crop or shrunken whole of ``item`` in a cell; the middle of the crop likes
    objects."""
    height, width = item.image.shape[:2]
    fit = min(cell_hw[0] / height, cell_hw[1] / width)
    fill = max(cell_hw[0] / height, cell_hw[1] / width)
    # From a little smaller than the whole to about 2.2 times nearer than filling the cell.
    kind = rng.random()
    if kind < 0.15:
        scale = fit * rng.uniform(0.6, 1.0)
    elif kind < 0.55:
        scale = fit * (fill / fit) ** rng.random()
    else:
        scale = fill * np.exp(rng.uniform(0, np.log(2.2)))
    stretch = np.exp(rng.uniform(-0.2, 0.2))
    scale_xy = scale * np.array([stretch**0.5, stretch**-0.5])
    size = scale_xy * np.array([width, height])
    room = np.array(cell_hw[::-1]) - size
    shift = rng.random(2) * room
    if len(item.boxes) and rng.random() < 0.7:
        box = item.boxes[rng.integers(len(item.boxes))]
        centre = (box[:2] + box[2:]) / 2 * scale_xy
        aim = rng.uniform(0.2, 0.8, 2) * np.array(cell_hw[::-1]) - centre
        shift = np.clip(aim, np.minimum(room, 0), np.maximum(room, 0))
    grey = (114, 114, 0, int(rng.integers(256)))[rng.integers(4)]
    placed = place(item, cell_hw, scale_xy, shift, grey)
    return mirror(placed) if rng.random() < 0.5 else placed


def cells(
    canvas_hw: tuple[int, int], count: int, rng: Generator
) -> list[tuple[int, int, int, int]]:
    """Cut a canvas into 1, 2 (side by side) or 4 cells ``x1, y1, x2, y2`` at a random place."""
    height, width = canvas_hw
    if count == 1:
        return [(0, 0, width, height)]
    x = int(width * rng.uniform(0.4, 0.6))
    if count == 2:
        return [(0, 0, x, height), (x, 0, width, height)]
    y = int(height * rng.uniform(0.4, 0.6))
    return [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]


def collage(items: list[Labelled], canvas_hw: tuple[int, int], rng: Generator) -> Labelled:
    """Put 1, 2 or 4 pictures on one canvas, which has masks if all of them do."""
    canvas = blank(*canvas_hw)
    parts, masks = [], list[np.ndarray]()
    for item, (x1, y1, x2, y2) in zip(items, cells(canvas_hw, len(items), rng), strict=True):
        view = random_view(item, (y2 - y1, x2 - x1), rng)
        canvas.image[y1:y2, x1:x2] = view.image
        offset = np.array([x1, y1, x1, y1], np.float32)
        moved = {n: getattr(view, n) + offset for n in ("boxes", "ignored", "regions")}
        parts.append(replace(view, **moved))
        if view.masks is not None:
            masks.append(np.zeros((len(view.masks), *canvas_hw), np.uint8))
            masks[-1][:, y1:y2, x1:x2] = view.masks
    return Labelled(
        canvas.image,
        np.concatenate([p.boxes for p in parts]).astype(np.float32),
        np.concatenate([p.class_ids for p in parts]),
        np.concatenate([p.ignored for p in parts]).astype(np.float32),
        np.concatenate([p.regions for p in parts]).astype(np.float32),
        np.concatenate(masks) if len(masks) == len(parts) else None,
    )


def vary_light(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Brightness, contrast, gamma (down to night) and colour cast, through one table per
    channel."""
    levels = np.arange(256) / 255
    gamma = np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.08:
        gamma = rng.uniform(1.8, 3.0)  # night
    contrast, brightness = np.exp(rng.normal(0, 0.18)), rng.normal(0, 0.08)
    cast = np.exp(rng.normal(0, 0.05, 3))
    curve = (levels**gamma - 0.5) * contrast + 0.5 + brightness
    table = np.clip(255 * curve[:, None] * cast, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def vary_colour(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Hue turn and saturation; sometimes grey."""
    if rng.random() < 0.06:
        return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    hue = ((levels + rng.normal(0, 6)) % 180).astype(np.uint8)
    saturation = np.clip(levels * np.exp(rng.normal(0, 0.3)), 0, 255).astype(np.uint8)
    table = np.stack([hue, saturation, levels.astype(np.uint8)], 1)
    return cv2.cvtColor(cv2.LUT(hsv, table[None]), cv2.COLOR_HSV2RGB)


def spoil(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Faults of cheap cameras: low resolution, blur, noise, coarse JPEG."""
    height, width = image.shape[:2]
    if rng.random() < 0.15:
        factor = rng.uniform(0.4, 0.9)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.1:
        length = int(rng.integers(2, 6))
        shape = (length, 1) if rng.random() < 0.7 else (1, length)
        image = cv2.blur(image, shape)
    if rng.random() < 0.2:
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(2, 12)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        decoded = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_UNCHANGED)
        assert decoded is not None  # just encoded
        image = decoded
    return image


def vary_image(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Light, colour and camera faults of an (H, W, 3) uint8 RGB picture; nothing moves."""
    if rng.random() < 0.8:
        image = vary_light(image, rng)
    if rng.random() < 0.6:
        image = vary_colour(image, rng)
    return spoil(image, rng)


def vary(item: Labelled, rng: Generator) -> Labelled:
    """Light, colour and camera faults; boxes stay."""
    return replace(item, image=vary_image(item.image, rng))
