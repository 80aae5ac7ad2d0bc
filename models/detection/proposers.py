"""Who proposes regions to the networks that do not find their own: R-CNN, SPPnet, Fast R-CNN.

A proposer knows no class and no network, only the picture. No torch here, so that the video line
can run one as a stage of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.detection.selective_search import FAST, QUALITY, selective_search

Proposer = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 RGB -> (R, 4) float32 ``x1, y1, x2, y2`` in pixels, best first, each box once;
the same picture always gives the same boxes."""

GRID_SCALES = tuple(2.0 ** (-i / 2) for i in range(8))
"""Side of a window, as a share of the picture's (the root of its area)."""
GRID_ASPECTS = (0.5, 1.0, 2.0)
"""Height over width."""
GRID_STEP = 0.3
"""From one window to the next, as a share of its side."""


def selective_search_fast(image: np.ndarray) -> np.ndarray:
    """Some 2,000 to 3,500 boxes of 8 hierarchies; see :mod:`models.detection.selective_search`."""
    return selective_search(image, FAST)


def selective_search_quality(image: np.ndarray) -> np.ndarray:
    """Some 15,000 boxes of 80 hierarchies: about five times slower than the fast mode."""
    return selective_search(image, QUALITY)


def grid(image: np.ndarray) -> np.ndarray:
    """Windows of 8 sizes and 3 shapes everywhere, blind to the picture: what others must beat.

    Larger ones tend to come first, in the same random way as in Selective Search.
    """
    height, width = image.shape[:2]
    if image.size == 0:
        return np.zeros((0, 4), np.float32)
    found = [np.array([[0, 0, width, height]], np.float32)]
    for scale in GRID_SCALES:
        for aspect in GRID_ASPECTS:
            side = scale * (height * width) ** 0.5
            window_height = min(height, side * aspect**0.5)
            window_width = min(width, side / aspect**0.5)
            top = spread(height - window_height, GRID_STEP * window_height)
            left = spread(width - window_width, GRID_STEP * window_width)
            corner = np.stack(np.meshgrid(left, top), -1).reshape(-1, 2)
            windows = np.hstack([corner, corner + np.array([window_width, window_height])])
            found.append(windows.astype(np.float32))
    boxes = np.concatenate(found)
    _, once = np.unique(boxes, axis=0, return_index=True)
    boxes = boxes[np.sort(once)]
    ranks = np.arange(1, len(boxes) + 1) * np.random.default_rng(0).random(len(boxes))
    return boxes[np.argsort(ranks, kind="stable")]


def spread(room: float, step: float) -> np.ndarray:
    """Places from 0 to `room`, evenly, no further apart than `step`."""
    return np.linspace(0.0, room, int(np.ceil(room / step)) + 1)


PROPOSERS: dict[str, Proposer] = {
    "selective_search_fast": selective_search_fast,
    "selective_search_quality": selective_search_quality,
    "grid": grid,
}


def propose(name: str, image: np.ndarray, most: int, largest_side: int | None = None) -> np.ndarray:
    """The best `most` regions of a picture.

    Args:
        name: key of :data:`PROPOSERS`.
        image: (H, W, 3) uint8 RGB.
        most: no more boxes than this.
        largest_side: shrink a larger picture to this many pixels first, which costs small objects
            and saves time in proportion to the area.

    Returns:
        (R, 4) float32 ``x1, y1, x2, y2`` in pixels of `image`, best first, R <= `most`.

    Raises:
        ValueError: nobody of this name proposes.
    """
    if name not in PROPOSERS:
        raise ValueError(f"no proposer {name!r}; there are {', '.join(PROPOSERS)}")
    height, width = image.shape[:2]
    if largest_side is None or max(height, width) <= largest_side:
        return PROPOSERS[name](image)[:most]
    shrink = largest_side / max(height, width)
    small_wh = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    home = np.array([width, height, width, height], np.float32) / np.array(small_wh * 2, np.float32)
    return PROPOSERS[name](small)[:most] * home
