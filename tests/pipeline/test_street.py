"""The drawn street: what it promises about its pictures, its truth and its frame counter."""

from __future__ import annotations

import io
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from pipeline.sources.street import STREET_CLASSES, Street, StreetFrame, read_frame_counter
from pipeline.sources.street.cars import make_car
from pipeline.sources.street.cast import CAR, TRUCK, Actor
from pipeline.sources.street.counter import paint_frame_counter
from pipeline.sources.street.lorries import make_truck

SMALL = (180, 320)
DAY_CITY = 5
"""A seed of a street by day with people and parked cars."""


def same(one: StreetFrame, other: StreetFrame) -> bool:
    return (
        np.array_equal(one.image, other.image)
        and np.array_equal(one.boxes, other.boxes)
        and np.array_equal(one.class_ids, other.class_ids)
        and np.array_equal(one.ignored, other.ignored)
        and one.index == other.index
    )


def owners_of(street: Street, index: int) -> tuple[np.ndarray, dict]:
    """Paste the actors of a frame once more and give who owns each pixel."""
    seconds = index / street.fps
    image = np.zeros((*street.size_hw, 3), np.uint8)
    owners = np.zeros(street.size_hw, np.uint8)
    seen = street._paste_actors(image, owners, street._view.at(seconds), seconds)
    return owners, seen


