"""Selective Search: each measure against the pixels, the grouping against looking at every pair."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")

from models.data.pictures import read_picture
from models.detection.proposers import PROPOSERS, propose
from models.detection.region_statistics import (
    Regions,
    boxes_of,
    colour_bins,
    describe,
    hsv,
    hue,
    intensity,
    lab,
    rgi,
    segment,
    texture_bins,
    touching,
)
from models.detection.selective_search import (
    FAST,
    QUALITY,
    Grouping,
    Similarity,
    ranked,
    selective_search,
)
from models.proposals import recall

C, T, S, F = Similarity.COLOUR, Similarity.TEXTURE, Similarity.SIZE, Similarity.FILL
REPOSITORY = Path(__file__).resolve().parents[2]


def blocks(seed: int = 0, size_hw: tuple[int, int] = (61, 83), count: int = 14) -> np.ndarray:
    """(H, W, 3) uint8: rectangles of plain colours and of noise, over each other."""
    rng = np.random.default_rng(seed)
    image = np.full((*size_hw, 3), 128, np.uint8)
    for number in range(count):
        y, x = rng.integers(size_hw[0] - 8), rng.integers(size_hw[1] - 8)
        part = image[y : y + rng.integers(8, 40), x : x + rng.integers(8, 40)]
        part[:] = rng.integers(0, 256, 3)
        if number % 3 == 0:
            part[:] = np.clip(part + rng.integers(-40, 40, part.shape), 0, 255)
    return image


def measured(image: np.ndarray, labels: np.ndarray) -> Regions:
    pixels = hsv(image)
    return describe(labels, colour_bins(pixels), texture_bins(pixels))


def some_labels(seed: int = 0, size_hw: tuple[int, int] = (12, 17), count: int = 9) -> np.ndarray:
    """Regions around random points: (H, W) int64, each of 0 .. count - 1 at least once."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.divmod(rng.permutation(size_hw[0] * size_hw[1])[:count], size_hw[1]), 1)
    where = np.stack(np.indices(size_hw), -1)[:, :, None]
    return np.abs(where - points).sum(-1).argmin(-1)


# Slow twins: from the pixels, one at a time


def pixels_of(labels: np.ndarray, members: set[int]) -> list[tuple[int, int]]:
    return [(y, x) for y, x in np.ndindex(labels.shape) if labels[y, x] in members]


def slow_histogram(bins: np.ndarray, pixels: list[tuple[int, int]], count: int) -> list[float]:
    """Of every map one after the other; all together sum to 1."""
    out = [0.0] * (count * len(bins))
    for number, one in enumerate(bins):
        for y, x in pixels:
            out[number * count + one[y, x]] += 1 / (len(pixels) * len(bins))
    return out


def slow_similarity(
    image: np.ndarray, labels: np.ndarray, a: set[int], b: set[int], kind: Similarity
) -> float:
    """Sum of similarities of two regions, each a set of first regions."""
    one, other = pixels_of(labels, a), pixels_of(labels, b)
    pixels, total = hsv(image), 0.0
    for measure, bins, count in ((C, colour_bins(pixels), 25), (T, texture_bins(pixels), 10)):
        if measure in kind:
            pair = (slow_histogram(bins, one, count), slow_histogram(bins, other, count))
            total += sum(min(p, q) for p, q in zip(*pair, strict=True))
    joint = len(one) + len(other)
    ys, xs = zip(*(one + other), strict=True)
    box = (max(ys) - min(ys) + 1) * (max(xs) - min(xs) + 1)
    if S in kind:
        total += 1 - joint / labels.size
    if F in kind:
        total += 1 - (box - joint) / labels.size
    return total


def slow_pairs(labels: np.ndarray) -> set[tuple[int, int]]:
    """Regions that touch, corners too."""
    pairs = set()
    height, width = labels.shape
    for y, x in np.ndindex(labels.shape):
        for v in range(max(0, y - 1), min(height, y + 2)):
            for u in range(max(0, x - 1), min(width, x + 2)):
                if labels[y, x] < labels[v, u]:
                    pairs.add((int(labels[y, x]), int(labels[v, u])))
    return pairs


def slow_grouping(image: np.ndarray, labels: np.ndarray, kind: Similarity) -> list[set[int]]:
    """The members of all regions in order of birth; looks at every pair anew each time."""
    regions = [{label} for label in range(labels.max() + 1)]
    alive, pairs = set(range(len(regions))), slow_pairs(labels)
    known: dict[tuple[int, int], float] = {}
    while len(alive) > 1:
        near = [
            (i, j)
            for i, j in combinations(sorted(alive), 2)
            if any((min(a, b), max(a, b)) in pairs for a in regions[i] for b in regions[j])
        ]
        for i, j in near:
            if (i, j) not in known:
                known[i, j] = slow_similarity(image, labels, regions[i], regions[j], kind)
        i, j = min(near, key=lambda pair: (-round(known[pair], 5), pair))
        alive -= {i, j}
        alive.add(len(regions))
        regions.append(regions[i] | regions[j])
    return regions


