"""What teacher networks see in many views of a picture, and what the views agree on.

Each looks at the whole picture, at overlapping square tiles of it and at their mirror images.
(Self-training by averaging over transformed views: "data distillation", Radosavovic et al. 2018,
arXiv:1712.04440, sec. 3.)
"""

from collections.abc import Iterator, Sequence

import numpy as np

from models.data.class_names import STREET_NAMES
from models.judging.detectors import Detector
from models.judging.found import Found

CAR_LIKE = (STREET_NAMES.index("car"), STREET_NAMES.index("bus"), STREET_NAMES.index("truck"))
TILE_OVERLAP = 0.4
EDGE_PIXELS = 4.0
LEAST_SCORE = 0.1
"""What a teacher believes less is no vote."""


def tile_origins(length: int, side: int) -> list[int]:
    """First pixels of evenly spread tiles of ``side`` that cover ``length`` with the usual
    overlap."""
    if side >= length:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - TILE_OVERLAP)))) + 1
    return [round(x) for x in np.linspace(0, length - side, count)]


def tiles(height: int, width: int, smallest_pixels: int) -> Iterator[tuple[int, int, int, int]]:
    """``x1, y1, x2, y2`` of the looks at a picture: all of it, then squares of shrinking side."""
    yield 0, 0, width, height
    side = min(height, width) if width != height else int(height / 1.6)
    while side >= smallest_pixels:
        for y in tile_origins(height, side):
            for x in tile_origins(width, side):
                yield x, y, x + side, y + side
        side = int(side / 1.7)


def inside(found: Found, tile: tuple[int, int, int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """Mask of boxes not cut by an edge of the tile that lies within the picture (boxes in tile
    pixels)."""
    x1, y1, x2, y2 = tile
    boxes, (height, width) = found.boxes, size_hw
    whole = np.ones(len(boxes), bool)
    whole &= (boxes[:, 0] > EDGE_PIXELS) | (x1 == 0)
    whole &= (boxes[:, 1] > EDGE_PIXELS) | (y1 == 0)
    whole &= (boxes[:, 2] < x2 - x1 - EDGE_PIXELS) | (x2 == width)
    whole &= (boxes[:, 3] < y2 - y1 - EDGE_PIXELS) | (y2 == height)
    return whole


def street_only(found: Found, class_names: Sequence[str]) -> Found:
    """Keep votes for the six street classes, numbered as the street model does."""
    wanted = np.array([STREET_NAMES.index(n) if n in STREET_NAMES else -1 for n in class_names])
    keep = (wanted[found.class_ids] >= 0) & (found.scores >= LEAST_SCORE)
    return Found(found.boxes[keep], found.scores[keep], wanted[found.class_ids[keep]])


def look(teacher: Detector, image: np.ndarray, smallest_tile_pixels: int) -> list[Found]:
    """What the teacher sees in every tile and its mirror image, in pixels of ``image``."""
    height, width = image.shape[:2]
    views = []
    for tile in tiles(height, width, smallest_tile_pixels):
        x1, y1, x2, y2 = tile
        crop = image[y1:y2, x1:x2]
        for mirrored in (False, True):
            seen = teacher.detect(np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop)
            found = street_only(seen, teacher.class_names)
            boxes = found.boxes.copy()
            if mirrored:
                boxes[:, [0, 2]] = (x2 - x1) - boxes[:, [2, 0]]
            found = Found(boxes, found.scores, found.class_ids)
            whole = inside(found, tile, (height, width))
            shift = np.array([x1, y1, x1, y1], np.float32)
            views.append(Found(boxes[whole] + shift, found.scores[whole], found.class_ids[whole]))
    return views


def overlap(one: np.ndarray, many: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union, and over the area of ``one``, of a box (4,) with boxes (N, 4)."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:], many[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    area, areas = (one[2:] - one[:2]).prod(), (many[:, 2:] - many[:, :2]).prod(1)
    return shared / np.maximum(area + areas - shared, 1e-6), shared / np.maximum(area, 1e-6)


def agree(*opinions: list[Found], iou_threshold: float = 0.55) -> Found:
    """One box per object: score-weighted mean of a cluster of votes.

    Car, bus and truck compete as one kind, since teachers often give a van two of these names.

    Args:
        opinions: the views of each teacher. A teacher's word counts what its two best votes are on
            average, because a single look among forty is too often a mistake; the score is the mean
            of their words, so that only what all see is sure.
    """
    views = [view for opinion in opinions for view in opinion]
    boxes = np.concatenate([v.boxes for v in views])
    scores = np.concatenate([v.scores for v in views])
    class_ids = np.concatenate([v.class_ids for v in views])
    votes_of = [sum(len(v.scores) for v in opinion) for opinion in opinions]
    teacher = np.repeat(np.arange(len(opinions)), votes_of)
    kinds = np.where(np.isin(class_ids, CAR_LIKE), CAR_LIKE[0], class_ids)
    left = list(np.argsort(-scores))
    merged = []
    while left:
        members = np.array(left)
        iou, _ = overlap(boxes[left[0]], boxes[members])
        same = (iou > iou_threshold) & (kinds[members] == kinds[left[0]])
        same[0] = True
        cluster = members[same]
        weight = scores[cluster] ** 2
        votes = np.bincount(class_ids[cluster], weight, len(STREET_NAMES))
        box = (boxes[cluster] * weight[:, None]).sum(0) / weight.sum()
        words = [word(scores[cluster][teacher[cluster] == t]) for t in range(len(opinions))]
        merged.append((box, float(np.mean(words)), votes.argmax()))
        left = [i for i, s in zip(left, same, strict=True) if not s]
    if not merged:
        return Found.none()
    return drop_parts(
        Found(
            np.stack([m[0] for m in merged]).astype(np.float32),
            np.array([m[1] for m in merged], np.float32),
            np.array([m[2] for m in merged], np.int64),
        )
    )


def word(scores: np.ndarray) -> float:
    """Mean of a teacher's two best votes (N,) for one box; a vote that is missing counts 0."""
    return float(np.sort(scores)[-2:].sum()) / 2


def drop_parts(found: Found) -> Found:
    """Drop boxes that lie mostly in a better box of the same kind: parts seen in a small tile."""
    kinds = np.where(np.isin(found.class_ids, CAR_LIKE), CAR_LIKE[0], found.class_ids)
    order = np.argsort(-found.scores)
    kept: list[int] = []
    for i in order:
        rivals = [k for k in kept if kinds[k] == kinds[i]]
        iou, part = overlap(found.boxes[i], found.boxes[rivals])
        if not ((part > 0.85) | (iou > 0.5)).any():
            kept.append(int(i))
    return Found(found.boxes[kept], found.scores[kept], found.class_ids[kept])
