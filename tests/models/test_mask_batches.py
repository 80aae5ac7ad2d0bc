"""Crops with masks: labels stay on what they label, whatever is done to the picture."""

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
import torch

from models.data.mask_batches import MaskBatches, View, a_pixel_of, bend, crop_points, cut, look_up
from models.data.masks import MaskSet
from models.network import IGNORED

PLAIN = View(colour=False)
COLOURS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)


def landscape(seed: int, size_hw: tuple[int, int] = (120, 160)) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of three classes, each in its own colour: the picture tells what its labels must be."""
    rng = np.random.default_rng(seed)
    noise = rng.random((3, *size_hw), np.float32)
    labels = np.stack([cv2.GaussianBlur(n, (0, 0), 12) for n in noise]).argmax(0).astype(np.uint8)
    return COLOURS[labels], labels


@dataclass(frozen=True)
class Drawn:
    """An entry without files."""

    image: np.ndarray
    labels: np.ndarray
    mask: "Drawn" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _Labels(self.labels))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        return self.image, self.labels


@dataclass(frozen=True)
class _Labels:
    labels: np.ndarray

    def read(self) -> np.ndarray:
        return self.labels


def share_of_wrong_pixels(image: np.ndarray, labels: np.ndarray) -> float:
    """Of the labelled pixels away from edges: how many have not the colour of their class."""
    edges = cv2.dilate(cv2.Canny(labels, 0, 0), np.ones((5, 5), np.uint8)) > 0
    inside = (labels != IGNORED) & ~edges
    nearest = np.abs(image[:, :, None].astype(int) - COLOURS).sum(3).argmin(2)
    assert inside.any()
    return float((nearest != labels)[inside].mean())


@pytest.mark.parametrize("elastic_pixels", [0.0, 10.0])
@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.7])
@pytest.mark.parametrize("seed", range(4))
def test_labels_stay_on_what_they_label_through_scale_crop_mirror_and_bending(
    seed, scale, elastic_pixels
):
    view = View(elastic_pixels=elastic_pixels, colour=False)
    rng = np.random.default_rng(seed)
    image, labels = cut(*landscape(seed), (90, 110), scale, view, rng)
    assert image.shape == (90, 110, 3) and labels.shape == (90, 110)
    assert image.dtype == labels.dtype == np.uint8
    assert share_of_wrong_pixels(image, labels) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_a_landmark_and_its_label_are_bent_to_the_same_place(seed):
    """A bright dot on black, and its label: both must arrive where the shifts say."""
    image, labels = np.zeros((100, 140, 3), np.uint8), np.zeros((100, 140), np.uint8)
    image[48:53, 68:73], labels[48:53, 68:73] = 255, 1
    rng = np.random.default_rng(seed)
    points = crop_points((100, 140), (100, 140), 1.0, rng)
    shift = bend((100, 140), 8.0, rng)
    seen, known = look_up(image, labels, points + shift, 1.0)

    def middle(weights: np.ndarray) -> np.ndarray:
        y, x = np.indices(weights.shape)
        return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()

    of_dot, of_label = (
        middle((seen[..., 0] > 127).astype(float)),
        middle((known == 1).astype(float)),
    )
    assert np.abs(of_dot - of_label).max() < 0.5
    # The place that shows the dot is the one whose shift leads to the dot.
    x, y = np.round(of_dot).astype(int)
    assert np.abs(np.array([x, y]) + shift[y, x] - [70, 50]).max() < 1.5
    assert np.abs(of_dot - [70, 50]).max() > 0.5  # and it did move


def test_bending_is_smooth_and_as_strong_as_asked_for():
    shifts = np.stack([bend((96, 128), 10.0, np.random.default_rng(i)) for i in range(200)])
    assert shifts.shape == (200, 96, 128, 2) and shifts.dtype == np.float32
    assert 6 < shifts.std() < 11  # between the grid's points the cubic averages
    assert np.abs(np.diff(shifts, axis=2)).max() < 2.5


def test_without_scale_mirror_and_bending_a_crop_is_a_window():
    image, labels = landscape(3)
    view = View(mirror=False, colour=False)
    points = crop_points((120, 160), (120, 160), 1.0, np.random.default_rng(0))
    seen, known = look_up(image, labels, points, 1.0)
    assert np.array_equal(seen, image) and np.array_equal(known, labels)
    around = np.array([150.5, 100.5])
    seen, known = cut(
        image, labels, (40, 50), 1.0, view, np.random.default_rng(1), around_xy=around
    )
    assert share_of_wrong_pixels(seen, known) == 0.0


def test_what_lies_outside_the_picture_is_grey_and_unknown():
    image, labels = landscape(1, (40, 50))
    view = View(mirror=False, colour=False)
    seen, known = cut(image, labels, (80, 90), 1.0, view, np.random.default_rng(0))
    assert (known != IGNORED).sum() == 40 * 50
    assert (seen[known == IGNORED] == 114).mean() > 0.95  # but for the blended edge


def batches(balance: float = 0.0, seed: int = 5) -> MaskBatches:
    """Of four pictures; only the last has class 2, in 3 by 3 pixels."""
    entries = []
    for i in range(4):
        labels = (landscape(i)[1] > 0).astype(np.uint8)
        if i == 3:
            labels[100:103, 140:143] = 2
        entries.append(Drawn(COLOURS[labels], labels))
    masks = MaskSet(entries, ("a", "b", "rare"))
    return MaskBatches([masks], [(32, 40), (48, 32)], 2, 40, seed, PLAIN, balance)


def test_a_batch_depends_on_its_number_alone():
    one, other = batches(0.5), batches(0.5)
    assert len(one) == 40
    for step in (7, 0, 7):
        assert torch.equal(one[step].frames, other[step].frames)
        assert torch.equal(one[step].labels, other[step].labels)
    assert not torch.equal(one[1].frames[0, :8, :8], batches(0.5, seed=6)[1].frames[0, :8, :8])
    assert {tuple(one[i].labels.shape[1:]) for i in range(12)} == {(32, 40), (48, 32)}


def test_balanced_crops_hold_the_rare_class_far_more_often():
    def share(balance: float) -> float:
        data = batches(balance)
        return float(np.mean([(data[i].labels == 2).any().item() for i in range(len(data))]))

    assert share(0.0) < 0.2
    assert share(1.0) > 0.4  # a third of the crops, two in a batch: 1 - (2/3)^2 = 0.56


def test_a_wanted_pixel_lies_in_the_crop_at_every_scale():
    _, labels = landscape(2)
    rng = np.random.default_rng(0)
    for scale in (0.5, 0.9, 1.0, 2.0):
        for _ in range(20):
            point = a_pixel_of(labels, 1, rng)
            assert labels[int(point[1]), int(point[0])] == 1
            points = crop_points((120, 160), (60, 70), scale, rng, point)
            apart = np.abs(points - point.astype(np.float32)).max(2).min()
            assert apart <= 0.5 / scale + 1e-3
            assert points.min() >= 0 and points[..., 0].max() <= 160
