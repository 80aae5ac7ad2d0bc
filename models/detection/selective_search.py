"""Selective Search for object recognition (Uijlings, van de Sande, Gevers, Smeulders, IJCV 2013).

Changed since the sliding window (OverFeat): a picture is cut into small regions of one look, and
the two neighbours most alike are joined until one region is left; every region on the way offers
its box (sec. 3.1). Objects of all sizes come out of one hierarchy, and several hierarchies that
judge likeness differently (sec. 3.2) find what one of them misses. Some thousands of boxes, of no
class, are left to look at instead of 100,000.

Where we deviate, and why:

* The first regions are scikit-image's Felzenszwalb and Huttenlocher with ``min_size = k`` and
  sigma 0.8, as in the authors' demonstration; the paper gives k only.
* Texture bins go from 0 to the strongest response in the picture, channel by channel: the paper
  gives their number (10) and no range. Responses of opposite sign count as opposite orientations.
* Colour spaces have 8 bits a channel, enough for 25 bins.
* Random ranks (sec. 3.3) come from a fixed seed: the same picture always gives the same boxes.

No torch here: the video line runs this in a process that has none.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto

import numpy as np

from models.detection.region_statistics import (
    Regions,
    colour_bins,
    describe,
    hsv,
    hue,
    intensity,
    lab,
    rgi,
    segment,
    texture_bins,
)


class Similarity(Flag):
    """What makes two regions alike; several together are summed (sec. 3.2, weights 0 or 1)."""

    COLOUR = auto()
    TEXTURE = auto()
    SIZE = auto()
    """Small regions first, so that no large one swallows its surroundings bit by bit."""
    FILL = auto()
    """Regions whose common box they fill: no gaps between them."""


C, T, S, F = Similarity.COLOUR, Similarity.TEXTURE, Similarity.SIZE, Similarity.FILL


@dataclass(frozen=True)
class Diversity:
    """Which hierarchies to build: every combination of colour space, scale and likeness."""

    colours: tuple[Callable[[np.ndarray], np.ndarray], ...]
    scales: tuple[int, ...]
    """Felzenszwalb's k: the larger, the larger the first regions."""
    similarities: tuple[Similarity, ...]


FAST = Diversity((hsv, lab), (50, 100), (C | T | S | F, T | S | F))
"""8 hierarchies; the paper counts about 2,100 boxes a picture of VOC 2007."""
QUALITY = Diversity(
    (hsv, lab, rgi, hue, intensity), (50, 100, 150, 300), (C | T | S | F, T | S | F, F, S)
)
"""80 hierarchies; the paper counts 10,097 boxes a picture, for 99 % of the objects."""