@pytest.mark.parametrize("kind", [C, T, S, F, C | T | S | F, T | S | F, C | S, T | F], ids=str)
def test_likeness_agrees_with_counting_pixels(kind):
    labels, image = some_labels(), blocks(1, (12, 17), 5)
    grouping = Grouping(measured(image, labels), kind)
    for a, b in combinations(range(9), 2):
        slow = slow_similarity(image, labels, {a}, {b}, kind)
        assert grouping.likeness([a], b)[0] == pytest.approx(slow, abs=2e-6)


@pytest.mark.parametrize("kind", [C | T | S | F, T | S | F, C, F, S], ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grouping_agrees_with_looking_at_every_pair(kind, seed):
    labels, image = some_labels(seed), blocks(seed, (12, 17), 6)
    boxes = Grouping(measured(image, labels), kind).run()
    members = slow_grouping(image, labels, kind)
    expected = [boxes_of(np.isin(labels, list(own)).astype(int), 2)[1].tolist() for own in members]
    assert boxes.tolist() == expected


def test_joined_regions_look_as_if_measured_anew():
    labels, image = some_labels(3), blocks(3, (12, 17), 6)
    regions = measured(image, labels)
    grouping = Grouping(regions, C | T | S | F)
    grouping.join(2, 5, 9)
    grouping.join(9, 7, 10)
    together = np.where(np.isin(labels, [2, 5, 7]), 1, 0)
    anew = measured(image, together)
    looks = np.concatenate([anew.colour[1], anew.texture[1]])
    np.testing.assert_allclose(grouping.looks[10], looks, atol=1e-6)
    assert grouping.sizes[10] == anew.sizes[1]
    assert (grouping.edges[10] * [-1, -1, 1, 1]).tolist() == anew.boxes[1].tolist()
    around = {a for pair in slow_pairs(labels) if {*pair} & {2, 5, 7} for a in pair} - {2, 5, 7}
    assert grouping.neighbours[10] == around
    assert all(grouping.neighbours[n] & {2, 5, 7, 9, 10} == {10} for n in around)


@pytest.mark.parametrize("size_hw", [(12, 17), (1, 30), (30, 1)], ids=str)
def test_neighbours_and_boxes_of_regions_are_those_of_their_pixels(size_hw):
    labels = some_labels(4, size_hw)
    assert {(a, b) for a, b in touching(labels, 9).tolist()} == slow_pairs(labels)
    for label, box in enumerate(boxes_of(labels, 9).tolist()):
        ys, xs = zip(*pixels_of(labels, {label}), strict=True)
        assert box == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_a_ramp_has_texture_only_in_the_orientations_it_rises_in():
    ramp = np.tile(np.arange(0, 200, 5, dtype=np.uint8), (40, 1))[..., None]
    bins = texture_bins(ramp)[:, 10:30, 10:30]
    # 0, 45, ... 315 degrees; the ramp rises to the right and the steepest way is straight there.
    assert bins.mean((1, 2)).tolist() == [9, 7, 0, 0, 0, 0, 0, 7]


def test_a_ramp_the_other_way_has_the_opposite_texture():
    image = blocks(5)[..., :1]
    turned = texture_bins(np.ascontiguousarray(255 - image))
    np.testing.assert_array_equal(turned, np.roll(texture_bins(image), 4, 0))


def test_derivatives_are_those_of_the_continuous_gaussian():
    # A faint disc of known slope: the strongest response is straight through its rim.
    y, x = np.indices((41, 41)) - 20
    image = (100 + 100 * np.exp(-(x**2 + y**2) / 72)).astype(np.uint8)[..., None]
    bins = texture_bins(image)
    right_rim, upper_rim = bins[:, 20, 26], bins[:, 14, 20]
    assert right_rim.argmax() == 4  # falls to the right: 180 degrees
    assert upper_rim.argmax() == 2  # rises downwards: 90 degrees


def test_colour_bins_are_25_of_equal_width():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert colour_bins(every).ravel().tolist() == [int(v / 256 * 25) for v in range(256)]


def test_shares_of_red_and_green_do_not_change_with_the_light():
    image = np.random.default_rng(0).integers(60, 120, (9, 9, 3)).astype(np.uint8)
    bright, dim = rgi(image * 2), rgi(image)
    assert np.abs(bright[..., :2].astype(int) - dim[..., :2]).max() <= 1
    assert (bright[..., 2] > dim[..., 2]).all()


@pytest.mark.parametrize("convert", [hsv, lab, rgi, hue, intensity])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 400), (400, 1), (37, 53)], ids=str)
def test_segments_are_numbered_without_gaps_and_not_tiny(convert, size_hw):
    labels = segment(convert(blocks(6, (400, 400), 60)[: size_hw[0], : size_hw[1]]), 50)
    sizes = np.bincount(labels.ravel())
    assert labels.shape == size_hw
    assert sizes.min() >= min(50, labels.size)


def test_the_modes_have_as_many_hierarchies_as_in_the_paper():
    counts = [len(m.colours) * len(m.scales) * len(m.similarities) for m in (FAST, QUALITY)]
    assert counts == [8, 80]


