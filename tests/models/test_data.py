"""COCO reading, class names, and augmentation that keeps boxes on their objects."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.data.augment import Labelled, collage, letterbox, mirror, vary
from models.data.batches import TrainingBatches, repeat_factors
from models.data.class_names import COCO_IDS, STREET_NAMES, class_of
from models.data.labelled import Share, parse_share, read_coco
from models.data.pictures import DataError

COLOURS = {0: (250, 20, 20), 1: (20, 250, 20), 2: (20, 20, 250)}


def scene(seed: int, size_hw: tuple[int, int] = (120, 200)) -> Labelled:
    """Three plain blocks, one of each class, that do not overlap."""
    rng = np.random.default_rng(seed)
    image = np.full((*size_hw, 3), 90, np.uint8)
    boxes = []
    for class_id in range(3):
        x, y = 10 + 65 * class_id + int(rng.integers(10)), int(rng.integers(5, 50))
        width, height = int(rng.integers(25, 45)), int(rng.integers(25, 60))
        image[y : y + height, x : x + width] = COLOURS[class_id]
        boxes.append([x, y, x + width, y + height])
    none = np.zeros((0, 4), np.float32)
    return Labelled(image, np.array(boxes, np.float32), np.arange(3), none)


def write_coco(folder: Path, scenes: list[Labelled]) -> Path:
    """Write scenes as a COCO set with an ambulance in every corner."""
    names = [
        {"id": 1, "name": "person"},
        {"id": 2, "name": "bike", "coco_id": 4},
        {"id": 3, "name": "car"},
        {"id": 9, "name": "ambulance", "coco_id": None},
    ]
    content: dict[str, list[dict[str, object]]] = {
        "categories": names, "images": [], "annotations": [],
    }  # fmt: skip  # a table
    for number, one in enumerate(scenes):
        file = f"{number}.png"
        cv2.imwrite(str(folder / file), one.image[:, :, ::-1])
        content["images"].append({"id": number, "file_name": file, "height": 120, "width": 200})
        for box, class_id in zip(one.boxes.tolist(), one.class_ids.tolist(), strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            content["annotations"].append(
                {"image_id": number, "category_id": class_id + 1, "bbox": bbox, "iscrowd": 0}
            )
        content["annotations"].append(
            {"image_id": number, "category_id": 9, "bbox": [0, 0, 9, 9], "iscrowd": 0}
        )
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json"


def colour_is_where_the_box_says(item: Labelled) -> None:
    """The middle of each box has the colour of its class, and just outside it does not."""
    height, width = item.image.shape[:2]
    known = np.concatenate([item.boxes, item.ignored])
    for box, class_id in zip(item.boxes, item.class_ids, strict=True):
        x, y = (box[:2] + box[2:]) / 2
        wanted = np.array(COLOURS[int(class_id)])
        assert np.abs(item.image[int(y), int(x)] - wanted).max() < 12, (box, class_id)
        for at in ((box[0] - 4, y), (box[2] + 4, y), (x, box[1] - 4), (x, box[3] + 4)):
            inside = 0 <= at[0] < width and 0 <= at[1] < height
            another = ((known[:, :2] - 1 <= at) & (known[:, 2:] + 1 >= at)).all(1).any()
            if inside and not another:
                colour = item.image[int(at[1]), int(at[0])]
                assert np.abs(colour - wanted).max() > 30, (box, class_id, at)


def test_coco_ids_are_those_of_the_annotation_files():
    known = {"person": 1, "truck": 8, "stop sign": 13, "teddy bear": 88, "toothbrush": 90}
    assert {n: COCO_IDS[n] for n in known} == known and len(COCO_IDS) == 80


def test_the_coco_number_of_a_category_outweighs_its_name():
    assert class_of({"name": "bike", "coco_id": 4}, STREET_NAMES) == STREET_NAMES.index(
        "motorcycle"
    )
    assert class_of({"name": "car", "coco_id": None}, STREET_NAMES) is None
    assert class_of({"name": "motorbike"}, STREET_NAMES) == STREET_NAMES.index("motorcycle")
    assert class_of({"name": "ambulance"}, STREET_NAMES) is None


def test_classes_the_model_does_not_know_become_ignored_regions(tmp_path):
    entry = read_coco(write_coco(tmp_path, [scene(0)]), tmp_path, STREET_NAMES)[0]
    assert entry.class_ids.tolist() == [0, 3, 2]
    assert entry.ignored.tolist() == [[0, 0, 9, 9]]
    assert np.array_equal(entry.read().image, scene(0).image)


def test_a_data_set_that_is_missing_foreign_or_without_known_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no "):
        read_coco(tmp_path / "none.json", tmp_path, STREET_NAMES)
    (tmp_path / "odd.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not a COCO annotation file"):
        read_coco(tmp_path / "odd.json", tmp_path, STREET_NAMES)
    with pytest.raises(DataError, match="none of the classes zebra"):
        read_coco(write_coco(tmp_path, [scene(0)]), tmp_path, ["zebra"])
    with pytest.raises(DataError, match="expected ANNOTATIONS"):
        parse_share("one.json", STREET_NAMES)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    entry = read_coco(write_coco(tmp_path, [scene(0)]), tmp_path / "elsewhere", STREET_NAMES)[0]
    with pytest.raises(DataError, match=r"0\.png"):
        entry.read()


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("count", [1, 2, 4])
def test_boxes_stay_on_their_objects_through_crops_scales_and_mirrors(seed, count):
    rng = np.random.default_rng(seed)
    canvas = collage([scene(seed * 10 + i) for i in range(count)], (160, 256), rng)
    assert canvas.image.shape == (160, 256, 3)
    colour_is_where_the_box_says(canvas)


def test_letterbox_and_mirror_move_boxes_with_the_picture():
    colour_is_where_the_box_says(letterbox(scene(3), (160, 160)))
    colour_is_where_the_box_says(mirror(scene(3)))
    twice = mirror(mirror(scene(3)))
    assert np.array_equal(twice.boxes, scene(3).boxes)


@pytest.mark.parametrize("size_hw", [(121, 203), (97, 331), (480, 57)])
def test_a_box_around_the_whole_picture_stays_so_to_the_pixel(size_hw):
    box = np.array([[0, 0, size_hw[1], size_hw[0]]], np.float32)
    none = np.zeros((0, 4), np.float32)
    item = Labelled(np.full((*size_hw, 3), 255, np.uint8), box, np.array([0]), none)
    fitted = letterbox(item, (96, 128), grey=0)
    (x1, y1, x2, y2) = np.round(fitted.boxes[0]).astype(int)
    assert np.allclose(fitted.boxes[0], (x1, y1, x2, y2), atol=1e-4)
    assert fitted.image[y1:y2, x1:x2].min() == 255
    assert fitted.image.sum() == 3 * 255 * (x2 - x1) * (y2 - y1)


def test_light_and_camera_faults_leave_size_type_and_boxes_alone():
    item = scene(1)
    for seed in range(40):
        varied = vary(item, np.random.default_rng(seed))
        assert varied.image.shape == item.image.shape and varied.image.dtype == np.uint8
        assert np.array_equal(varied.boxes, item.boxes)


def test_a_batch_depends_on_its_number_alone(tmp_path):
    share = Share(
        read_coco(write_coco(tmp_path, [scene(i) for i in range(4)]), tmp_path, STREET_NAMES)
    )
    batches = TrainingBatches([share], [(96, 128), (128, 160)], batch=2, steps=9, seed=5)
    again = TrainingBatches([share], [(96, 128), (128, 160)], batch=2, steps=9, seed=5)
    assert len(batches) == 9
    for step in (7, 0, 7):
        one, other = batches[step], again[step]
        assert torch.equal(one.frames, other.frames)
        pairs = zip(one.truths, other.truths, strict=True)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in pairs)
    assert {tuple(batches[i].frames.shape[1:3]) for i in range(9)} == {(96, 128), (128, 160)}


def test_pictures_with_rare_classes_are_drawn_more_often(tmp_path):
    entries = read_coco(write_coco(tmp_path, [scene(i) for i in range(4)]), tmp_path, STREET_NAMES)
    rare = entries[:1] + [
        type(e)(e.file, e.boxes[:1], e.class_ids[:1], e.ignored) for e in entries[1:]
    ]
    assert repeat_factors(rare, 0.0).tolist() == [1, 1, 1, 1]
    assert repeat_factors(rare, 1.0).tolist() == [2, 1, 1, 1]  # sqrt(1 / 0.25)


def with_regions(item: Labelled) -> Labelled:
    """Proposals right on the boxes, and one that covers the picture."""
    height, width = item.image.shape[:2]
    whole = np.array([[0, 0, width, height]], np.float32)
    return replace(item, regions=np.concatenate([item.boxes, whole]))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 2, 4])
def test_proposals_follow_the_boxes_through_augmentation(seed, count):
    rng = np.random.default_rng(seed)
    scenes = [with_regions(scene(seed * 10 + i)) for i in range(count)]
    canvas = vary(collage(scenes, (160, 256), rng), rng)
    assert canvas.regions.dtype == np.float32 and len(canvas.regions) >= len(canvas.boxes)
    for box in canvas.boxes:
        assert np.abs(canvas.regions - box).max(1).min() < 1e-3
    assert (canvas.regions >= 0).all() and (canvas.regions <= [256, 160, 256, 160]).all()
    assert (canvas.regions[:, 2:] - canvas.regions[:, :2] >= 1).all()
    flipped = mirror(canvas)
    for box in flipped.boxes:
        assert np.abs(flipped.regions - box).max(1).min() < 1e-3


def test_batches_carry_the_proposals_of_their_pictures(tmp_path):
    scenes = [scene(i) for i in range(3)]
    file = write_coco(tmp_path, scenes)
    stored = {f"{i}.png": s.boxes for i, s in enumerate(scenes)}
    share = parse_share(f"{file}:{tmp_path}", STREET_NAMES, stored)
    batch = TrainingBatches([share], [(96, 128)], batch=4, steps=2)[1]
    assert batch.regions is not None and len(batch.regions) == 4
    for regions, truth in zip(batch.regions, batch.truths, strict=True):
        assert regions.dtype == torch.float32
        for box in truth.boxes:
            assert (regions - box).abs().amax(1).min() < 1e-3
    plain = TrainingBatches([parse_share(f"{file}:{tmp_path}", STREET_NAMES)], [(96, 128)], 4, 2)
    assert plain[1].regions is None
    assert torch.equal(plain[1].frames, batch.frames)
    with pytest.raises(DataError, match=r"no proposals for 2\.png"):
        parse_share(f"{file}:{tmp_path}", STREET_NAMES, {n: stored[n] for n in ("0.png", "1.png")})


def write_outlines(folder: Path, scenes: list[Labelled]) -> Path:
    """The blocks of `write_coco` with outlines: polygons, and run-length codes for every other."""
    file = write_coco(folder, scenes)
    content = json.loads(file.read_text())
    for number, one in enumerate(content["annotations"]):
        x, y, width, height = (round(side) for side in one["bbox"])
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        if number % 2:
            mask = np.zeros((120, 200), np.uint8)
            mask[y : y + height, x : x + width] = 1
            runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=0)))
            first = int(np.argmax(mask.T.ravel()))
            counts = [first, *runs.tolist()]
            counts.append(mask.size - sum(counts))
            one["segmentation"] = {"size": [120, 200], "counts": counts}
    file.write_text(json.dumps(content))
    return file


def test_masks_move_with_their_objects_through_crops_mirrors_and_collages(tmp_path):
    file = write_outlines(tmp_path, [scene(0), scene(1)])
    entries = read_coco(file, tmp_path, STREET_NAMES, masks=True)
    colours = {0: COLOURS[0], 3: COLOURS[1], 2: COLOURS[2]}
    seen = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        items = [entries[i % 2].read() for i in range((1, 2, 4)[seed % 3])]
        canvas = collage(items, (96, 160), rng)
        assert canvas.masks is not None
        assert canvas.masks.shape == (len(canvas.boxes), 96, 160)
        for mask, box, class_id in zip(canvas.masks, canvas.boxes, canvas.class_ids, strict=True):
            inner = cv2.erode(mask, np.ones((5, 5)), borderValue=0).astype(bool)
            wanted = np.array(colours[int(class_id)])
            assert np.abs(canvas.image[inner] - wanted.astype(int)).max(initial=0) < 12
            y, x = np.nonzero(mask)
            around = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert np.abs(np.array(around) - box).max() <= 1.5
            seen += 1
    assert seen > 20


def test_a_picture_with_an_object_without_outline_has_no_masks(tmp_path):
    file = write_outlines(tmp_path, [scene(0)])
    content = json.loads(file.read_text())
    del content["annotations"][1]["segmentation"]
    file.write_text(json.dumps(content))
    (entry,) = read_coco(file, tmp_path, STREET_NAMES, masks=True)
    assert entry.read().masks is None
    (entry,) = read_coco(write_outlines(tmp_path, [scene(0)]), tmp_path, STREET_NAMES)
    assert entry.read().masks is None, "nobody asked"
    rng = np.random.default_rng(0)
    batches = TrainingBatches([Share([entry])], [(64, 96)], 1, 1)
    assert batches[0].truths[0].masks is None
    assert collage([scene(0), scene(1)], (64, 96), rng).masks is None