class Grouping:
    """A hierarchy in the making: regions 0 .. R - 1 are the first, R .. 2R - 2 those joined.

    Everything is kept for joined regions as for the first ones; what a joined region looks like
    follows from its two parts, without the pixels.
    """

    def __init__(self, regions: Regions, similarity: Similarity) -> None:
        self.similarity, self.area = similarity, regions.area
        count = len(regions.sizes)
        looks = [
            look for kind, look in ((C, regions.colour), (T, regions.texture)) if kind in similarity
        ]
        self.looks = np.zeros((2 * count - 1, sum(x.shape[1] for x in looks)), np.float32)
        if looks:
            self.looks[:count] = np.concatenate(looks, 1)
        self.sizes = np.zeros(2 * count - 1, np.float32)
        self.sizes[:count] = regions.sizes
        # Left and upper edges negated: the box around two boxes is then one maximum.
        self.edges = np.zeros((2 * count - 1, 4), np.float32)
        self.edges[:count] = regions.boxes * np.array([-1, -1, 1, 1])
        self.pairs = regions.neighbours
        self.neighbours: list[set[int]] = [set() for _ in range(count)]
        for a, b in regions.neighbours.tolist():
            self.neighbours[a].add(b)
            self.neighbours[b].add(a)

    def likeness(self, a: np.ndarray | list[int], b: np.ndarray | int) -> np.ndarray:
        """Sum of the similarities of regions `a` with regions `b`: (P,) float32.

        Colour and texture are histogram intersections. Size is 1 less the share of the picture that
        both fill, fill is 1 less the share that they leave open in their common box: where both
        count, the regions' own sizes cancel.
        """
        size, fill = S in self.similarity, F in self.similarity
        total = np.full(len(a), size + fill, np.float32)
        if fill:
            around = np.maximum(self.edges[a], self.edges[b])
            box = (around[:, 0] + around[:, 2]) * (around[:, 1] + around[:, 3])
            total -= box * np.float32(1 / self.area)
        if size != fill:
            joint = (self.sizes[a] + self.sizes[b]) * np.float32(1 / self.area)
            total += joint if fill else -joint
        if self.looks.shape[1]:
            total += np.minimum(self.looks[a], self.looks[b]).sum(1)
        return total

    def join(self, a: int, b: int, joined: int) -> list[int]:
        """Make region `joined` out of two; returns its neighbours."""
        sizes, looks = self.sizes, self.looks
        sizes[joined] = size = sizes[a] + sizes[b]
        np.maximum(self.edges[a], self.edges[b], out=self.edges[joined])
        if looks.shape[1]:
            looks[joined] = looks[a] * (sizes[a] / size) + looks[b] * (sizes[b] / size)
        around = self.neighbours[a] | self.neighbours[b]
        around -= {a, b}
        for other in around:
            beside = self.neighbours[other]
            beside.discard(a)
            beside.discard(b)
            beside.add(joined)
        self.neighbours.append(around)
        self.neighbours[a] = self.neighbours[b] = set()
        return list(around)

    def run(self) -> np.ndarray:
        """Join the two most alike until one is left (algorithm 1).

        Of pairs equally alike, the one with the lowest indices goes first.

        Returns:
            (2R - 1, 4) int64 boxes in order of birth: the first regions, then the joined.
        """
        first, second = self.pairs.T
        likeness = -self.likeness(first, second)
        queue = list(zip(likeness.tolist(), first.tolist(), second.tolist(), strict=True))
        heapq.heapify(queue)
        gone = bytearray(len(self.sizes))
        while queue:
            _, a, b = heapq.heappop(queue)
            if gone[a] or gone[b]:
                continue
            gone[a] = gone[b] = 1
            joined = len(self.neighbours)
            around = self.join(a, b, joined)
            if around:
                likeness = -self.likeness(around, joined)
                for value, other in zip(likeness.tolist(), around, strict=True):
                    heapq.heappush(queue, (value, other, joined))
        return (self.edges * np.array([-1, -1, 1, 1])).astype(np.int64)


def ranked(hierarchies: list[np.ndarray], seed: int) -> np.ndarray:
    """All boxes, each once, in the paper's order (sec. 3.3).

    A region's rank is its place from the top of its hierarchy (1: the whole picture) times a random
    number in 0 .. 1, so that large regions tend to come first, but not all of them.

    hierarchies: of each (N, 4) int64 in order of birth -> (R, 4) int64, best first.
    """
    boxes = np.concatenate(hierarchies)
    places = np.concatenate([np.arange(len(h), 0, -1) for h in hierarchies])
    order = np.argsort(places * np.random.default_rng(seed).random(len(places)), kind="stable")
    keys = boxes[order] @ (1 << np.array([0, 16, 32, 48]))
    _, best = np.unique(keys, return_index=True)
    return boxes[order[np.sort(best)]]


def selective_search(image: np.ndarray, diversity: Diversity = FAST, seed: int = 0) -> np.ndarray:
    """Boxes that may hold an object.

    image: (H, W, 3) uint8 RGB -> (R, 4) float32 ``x1, y1, x2, y2`` in pixels, best first. A picture
    of one colour gives the whole picture, one without pixels nothing.
    """
    if image.size == 0:
        return np.zeros((0, 4), np.float32)
    hierarchies = []
    for convert in diversity.colours:
        pixels = np.ascontiguousarray(convert(image))
        colours, textures = colour_bins(pixels), texture_bins(pixels)
        for k in diversity.scales:
            regions = describe(segment(pixels, k), colours, textures)
            hierarchies += [Grouping(regions, s).run() for s in diversity.similarities]
    return ranked(hierarchies, seed).astype(np.float32)
