"""Labels of pixels by a teacher: looks, agreement, the detector's word, licences, files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import pseudo_mask
from models.data.class_names import STREET_NAMES
from models.data.masks import read_masks
from models.data.pictures import DataError
from models.data.road_classes import ROAD_CLASSES, ROAD_NAMES, from_cityscapes
from models.judging.found import Found
from models.model_file.reading import ZOO
from models.network import IGNORED
from models.pseudo_label import clip_frames
from models.pseudo_mask import RoadTeacher, Trust, believing, labels_of, opinions, tiles
from models.teachers.mask_sources import licence_of, parse_source
from models.teachers.mask_witness import BARE, textured, witnessed
from pipeline.sources.street import PIXEL_CLASSES
from tests.models.test_pseudo_label import write_clip

ROAD, SKY, CAR = (ROAD_NAMES.index(name) for name in ("road", "sky", "car"))
TRAIN_ROAD, TRAIN_SKY, TRAIN_CAR, TRAIN_TRAIN = 0, 10, 13, 16
SHAPE = (24, 32)


def by_colour(blob: np.ndarray) -> list[np.ndarray]:
    """A teacher that knows: blue is sky, red a car, white a train, all else road."""
    assert blob.shape == (1, 3, *SHAPE) and blob.dtype == np.float32
    assert blob.min() >= -1 and blob.max() <= 1
    red, green, blue = blob[0]
    logits = np.zeros((1, 19, *SHAPE), np.float32)
    logits[0, TRAIN_ROAD] = 4
    logits[0, TRAIN_SKY] = np.where((blue > 0) & (red < 0), 12, 0)
    logits[0, TRAIN_CAR] = np.where((red > 0) & (green < 0), 12, 0)
    logits[0, TRAIN_TRAIN] = np.where((red > 0) & (green > 0), 12, 0)
    return [logits]


def scene(size_hw: tuple[int, int] = (96, 160)) -> tuple[np.ndarray, np.ndarray]:
    """Sky above, road below, a car right of the middle; and the truth."""
    height, width = size_hw
    image, truth = np.full((height, width, 3), 60, np.uint8), np.full(size_hw, ROAD, np.uint8)
    image[: height // 2], truth[: height // 2] = (20, 20, 230), SKY
    car = slice(height // 2, height * 3 // 4), slice(width * 5 // 8, width * 7 // 8)
    image[car], truth[car] = (230, 10, 10), CAR
    return image, truth


def test_road_classes_are_those_of_the_drawn_street_and_cover_both_sets():
    assert ROAD_NAMES == PIXEL_CLASSES
    used = sorted(i for one in ROAD_CLASSES for i in one.train_ids)
    assert used == [i for i in range(19) if i != TRAIN_TRAIN]
    table = from_cityscapes()
    assert [ROAD_NAMES[table[i]] for i in (0, 2, 8, 11, 12, 18)] == [
        *("road", "building", "tree", "person", "rider", "bicycle")
    ]
    assert table[TRAIN_TRAIN] == IGNORED


def test_every_class_of_camvid_is_reached_by_name():
    names = (
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
        *("pedestrian", "bicyclist"),
    )
    called = {one.name: one.camvid for one in ROAD_CLASSES}
    assert set(called.values()) == {*names, None}
    assert (called["bus"], called["grass"]) == ("car", None)


@pytest.mark.parametrize("size_hw", [(96, 160), (97, 131), (60, 200), (24, 32), (200, 60)])
def test_looks_cover_the_picture_lie_within_it_and_begin_with_all_of_it(size_hw):
    found = tiles(size_hw, SHAPE, (1.0, 0.6))
    covered = np.zeros(size_hw, int)
    for x1, y1, x2, y2 in found:
        assert 0 <= x1 < x2 <= size_hw[1] and 0 <= y1 < y2 <= size_hw[0]
        covered[y1:y2, x1:x2] += 1
    assert (0, 0, size_hw[1], size_hw[0]) in found
    assert covered.min() >= (1 if len(found) == 1 else 2)


@pytest.mark.parametrize("size_hw", [(96, 160), (97, 131)])
def test_what_the_teacher_knows_becomes_a_label_at_its_place(size_hw):
    image, truth = scene(size_hw)
    labels = labels_of(*opinions(RoadTeacher(by_colour, SHAPE), image, (1.0, 0.6)), Trust())
    known = labels != IGNORED
    assert known.mean() > 0.8
    inner = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, np.ones((13, 13), np.uint8)) == 0
    assert known[inner].mean() > 0.97
    assert (labels[inner & known] == truth[inner & known]).all()
    assert set(np.unique(labels)) == {ROAD, SKY, CAR, IGNORED}


def test_a_class_of_cityscapes_that_is_none_of_ours_is_unknown():
    image = np.full((48, 64, 3), 255, np.uint8)
    chances, votes = opinions(RoadTeacher(by_colour, SHAPE), image, (1.0,))
    assert chances.sum(-1).max() < 0.1
    assert (labels_of(chances, votes, Trust()) == IGNORED).all()


def test_mean_chances_and_votes_are_those_of_a_loop_over_the_looks():
    image, _ = scene((48, 100))
    teacher = RoadTeacher(by_colour, SHAPE)
    chances, votes = opinions(teacher, image, (1.0,))
    for y, x in ((10, 3), (30, 50), (40, 97)):
        seen = []
        for x1, y1, x2, y2 in tiles((48, 100), SHAPE, (1.0,)):
            if not (x1 <= x < x2 and y1 <= y < y2):
                continue
            crop = image[y1:y2, x1:x2]
            for turn in (1, -1):
                own = teacher.look(np.ascontiguousarray(crop[:, ::turn]))[:, ::turn]
                large = cv2.resize(np.ascontiguousarray(own), (x2 - x1, y2 - y1))
                seen.append(large[y - y1, x - x1])
        assert np.allclose(chances[y, x], np.mean(seen, axis=0), atol=1e-5)
        best = np.bincount([s.argmax() for s in seen], minlength=len(ROAD_NAMES))
        assert np.allclose(votes[y, x], best / len(seen))


def test_doubt_between_classes_or_looks_and_specks_become_unknown():
    chances = np.zeros((20, 40, len(ROAD_NAMES)), np.float32)
    votes = np.zeros_like(chances)
    chances[..., ROAD], votes[..., ROAD] = 0.9, 1.0
    chances[:, 10:20, ROAD], chances[:, 10:20, SKY] = 0.5, 0.4
    votes[:, 20:30, ROAD], votes[:, 20:30, SKY] = 0.5, 0.5
    chances[5:8, 33:36] = votes[5:8, 33:36] = 0
    chances[5:8, 33:36, CAR] = votes[5:8, 33:36, CAR] = 1
    labels = labels_of(chances, votes, Trust())
    expected = np.full((20, 40), ROAD)
    expected[:, 10:30] = IGNORED
    expected[5:8, 33:36] = IGNORED
    assert np.array_equal(labels, expected)


def boxes(*rows: tuple[list[float], float, str]) -> Found:
    if not rows:
        return Found.none()
    corners, scores, names = zip(*rows, strict=True)
    ids = np.array([STREET_NAMES.index(name) for name in names])
    return Found(np.array(corners, np.float32), np.array(scores, np.float32), ids)


def test_a_thing_counts_only_where_the_detector_sees_one_of_its_kind():
    labels = np.full((60, 120), ROAD, np.uint8)
    labels[20:40, 10:40] = CAR
    labels[20:40, 70:100] = CAR
    seen = witnessed(labels, boxes(([10, 20, 40, 40], 0.9, "truck")))
    assert (seen[20:40, 10:40] == CAR).all()
    assert (seen[20:40, 70:100] == IGNORED).all()
    assert (seen[45:] == ROAD).all()
    other_kind = witnessed(labels, boxes(([70, 20, 100, 40], 0.9, "person")))
    assert (other_kind[20:40, 70:100] == IGNORED).all()
    assert (witnessed(labels, boxes())[labels == CAR] == IGNORED).all()
    assert (labels == CAR).sum() == 1200  # what was given is as it was


def test_a_patch_that_flows_out_of_its_boxes_has_no_outline_and_is_unknown():
    labels = np.full((60, 120), ROAD, np.uint8)
    labels[20:40, 10:40] = CAR  # one thing, and its box
    labels[20:40, 60:120] = CAR  # half the picture, and a box in it
    seen = witnessed(labels, boxes(([10, 20, 40, 40], 0.9, "car"), ([70, 20, 90, 40], 0.9, "car")))
    assert (seen[20:40, 10:40] == CAR).all()
    assert (seen[20:40, 60:120] == IGNORED).all()


def test_ground_in_the_middle_of_a_sure_box_is_unknown_and_in_a_doubtful_one_stays():
    labels = np.full((60, 120), ROAD, np.uint8)
    sure = witnessed(labels, boxes(([20, 10, 60, 50], 0.9, "car")))
    assert sure[30, 40] == IGNORED and sure[12, 22] == ROAD and sure[30, 90] == ROAD
    assert 0.2 < (sure == IGNORED).sum() / 1600 < 0.6
    assert (witnessed(labels, boxes(([20, 10, 60, 50], 0.3, "car"))) == ROAD).all()


def test_a_tree_in_a_clear_sky_is_unknown_and_one_with_leaves_a_tree():
    rng = np.random.default_rng(2)
    image = np.full((60, 90, 3), (90, 140, 210), np.uint8)
    image[:, 45:] = rng.integers(30, 110, (60, 45, 3))
    labels = np.full((60, 90), ROAD_NAMES.index("tree"), np.uint8)
    labels[40:] = ROAD
    labels[:10] = SKY
    seen = textured(labels, image)
    assert (seen[10:40, :40] == IGNORED).all()
    assert np.array_equal(seen[:, 50:], labels[:, 50:])
    assert np.array_equal(seen[:10], labels[:10]) and np.array_equal(seen[40:], labels[40:])
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    for y, x in ((20, 10), (20, 44), (25, 48), (30, 70)):  # the slow way
        bare = luma[y - 4 : y + 5, x - 4 : x + 5].std() < BARE
        assert (seen[y, x] == IGNORED) == bare


def test_classes_that_are_not_believed_of_a_source_become_unknown():
    labels = np.array([[ROAD, SKY, CAR, IGNORED]], np.uint8)
    assert believing(labels, ("road", "car")).tolist() == [[ROAD, IGNORED, CAR, IGNORED]]


def test_sources_are_read_as_they_are_written():
    clip = parse_source("a.mp4:road,sky", listed=False)
    assert (clip.place, clip.listing, clip.believed) == (Path("a.mp4"), None, ("road", "sky"))
    assert parse_source("a.mp4", listed=False).believed == ROAD_NAMES
    both = parse_source("t.json:images:car", listed=True)
    assert (both.place, both.listing, both.believed) == (Path("images"), Path("t.json"), ("car",))
    assert parse_source("t.json:images", listed=True).believed == ROAD_NAMES
    with pytest.raises(DataError, match="JSON:IMAGES"):
        parse_source("t.json", listed=True)
    with pytest.raises(DataError, match="no road class 'raod'"):
        parse_source("a.mp4:raod", listed=False)


def test_without_a_stated_licence_camvid_and_the_unknown_are_refused():
    for name in ("videos/city_day_480x360_15fps.mp4", "seg_camvid/train/images"):
        with pytest.raises(DataError, match="non-commercial"):
            licence_of(Path(name), None)
    for name in ("own.mp4", "crowd_at_my_shop.mp4", "det_vehicles/own.mp4", "city_day_trip.mp4"):
        with pytest.raises(DataError, match="--licence"):
            licence_of(Path(name), None)
    assert "MIT" in licence_of(Path("videos/highway_day_960x540_25fps.mp4"), None)
    assert "CC BY" in licence_of(Path("det_trafficcam/images"), None)


def test_a_stated_licence_is_what_is_written_down():
    for name in ("own.mp4", "city_day_trip.mp4", "crowd_1280x720_25fps.mp4"):
        assert licence_of(Path(name), "all rights reserved") == "all rights reserved"


def test_nothing_to_label_is_a_question_of_arguments(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_main(monkeypatch, ["--out", str(tmp_path / "out")])
    assert "give --clips or --pictures" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def run_main(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(pseudo_mask, "onnxruntime_runner", lambda content: by_colour)
    teacher = ZOO / "road_segmentation.onnx"  # only to have a file
    pseudo_mask.main(["--teacher", str(teacher), "--teacher-size", "24x32", *words])


@pytest.mark.parametrize("model", ["street", "road_segmentation"])
def test_a_network_that_is_no_such_teacher_is_refused_in_a_line(model):
    with pytest.raises(DataError, match=model) as refusal:
        pseudo_mask.load_teacher(ZOO / f"{model}.onnx", (361, 481))
    assert len(str(refusal.value).splitlines()) == 1


def test_a_network_of_other_classes_is_no_teacher(monkeypatch):
    monkeypatch.setattr(
        pseudo_mask, "onnxruntime_runner", lambda content: lambda blob: [np.zeros((1, 21, 3, 4))]
    )
    with pytest.raises(DataError, match="Cityscapes' classes are wanted"):
        pseudo_mask.load_teacher(ZOO / "road_segmentation.onnx", SHAPE)


def test_clips_and_pictures_become_a_folder_of_masks_that_training_reads(tmp_path, monkeypatch):
    image, _ = scene()
    bright = 255 - image
    write_clip(tmp_path / "clip.mp4", [image if i != 6 else bright for i in range(9)])
    (tmp_path / "held").mkdir()
    cv2.imwrite(str(tmp_path / "held" / "a.png"), bright[:, :, ::-1])
    (tmp_path / "set").mkdir()
    for name in ("b.png", "c.png"):
        cv2.imwrite(str(tmp_path / "set" / name), image[:, :, ::-1])
    listed = {"images": [{"file_name": "b.png"}, {"file_name": "c.png"}]}
    (tmp_path / "set.json").write_text(json.dumps(listed))
    out = tmp_path / "out"
    words = ["--clips", f"{tmp_path / 'clip.mp4'}:road,sky", "--every", "3", "--longest", "120"]
    words += ["--pictures", f"{tmp_path / 'set.json'}:{tmp_path / 'set'}", "--every-picture", "2"]
    words += ["--hold-out", str(tmp_path / "held"), "--around", "0", "--licence", "CC0"]
    run_main(monkeypatch, [*words, "--out", str(out)])
    masks = read_masks(str(out))
    assert masks.class_names == ROAD_NAMES
    assert [e.file.name for e in masks.entries] == ["b.jpg", "clip_00000.jpg", "clip_00003.jpg"]
    for entry in masks.entries:
        picture, labels = entry.read()
        assert picture.shape == (72, 120, 3)
        assert labels[5, 60] == SKY and labels[68, 20] == ROAD
        assert (CAR in labels) == (entry.file.name == "b.jpg")
    about = json.loads((out / "sources.json").read_text())
    assert [(s["source"], s["pictures"]) for s in about["sources"]] == [("clip.mp4", 2), ("set", 1)]
    assert {s["licence"] for s in about["sources"]} == {"CC0"}
    more = ["--pictures", f"{tmp_path / 'set.json'}:{tmp_path / 'set'}", "--licence", "CC0"]
    run_main(monkeypatch, [*more, "--out", str(out)])  # the same folder, filled further
    assert len(read_masks(str(out)).entries) == 4
    about = json.loads((out / "sources.json").read_text())
    assert [s["pictures"] for s in about["sources"]] == [2, 1, 2]


def write_set(folder: Path, **pictures: np.ndarray) -> str:
    """A folder of pictures by their stems (``__`` for a folder), and their list, as words."""
    names = [f"{stem.replace('__', '/')}.png" for stem in pictures]
    for name, image in zip(names, pictures.values(), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), image[:, :, ::-1])
    (folder / "set.json").write_text(json.dumps({"images": [{"file_name": n} for n in names]}))
    return f"{folder / 'set.json'}:{folder}"


def test_pictures_that_would_get_one_name_are_refused_before_any_is_written(tmp_path, monkeypatch):
    image, _ = scene()
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_clip(tmp_path / place / "cam.mp4", [image])
    clips = [str(tmp_path / place / "cam.mp4") for place in ("a", "b")]
    sets = [write_set(tmp_path / name, x=image) for name in ("one", "two")]
    within = write_set(tmp_path / "three", a__x=image, b__x=image)
    for words in (["--clips", *clips], ["--pictures", *sets], ["--pictures", within]):
        with pytest.raises(DataError, match=r"2 .* are called (cam|x)"):
            run_main(monkeypatch, [*words, "--licence", "CC0", "--out", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()


def test_a_picture_of_an_earlier_command_is_not_replaced_by_another(tmp_path, monkeypatch):
    image, _ = scene()
    first = write_set(tmp_path / "one", x=image)
    second = write_set(tmp_path / "two", a=image, x=image[:, ::-1])
    out, licence = tmp_path / "out", ["--licence", "CC0"]
    run_main(monkeypatch, ["--pictures", first, *licence, "--out", str(out)])
    assert (out / "origins.csv").read_text().split() == ["x,../one/x.png"]
    # As it was written once.
    (out / "origins.csv").write_text(f"x,{tmp_path / 'one' / 'x.png'}\n")
    monkeypatch.chdir(tmp_path)
    run_main(monkeypatch, ["--pictures", "one/set.json:one", *licence, "--out", "out"])
    before = (out / "images" / "x.jpg").read_bytes()
    with pytest.raises(DataError, match=r"has a picture x already, made of .*one/x\.png"):
        run_main(monkeypatch, ["--pictures", second, *licence, "--out", str(out)])
    assert (out / "images" / "x.jpg").read_bytes() == before
    about = json.loads((out / "sources.json").read_text())
    # What was written before the refusal stays, and so does its licence.
    counts = [("one", 1), ("one", 1), ("two", 1)]
    assert [(s["source"], s["pictures"]) for s in about["sources"]] == counts


def test_a_picture_of_which_little_is_known_is_left_out(tmp_path, monkeypatch):
    image, _ = scene()
    write_clip(tmp_path / "clip.mp4", [np.full_like(image, 255), image])  # trains only, then more
    words = ["--clips", str(tmp_path / "clip.mp4"), "--every", "1", "--licence", "CC0"]
    run_main(monkeypatch, [*words, "--out", str(tmp_path / "out")])
    masks = read_masks(str(tmp_path / "out"))
    assert [e.file.name for e in masks.entries] == ["clip_00001.jpg"]


def test_nothing_is_written_if_one_of_the_sources_is_not_allowed(tmp_path, monkeypatch):
    image, _ = scene()
    known = tmp_path / "crowd_1280x720_25fps.mp4"
    write_clip(known, [image])
    words = [str(known), str(tmp_path / "city_day_480x360_15fps.mp4")]
    with pytest.raises(DataError, match="non-commercial"):
        run_main(monkeypatch, ["--clips", *words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_deeplab_sees_road_below_and_sky_above_on_a_highway(shared_data):
    clip = shared_data / "videos" / "highway_day_960x540_25fps.mp4"
    _, image = next(clip_frames(clip))
    file = shared_data / "weights" / "deeplab_cityscapes_361x481.onnx"
    teacher = RoadTeacher(pseudo_mask.onnxruntime_runner(file), (361, 481))
    labels = labels_of(*opinions(teacher, pseudo_mask.limited(image, 480), ()), Trust())
    height = len(labels)
    assert (labels[: height // 4] == SKY).mean() > 0.5  # there are trees as well
    assert (labels[height // 2 :] != SKY).all()
    assert (labels[height * 3 // 4 :] == ROAD).mean() > 0.8
    assert (labels != IGNORED).mean() > 0.8
