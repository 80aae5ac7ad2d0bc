"""Polygons in the plane: whether they are sound, and which points lie inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Points = npt.NDArray[np.float64]
"""(N, 2) x, y."""

MOST_CORNERS = 100


def fault(corners: Sequence[Point]) -> str | None:
    """Say what keeps the corners, joined in order and back to the first, from being an area.

    Corners are counted from 1. None: it is a simple polygon.
    """
    count = len(corners)
    if not 3 <= count <= MOST_CORNERS:
        return f"expected 3 to {MOST_CORNERS} corners, found {count}"
    edges = [(corners[i], corners[(i + 1) % count]) for i in range(count)]
    for i, corner in enumerate(corners):
        if corner in corners[:i]:
            return f"corners {corners.index(corner) + 1} and {i + 1} are the same"
    for j in range(count):
        for i in range(j):
            if i + 1 == j and _turns_back(edges[i], edges[j]):
                return f"it turns back on itself at corner {j + 1}"
            if (j + 1) % count == i and _turns_back(edges[j], edges[i]):
                return f"it turns back on itself at corner {i + 1}"
            if 1 < j - i < count - 1 and _meet(edges[i], edges[j]):
                return (
                    f"the edge from corner {i + 1} to {i + 2} meets the one "
                    f"from {j + 1} to {(j + 1) % count + 1}; list the corners around the area"
                )
    return None


def contains(polygon: Points, points: Points) -> npt.NDArray[np.bool_]:
    """(N,) whether each point lies in the polygon (C, 2); on its outline counts as inside.

    By the even-odd rule: a ray to the right leaves the area through one edge more than it enters.
    """
    ax, ay = polygon.T
    bx, by = np.roll(polygon, -1, axis=0).T
    x, y = points[:, :1], points[:, 1:]
    side = (bx - ax) * (y - ay) - (by - ay) * (x - ax)  # (N, C): above 0 left of the edge a to b
    passes = (ay > y) != (by > y)
    hits = passes & ((side > 0) == (by > ay))
    between = (np.minimum(ax, bx) <= x) & (x <= np.maximum(ax, bx))
    between &= (np.minimum(ay, by) <= y) & (y <= np.maximum(ay, by))
    on_outline = (side == 0) & between
    inside: npt.NDArray[np.bool_] = (hits.sum(axis=1) % 2 == 1) | on_outline.any(axis=1)
    return inside


Edge = tuple[Point, Point]


def _side(edge: Edge, point: Point) -> float:
    """Above 0 for a point left of the edge, below 0 right of it, 0 in line with it."""
    (ax, ay), (bx, by) = edge
    return (bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax)


def _turns_back(first: Edge, second: Edge) -> bool:
    """Tell whether the second edge, which starts where the first ends, lies on top of it."""
    (ax, ay), (bx, by) = first
    cx, cy = second[1]
    return _side(first, (cx, cy)) == 0 and (bx - ax) * (cx - bx) + (by - ay) * (cy - by) < 0


def _meet(first: Edge, second: Edge) -> bool:
    """Tell whether two edges share a point."""
    a, b = (np.sign(_side(first, point)) for point in second)
    c, d = (np.sign(_side(second, point)) for point in first)
    if a == b == c == d == 0:
        return _ranges_meet(first, second, 0) and _ranges_meet(first, second, 1)
    return bool(a * b <= 0 and c * d <= 0)


def _ranges_meet(first: Edge, second: Edge, axis: int) -> bool:
    low, high = sorted(point[axis] for point in first)
    other_low, other_high = sorted(point[axis] for point in second)
    return low <= other_high and other_low <= high
