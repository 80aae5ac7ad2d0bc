"""The class of every pixel of the drawn street: it fits the picture, the boxes and the file."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pipeline.sources.street import PIXEL_CLASSES, STREET_CLASSES, Street, dataset, scenery
from pipeline.sources.street.backdrop import Ground
from pipeline.sources.street.cast import Actor
from pipeline.sources.street.counter import COLUMNS, ROWS, block_pixels
from pipeline.sources.street.pixel_classes import UNKNOWN

SIZE = (180, 320)
CITY, SUBURB, JUNCTION, HIGHWAY = 5, 9, 3, 32


def number(name: str) -> int:
    return PIXEL_CLASSES.index(name)


def labelled(street: Street, index: int) -> tuple[np.ndarray, np.ndarray]:
    frame = street.frame(index, labelled=True)
    assert frame.classes is not None
    return frame.image, frame.classes


@pytest.mark.parametrize("seed", [CITY, JUNCTION])
def test_the_picture_and_its_boxes_are_the_same_to_the_byte_with_and_without_classes(seed):
    plain, asked = Street(seed, SIZE).frame(20), Street(seed, SIZE).frame(20, labelled=True)
    assert plain.classes is None
    assert np.array_equal(plain.image, asked.image)
    assert np.array_equal(plain.boxes, asked.boxes)
    assert np.array_equal(plain.ignored, asked.ignored)


def test_nothing_is_done_for_classes_that_nobody_asked_for(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("not asked for")

    for place in ("skies.Sky", "backdrop.Ground", "walls.Wall"):
        monkeypatch.setattr(f"pipeline.sources.street.{place}.draw_classes", refuse)
    monkeypatch.setattr("pipeline.sources.street.cast.Actor.pixel_kinds", refuse)
    Street(CITY, SIZE).frame(3)


def test_the_same_seed_gives_the_same_classes_in_any_order_of_frames():
    one, other = Street(CITY, SIZE), Street(CITY, SIZE)
    through = [labelled(one, index)[1] for index in (0, 9, 30)]
    for index, classes in zip((30, 0, 9), (through[2], *through[:2]), strict=True):
        assert np.array_equal(labelled(other, index)[1], classes)


@pytest.mark.parametrize("size_hw", [(64, 64), (97, 161)])
@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_has_a_class_but_those_under_the_counter(seed, size_hw):
    _, classes = labelled(Street(seed, size_hw), 5)
    side = block_pixels(size_hw[0])
    covered = np.zeros(size_hw, bool)
    covered[-ROWS * side :, : COLUMNS * side] = True
    assert classes.shape == size_hw and classes.dtype == np.uint8
    assert (classes[covered] == UNKNOWN).all()
    assert (classes[~covered] < len(PIXEL_CLASSES)).all()


def steps_at(image: np.ndarray, classes: np.ndarray, pair: tuple[str, str]) -> np.ndarray:
    """Mean step in brightness (9,) where two classes meet side by side, and 4 pixels around."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    step = np.abs(np.diff(luma, axis=1))
    left, right = classes[:, :-1], classes[:, 1:]
    a, b = (number(name) for name in pair)
    rows, columns = np.nonzero(((left == a) & (right == b)) | ((left == b) & (right == a)))
    inner = (columns >= 4) & (columns < step.shape[1] - 4)
    rows, columns = rows[inner], columns[inner]
    assert len(rows) > 40, f"hardly any border of {pair}"
    return np.array([step[rows, columns + off].mean() for off in range(-4, 5)])


@pytest.mark.parametrize(
    ("seed", "pair"),
    [
        (CITY, ("building", "sky")),
        (SUBURB, ("tree", "sky")),
        (SUBURB, ("road", "pavement")),
        (CITY, ("car", "road")),
        (HIGHWAY, ("pole", "sky")),
    ],
)
def test_classes_meet_where_the_picture_has_its_edges(seed, pair):
    street = Street(seed, SIZE)
    steps = np.mean([steps_at(*labelled(street, index), pair) for index in (4, 60, 120)], axis=0)
    assert abs(int(steps.argmax()) - 4) <= 1, steps.round(1)
    assert steps[3:6].max() > 1.5 * steps[[0, 1, 7, 8]].mean(), steps.round(1)