def through_h264(images: list[np.ndarray], crf: int) -> list[np.ndarray]:
    """Code even-sized RGB pictures with H.264 and decode them again."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_two_streets_of_the_same_seed_are_the_same_to_the_byte():
    one, other = Street(7, SMALL), Street(7, SMALL)
    assert all(same(one.frame(index), other.frame(index)) for index in (0, 13, 40))


def test_any_order_of_frames_gives_the_same_frames_as_going_through():
    street = Street(3, SMALL, seconds=0.5)
    through = list(street)
    assert [frame.index for frame in through] == list(range(len(street)))
    fresh = Street(3, SMALL, seconds=0.5)
    for index in (11, 2, 7, 0, 11):
        assert same(fresh.frame(index), through[index])


def test_frames_stay_the_same_when_old_sprites_had_to_go(monkeypatch):
    whole = Street(DAY_CITY, SMALL, seconds=0.4)
    monkeypatch.setattr("pipeline.sources.street.stage._SPRITE_BYTES", 1 << 17)
    frugal = Street(DAY_CITY, SMALL, seconds=0.4)
    for one, other in zip(whole, frugal, strict=True):
        assert same(one, other)
    assert frugal._stage._sprite_bytes <= 1 << 17


@pytest.mark.parametrize("size_hw", [(64, 64), (361, 641), (97, 400), (400, 97), (1080, 1920)])
def test_a_street_has_the_size_that_was_asked_for_and_a_readable_counter(size_hw):
    frame = Street(1, size_hw).frame(5)
    assert frame.image.shape == (*size_hw, 3)
    assert frame.image.dtype == np.uint8
    assert read_frame_counter(frame.image) == 5


def test_the_length_is_rate_times_seconds_and_frames_beyond_it_are_an_error():
    street = Street(0, (64, 64), fps=10.0, seconds=1.26)
    assert len(street) == 13
    for index in (-1, 13):
        with pytest.raises(IndexError, match=r"0\.\.12"):
            street.frame(index)


def test_the_world_moves_at_the_same_pace_whatever_the_frame_rate():
    slow, fast = Street(2, SMALL, fps=10.0), Street(2, SMALL, fps=20.0)
    assert np.array_equal(slow.frame(6).boxes, fast.frame(12).boxes)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size_hw", [(360, 640), (361, 641), (65, 64)])
def test_the_counter_survives_h264_at_crf_28(size_hw, fit):
    street = Street(5, size_hw, seconds=60.0)
    indices = [0, 1, 777, 1023, 1499]
    images = []
    for index in indices:
        image = street.frame(index).image
        if fit == "crop":
            image = image[: size_hw[0] // 2 * 2, : size_hw[1] // 2 * 2]
        else:
            image = cv2.copyMakeBorder(
                image, 0, size_hw[0] % 2, 0, size_hw[1] % 2, cv2.BORDER_REPLICATE
            )
        images.append(np.ascontiguousarray(image))
    decoded = through_h264(images, crf=28)
    assert [read_frame_counter(image) for image in decoded] == indices
    luma = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in decoded]
    assert [read_frame_counter(image) for image in luma] == indices


def test_the_counter_holds_every_index_of_24_bits_and_refuses_others():
    image = np.zeros((120, 160, 3), np.uint8)
    for index in (0, 1, 0x555555, 0xAAAAAA, 0xFFFFFF):
        paint_frame_counter(image, index)
        assert read_frame_counter(image) == index
    for index in (-1, 1 << 24):
        with pytest.raises(ValueError, match="frame index"):
            paint_frame_counter(image, index)


def test_a_picture_without_a_counter_is_an_error_and_never_a_number():
    rng = np.random.default_rng(0)
    pictures = [np.zeros((90, 160, 3), np.uint8), np.full((90, 160), 255, np.uint8)]
    pictures += [rng.integers(0, 256, (90, 160, 3), dtype=np.uint8) for _ in range(20)]
    pictures.append(Street(1, SMALL).frame(0).image[:-40])
    for picture in pictures:
        with pytest.raises(ValueError, match="no frame counter"):
            read_frame_counter(picture)


def test_truth_lies_within_the_picture_and_has_an_area():
    for seed in range(5):
        frame = Street(seed, SMALL).frame(30)
        boxes = np.concatenate([frame.boxes, frame.ignored])
        assert boxes.dtype == np.float32
        assert frame.class_ids.dtype == np.int64
        assert len(frame.class_ids) == len(frame.boxes)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (SMALL[1], SMALL[0])).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
        assert set(frame.class_ids) <= set(range(len(STREET_CLASSES)))


def test_truth_boxes_are_tight_around_the_pixels_that_show_the_object():
    checked = 0
    for seed in (1, DAY_CITY, 9):
        street = Street(seed, SMALL)
        owners, seen = owners_of(street, 20)
        high, wide = paint_frame_counter(np.zeros((*SMALL, 3), np.uint8), 0)
        owners[-high:, :wide] = 0
        masks = {}
        for owner, found in seen.items():
            rows, columns = np.nonzero(owners == owner)  # the slow way to a bounding box
            if len(rows):
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                masks[tuple(map(float, box))] = found.class_id
        frame = street.frame(20)
        for box, class_id in zip(frame.boxes, frame.class_ids, strict=True):
            assert masks[tuple(box.tolist())] == class_id
            checked += 1
    assert checked > 10


def test_what_changes_in_the_picture_when_an_object_goes_lies_in_its_box():
    street = Street(DAY_CITY, (360, 640))
    index, found = 30, 0
    seconds = index / street.fps
    actors = list(street._actors)
    for actor in actors:  # shadows and halos reach beyond an object
        solid = actor.solid(actor.step(seconds))
        for one in {actor.step(seconds), actor.step(seconds) // 2 * 2}:
            solid = actor.solid(one)
            solid.casts_shadow, solid.lamps = False, []
    whole = street.frame(index)
    for number, actor in enumerate(actors):
        if set(actor.classes) != {1}:
            continue
        street._actors = list(actors)
        street._actors[number] = replace(actor, x=lambda t, z: 1e4)
        without = street.frame(index)
        gone = {tuple(b) for b in whole.boxes.tolist()} - {tuple(b) for b in without.boxes.tolist()}
        if len(gone) != 1:
            continue  # it was hidden, or hid others whose boxes change as well
        (box,) = gone
        difference = np.abs(whole.image.astype(int) - without.image).max(axis=2)
        x0, y0, x1, y1 = cv2.boundingRect((difference > 14).astype(np.uint8))
        x1, y1 = x0 + x1, y0 + y1
        assert x0 >= box[0] - 2 and y0 >= box[1] - 2 and x1 <= box[2] + 2 and y1 <= box[3] + 2
        assert (x1 - x0) * (y1 - y0) >= 0.6 * (box[2] - box[0]) * (box[3] - box[1])
        found += 1
    assert found >= 3


def standing_actor(class_id: int, make, z: float, x: float = 0.0) -> Actor:
    model = make(np.random.default_rng(5), 0.0)
    return Actor({1: class_id}, lambda step: model, lambda t, own: x, lambda t: z, exact=True)


def test_an_object_behind_another_is_not_truth():
    street = Street(DAY_CITY, (360, 640))
    truck = standing_actor(TRUCK, make_truck, 18.0)
    hidden, beside = standing_actor(CAR, make_car, 40.0), standing_actor(CAR, make_car, 20.0, -4.5)
    street._actors = [hidden, truck, beside]
    frame = street.frame(0)
    assert sorted(frame.class_ids.tolist()) == [CAR, TRUCK]
    street._actors = [hidden, beside]
    assert street.frame(0).class_ids.tolist() == [CAR, CAR]


def test_an_object_mostly_covered_is_ignored_and_half_covered_is_truth():
    street = Street(DAY_CITY, (360, 640))
    truck = standing_actor(TRUCK, make_truck, 18.0)
    outcomes = []
    for x in np.linspace(0.0, 8.0, 17):
        street._actors = [truck, standing_actor(CAR, make_car, 36.0, float(x))]
        frame = street.frame(0)
        outcomes.append((CAR in frame.class_ids.tolist(), len(frame.ignored)))
    assert outcomes[0][0] is False
    assert outcomes[-1] == (True, 0)
    assert (False, 1) in outcomes
    became = [truth for truth, _ in outcomes]
    assert became == sorted(became)


def test_a_rider_and_the_bicycle_have_a_box_each():
    for seed in range(20):
        street = Street(seed, SMALL)
        for index in (10, 60, 110):
            frame = street.frame(index)
            bicycles = frame.boxes[frame.class_ids == STREET_CLASSES.index("bicycle")]
            riders = frame.boxes[frame.class_ids == STREET_CLASSES.index("person")]
            for box in bicycles:
                centre = (box[0] + box[2]) / 2
                above = (riders[:, 0] < centre) & (riders[:, 2] > centre) & (riders[:, 1] < box[1])
                if above.any():
                    return
    pytest.fail("no cyclist in 20 streets")


def test_every_class_appears_within_a_few_streets():
    found: set[int] = set()
    for seed in range(24):
        found |= set(Street(seed, SMALL).frame(20).class_ids.tolist())
        if len(found) == len(STREET_CLASSES):
            break
    assert found == set(range(len(STREET_CLASSES)))


def test_streets_of_different_seeds_look_different():
    pictures = [Street(seed, SMALL).frame(0).image[:-20].astype(float) for seed in range(4)]
    for first in range(4):
        for second in range(first):
            assert np.abs(pictures[first] - pictures[second]).mean() > 10


def test_many_streets_can_be_drawn_at_the_least_size():
    for seed in range(100, 112):
        frame = Street(seed, (64, 64), seconds=10.0).frame(seed)
        assert frame.image.std() > 1


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"size_hw": (63, 640)}, "larger size"),
        ({"size_hw": (640, 10)}, "larger size"),
        ({"fps": 0.0}, "25 is usual"),
        ({"fps": float("nan")}, "25 is usual"),
        ({"seconds": 0.0}, "12 is usual"),
        ({"seconds": float("inf")}, "12 is usual"),
        ({"seed": -1}, "use 0 or more"),
    ],
)
def test_bad_arguments_are_refused_with_a_remedy(arguments, remedy):
    with pytest.raises(ValueError, match=remedy):
        Street(**arguments)
