"""Label pictures in three formats, and how rare classes are weighed."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models.data.masks import (
    VOC_CLASSES,
    MaskEntry,
    StoredMask,
    class_pixels,
    median_frequency_weights,
    read_masks,
    translation,
)
from models.data.pictures import DataError
from models.network import IGNORED


def write_folder(folder: Path, labels: list[np.ndarray], names: list[str]) -> Path:
    """A set of grey pictures with the labels that are given, ``classes.json`` above it."""
    part = folder / "train"
    for name in ("images", "labels"):
        (part / name).mkdir(parents=True)
    for i, one in enumerate(labels):
        picture = np.full((*one.shape, 3), 90, np.uint8)
        cv2.imwrite(str(part / "images" / f"{i}.jpg"), picture)
        cv2.imwrite(str(part / "labels" / f"{i}.png"), one)
    classes = [{"id": i, "name": n} for i, n in enumerate(names)]
    (folder / "classes.json").write_text(json.dumps({"classes": classes, "ignore_id": 11}))
    return part


@pytest.mark.parametrize("value", [-1, 255, 300])
def test_a_class_that_no_pixel_can_have_is_refused(tmp_path, value):
    part = write_folder(tmp_path, [stripes(0, 1)], ["sky", "road"])
    listed = [{"id": 0, "name": "sky"}, {"id": value, "name": "plate"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": listed}))
    with pytest.raises(DataError, match=f"from 0 to 254, not {value}"):
        read_masks(str(part))


def test_what_is_listed_under_the_ignored_id_is_unknown(tmp_path):
    part = write_folder(tmp_path, [stripes(0, 11)], ["sky"])
    listed = [{"id": 0, "name": "sky"}, {"id": 11, "name": "void"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": listed, "ignore_id": 11}))
    masks = read_masks(str(part))
    assert masks.class_names == ("sky",)
    assert set(np.unique(masks.entries[0].read()[1])) == {0, IGNORED}


def stripes(*values: int) -> np.ndarray:
    """(20, 30) uint8 in upright stripes of equal width."""
    return np.repeat(np.array(values, np.uint8), 30 // len(values))[None].repeat(20, 0)


def test_a_folder_of_masks_is_read_with_its_own_classes_and_the_rest_is_unknown(tmp_path):
    part = write_folder(tmp_path, [stripes(0, 1, 11), stripes(1, 1, 7)], ["sky", "road"])
    masks = read_masks(f"{part}:2.5")
    assert masks.class_names == ("sky", "road") and masks.repeat == 2.5
    picture, labels = masks.entries[0].read()
    assert picture.shape == (20, 30, 3)
    assert np.array_equal(labels, stripes(0, 1, IGNORED))
    assert np.array_equal(masks.entries[1].mask.read(), stripes(1, 1, IGNORED))


def test_classes_are_found_by_name_when_another_order_is_asked_for(tmp_path):
    part = write_folder(tmp_path, [stripes(0, 1, 2)], ["sky", "road", "car"])
    masks = read_masks(str(part), ("car", "person", "sky"))
    assert np.array_equal(masks.entries[0].mask.read(), stripes(2, IGNORED, 0))
    with pytest.raises(DataError, match="none of the classes zebra"):
        read_masks(str(part), ("zebra",))


def test_the_palette_pictures_of_voc_are_read_as_class_ids(tmp_path):
    for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    cv2.imwrite(str(tmp_path / "JPEGImages/2007_000032.jpg"), np.zeros((20, 30, 3), np.uint8))
    picture = Image.fromarray(stripes(0, 15, 255), mode=None).convert("P")
    picture.putdata(stripes(0, 15, 255).ravel().tolist())
    picture.putpalette([c for i in range(256) for c in (i, 255 - i, 7)])
    picture.save(tmp_path / "SegmentationClass/2007_000032.png")
    words = f"{tmp_path}/ImageSets/Segmentation/train.txt:{tmp_path}/JPEGImages"
    masks = read_masks(words)
    assert masks.class_names == VOC_CLASSES and VOC_CLASSES[15] == "person"
    assert np.array_equal(masks.entries[0].read()[1], stripes(0, 15, 255))
    few = read_masks(words + ":3", ("background", "person"))
    assert few.repeat == 3 and np.array_equal(few.entries[0].mask.read(), stripes(0, 1, 255))


def test_polygons_and_run_lengths_of_coco_become_masks_with_small_things_in_front(tmp_path):
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    small = [[4, 4, 8, 4, 8, 8, 4, 8]]
    crowd = {"size": [20, 30], "counts": [20 * 25, 20 * 5]}  # the last five columns
    annotations = [
        {"image_id": 1, "category_id": 7, "segmentation": small, "iscrowd": 0},
        {"image_id": 1, "category_id": 5, "segmentation": square, "iscrowd": 0},
        {"image_id": 1, "category_id": 5, "segmentation": crowd, "iscrowd": 1},
    ]
    content = {
        "categories": [{"id": 5, "name": "car"}, {"id": 7, "name": "person"}],
        "images": [{"id": 1, "file_name": "a.jpg", "width": 30, "height": 20}],
        "annotations": annotations,
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    masks = read_masks(f"{tmp_path}/set.json:{tmp_path}")
    assert masks.class_names == ("background", "car", "person")
    labels = masks.entries[0].mask.read()
    expected = np.zeros((20, 30), np.uint8)
    expected[2:12, 2:12], expected[4:8, 4:8], expected[:, 25:] = 1, 2, IGNORED
    # How the edge of a polygon falls on pixels is pycocotools' business.
    assert (labels != expected).mean() < 0.03
    assert (labels[3:11, 3:11] > 0).all() and labels[6, 6] == 2 and (labels[:, 26:] == 255).all()


def test_sets_that_are_missing_or_foreign_are_refused_by_name(tmp_path):
    part = write_folder(tmp_path, [stripes(0, 1)], ["sky", "road"])
    with pytest.raises(DataError, match=r"no classes\.json"):
        read_masks(str(tmp_path / "nowhere" / "train"))
    with pytest.raises(DataError, match="expected FOLDER"):
        read_masks("a.json")
    with pytest.raises(DataError, match="no list of pictures"):
        read_masks(f"{tmp_path}/train.txt:{tmp_path}")
    (tmp_path / "odd.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="not COCO"):
        read_masks(f"{tmp_path}/odd.json:{tmp_path}")
    (part / "images" / "0.jpg").unlink()
    with pytest.raises(DataError, match="lacks the picture 0"):
        read_masks(str(part))


def test_label_pictures_in_colours_or_of_another_size_are_refused(tmp_path):
    part = write_folder(tmp_path, [stripes(0, 1)], ["sky", "road"])
    (entry,) = read_masks(str(part)).entries
    cv2.imwrite(str(part / "labels" / "0.png"), np.zeros((20, 31), np.uint8))
    with pytest.raises(DataError, match="30x20, its labels are 31x20"):
        entry.read()
    cv2.imwrite(str(part / "labels" / "0.png"), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(DataError, match="one class id a pixel"):
        entry.read()


def test_median_frequency_weights_agree_with_their_definition(tmp_path):
    labels = [stripes(0, 0, 1), stripes(0, 2, 2), stripes(0, 0, IGNORED)]
    table = translation({i: str(i) for i in range(4)}, ("0", "1", "2", "3"))
    entries = []
    for i, one in enumerate(labels):
        cv2.imwrite(str(tmp_path / f"{i}.png"), one)
        entries.append(MaskEntry(tmp_path / "none", StoredMask(tmp_path / f"{i}.png", table)))
    counts = class_pixels(entries, 4)
    assert counts.tolist() == [[400, 200, 0, 0], [200, 0, 400, 0], [400, 0, 0, 0]]
    # Pixels of a class by the labelled pixels of the pictures that have it: 1000 of 1600, 1 of 3,
    # 2 of 3; their median is 5 of 8.
    expected = [1.0, 0.625 * 3, 0.625 * 1.5, 0.0]
    assert median_frequency_weights(counts) == pytest.approx(expected)


def test_camvid_has_its_eleven_classes(shared_data):
    masks = read_masks(str(shared_data / "seg_camvid" / "val"))
    assert len(masks.entries) == 101 and len(masks.class_names) == 11
    picture, labels = masks.entries[0].read()
    assert picture.shape == (360, 480, 3) and labels.shape == (360, 480)
    assert set(np.unique(labels)) <= {*range(11), IGNORED}