@pytest.mark.parametrize("seed", [CITY, JUNCTION, HIGHWAY, 12])
def test_a_ground_painted_in_its_classes_is_seen_as_its_classes(seed):
    street = Street(seed, SIZE)
    kinds, own = street._ground._kinds, street._ground
    plain = np.repeat(np.where(kinds == 0, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    painted = Ground(plain, kinds, own.left, len(kinds) / own.loop, kinds.shape[1] / own.columns)
    for seconds in (0.0, 5.0):
        camera = street._view.at(seconds)
        image, classes = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
        painted.draw(image, camera)
        painted.draw_classes(classes, camera)
        # Far off, lanes are narrower than pixels: there the picture is an average.
        near = slice(round(camera.horizon) + 12, None)
        apart = (image[near, :, 0] > 127) != (classes[near] != 0)
        assert 0.1 < (classes[near] == 0).mean() < 0.99
        assert apart.mean() < 0.003


def test_the_box_of_a_thing_that_nothing_hides_is_the_extent_of_its_pixels():
    checked = set()
    for seed, index in ((CITY, 20), (JUNCTION, 40), (1, 30)):
        street = Street(seed, SIZE)
        for actor in [actor for actor in street._actors if actor.classes]:
            street._actors = [actor]
            frame = street.frame(index, labelled=True)
            assert frame.classes is not None
            for box, class_id in zip(frame.boxes, frame.class_ids, strict=True):
                name = STREET_CLASSES[class_id]
                if name == "person" and len(actor.classes) > 1:
                    name = "rider"
                rows, columns = np.nonzero(frame.classes == number(name))  # the slow way
                extent = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                assert np.abs(np.array(extent) - box).max() <= 1, (name, extent, box)
                checked.add(name)
    assert checked >= {"person", "rider", "bicycle", "car", "truck"}


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (scenery.make_tree, {"tree"}),
        (scenery.make_sign, {"pole", "sign"}),
        (scenery.make_signal, {"pole", "sign"}),
        (scenery.make_bollard, {"pole"}),
    ],
)
def test_what_stands_by_the_road_has_its_class_where_the_picture_shows_it(make, names):
    street = Street(CITY, SIZE)
    street._actors = []
    without = labelled(street, 0)
    solid = make(np.random.default_rng(4))
    solid.casts_shadow = False
    street._actors = [Actor({}, lambda _: solid, lambda t, z: -1.5, lambda t: 6.0)]
    image, classes = labelled(street, 0)
    changed = classes != without[1]
    assert {PIXEL_CLASSES[c] for c in np.unique(classes[changed])} == names
    seen = np.abs(image.astype(int) - without[0]).max(axis=2) > 14
    assert (seen & changed).sum() > 0.75 * (seen | changed).sum()


def test_lane_lines_and_shadows_are_road():
    street = Street(CITY, SIZE)
    street._actors = []
    image, classes = labelled(street, 0)
    height, width = SIZE
    strip = classes[int(0.8 * height) : int(0.9 * height), width // 2 - 20 : width // 2 + 20]
    assert (strip == number("road")).all()
    assert image[int(0.8 * height) : int(0.9 * height)].max() > 150  # there is a line in sight


def test_the_data_set_has_a_label_picture_for_each_picture_and_names_for_its_values(tmp_path):
    dataset.write(tmp_path, 3, 30, 2, ((96, 160), (64, 128)), masks=True)
    pictures = sorted(file.stem for file in (tmp_path / "images").iterdir())
    assert sorted(file.stem for file in (tmp_path / "labels").iterdir()) == pictures
    assert len(pictures) == 3
    for name in pictures:
        image = cv2.imread(str(tmp_path / "images" / f"{name}.jpg"))
        labels = cv2.imread(str(tmp_path / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert image is not None and labels is not None
        assert labels.dtype == np.uint8 and labels.shape == image.shape[:2]
    about = json.loads((tmp_path / "classes.json").read_text())
    assert [c["name"] for c in about["classes"]] == list(PIXEL_CLASSES)
    assert about["ignore_id"] == UNKNOWN
    street, index = Street(30, (96, 160), dataset.FPS, dataset.SECONDS), int(pictures[0][-3:])
    labels = cv2.imread(str(tmp_path / "labels" / f"{pictures[0]}.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels, labelled(street, index)[1])


def test_without_masks_the_data_set_holds_boxes_only(tmp_path):
    dataset.write(tmp_path, 1, 30, 1, ((64, 128),))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["images", "instances.json"]