@pytest.mark.parametrize("name", PROPOSERS)
@pytest.mark.parametrize("size_hw", [(61, 83), (1, 300), (300, 1), (1, 1)], ids=str)
def test_boxes_lie_within_the_picture_and_come_once(name, size_hw):
    image = blocks(7, (300, 300), 40)[: size_hw[0], : size_hw[1]]
    boxes = PROPOSERS[name](image)
    height, width = size_hw
    assert boxes.dtype == np.float32
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes) > 0
    assert [0, 0, width, height] in boxes.tolist()


@pytest.mark.parametrize("name", PROPOSERS)
def test_the_same_picture_gives_the_same_boxes_and_is_not_changed(name):
    image = blocks(8)
    before = image.copy()
    np.testing.assert_array_equal(PROPOSERS[name](image), PROPOSERS[name](before))
    np.testing.assert_array_equal(image, before)


def test_another_seed_gives_the_same_boxes_in_another_order():
    one, other = (selective_search(blocks(9), seed=seed) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert sorted(one.tolist()) == sorted(other.tolist())


@pytest.mark.parametrize("mode", [FAST, QUALITY], ids=["fast", "quality"])
def test_a_picture_of_one_colour_is_one_region(mode):
    image = np.full((50, 70, 3), (10, 200, 30), np.uint8)
    assert selective_search(image, mode).tolist() == [[0, 0, 70, 50]]


@pytest.mark.parametrize("name", PROPOSERS)
@pytest.mark.parametrize("size_hw", [(0, 0), (0, 7), (7, 0)], ids=str)
def test_a_picture_without_pixels_has_no_boxes(name, size_hw):
    assert PROPOSERS[name](np.zeros((*size_hw, 3), np.uint8)).shape == (0, 4)


def test_a_block_of_two_halves_is_found_whole():
    image = np.full((90, 120, 3), 100, np.uint8)
    image[30:60, 40:60], image[30:60, 60:85] = (220, 30, 30), (235, 60, 30)
    distance = np.abs(selective_search(image) - [40, 30, 85, 60]).max(1)
    assert distance.min() <= 2


def test_the_rank_is_the_place_from_the_top_times_a_random_number():
    hierarchies = [np.arange(4 * n).reshape(n, 4) + 1000 * n for n in (5, 3)]
    numbers = np.random.default_rng(3).random(8)
    places = [5, 4, 3, 2, 1, 3, 2, 1]
    both = np.concatenate(hierarchies).tolist()
    by_rank = sorted(zip(places * numbers, both, strict=True))
    assert ranked(hierarchies, 3).tolist() == [box for _, box in by_rank]


def test_of_two_equal_boxes_the_better_rank_counts():
    numbers = np.random.default_rng(0).random(6)
    a, b, c = [0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]
    ranks = dict.fromkeys(map(tuple, (a, b, c)), np.inf)
    for box, rank in zip([a, b, c, a, b, c], [3, 2, 1, 3, 2, 1] * numbers, strict=True):
        ranks[tuple(box)] = min(ranks[tuple(box)], rank)
    expected = sorted(ranks, key=ranks.__getitem__)
    assert [tuple(x) for x in ranked([np.array([a, b, c])] * 2, 0).tolist()] == expected


def test_a_shrunk_picture_gives_boxes_of_the_whole_one():
    image = cv2.resize(blocks(2), (332, 244), interpolation=cv2.INTER_NEAREST)
    boxes = propose("selective_search_fast", image, 500, largest_side=83)
    np.testing.assert_array_equal(boxes, 4 * propose("selective_search_fast", blocks(2), 500))
    assert len(propose("grid", image, 7)) == 7


def test_a_picture_that_is_small_enough_is_not_enlarged():
    image = blocks(3)
    small = propose("selective_search_fast", image, 99, largest_side=640)
    np.testing.assert_array_equal(small, propose("selective_search_fast", image, 99))


def test_an_unknown_proposer_is_named_together_with_the_known():
    with pytest.raises(ValueError, match="'edge_boxes'; there are selective_search_fast"):
        propose("edge_boxes", blocks(), 10)


def test_proposers_need_no_torch():
    program = (
        "import sys, models.detection.proposers\n"
        "print(*{'torch', 'torchvision', 'matplotlib'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_more_objects_are_found_than_by_a_grid_of_as_many_boxes(shared_data):
    folder = shared_data / "eval_formats" / "voc100"
    truth = json.loads((folder / "gts/coco_format_v1/instances_default.json").read_text())
    names = [i["file_name"] for i in truth["images"]][::12]
    covered = {}
    for name in ("selective_search_fast", "grid"):
        boxes = {n: propose(name, read_picture(folder / "images" / n), 1000) for n in names}
        covered[name] = [
            row["mean_best_overlap"] for row in recall(truth, boxes, [100, 1000])["rows"]
        ]
    for ours, witness in zip(*covered.values(), strict=True):
        assert ours > witness + 0.05
