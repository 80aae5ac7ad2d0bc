"""Labelling with a teacher: looks, agreement, trust."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from models import pseudo_label
from models.data.class_names import COCO_NAMES, STREET_NAMES
from models.data.pictures import DataError
from models.judging.found import Found
from models.pseudo_label import Trust, records
from models.teachers.views import agree, inside, look, tiles

CAR, TRUCK = STREET_NAMES.index("car"), STREET_NAMES.index("truck")


class RedBlocks:
    """A teacher that knows one thing: red blocks are cars. Sees nothing under 8 pixels of 64."""

    class_names = COCO_NAMES

    def detect(self, image: np.ndarray) -> Found:
        small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
        mask = (small[:, :, 0] > 150) & (small[:, :, 1] < 100)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        rows = [s for s in stats[1:count] if s[2] >= 8 and s[3] >= 8]
        if not rows:
            return Found.none()
        x, y, w, h = np.array(rows, np.float32)[:, :4].T
        scale = np.array([image.shape[1], image.shape[0]] * 2, np.float32) / 64
        boxes = (np.stack([x, y, x + w, y + h], 1) * scale).astype(np.float32)
        return Found(
            boxes,
            np.full(len(boxes), 0.8, np.float32),
            np.full(len(boxes), COCO_NAMES.index("car")),
        )


def found(rows: list[tuple[list[float], float, int]]) -> Found:
    boxes, scores, class_ids = zip(*rows, strict=True)
    return Found(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(class_ids))


def street(small_at: tuple[int, int] = (250, 60)) -> np.ndarray:
    """One large red block, and one too small to be seen in the whole picture."""
    image = np.full((240, 400, 3), 60, np.uint8)
    image[120:200, 30:130] = (220, 10, 10)
    x, y = small_at
    image[y : y + 14, x : x + 20] = (220, 10, 10)
    return image


def test_looks_cover_the_picture_and_begin_with_all_of_it():
    every = list(tiles(360, 640, smallest_pixels=150))
    assert every[0] == (0, 0, 640, 360)
    for side in {y2 - y1 for _, y1, _, y2 in every[1:]}:
        covered = np.zeros((360, 640), bool)
        for x1, y1, x2, y2 in every[1:]:
            if y2 - y1 == side:
                covered[y1:y2, x1:x2] = True
                assert x1 >= 0 and x2 <= 640 and y1 >= 0 and y2 <= 360
        assert covered.all()


def test_a_box_cut_by_the_edge_of_a_tile_is_not_believed_but_at_the_pictures_edge_it_is():
    boxes = found([([0, 5, 50, 50], 0.9, CAR), ([10, 10, 100, 60], 0.9, CAR)])
    assert inside(boxes, (100, 0, 200, 100), (300, 300)).tolist() == [False, False]
    assert inside(boxes, (0, 0, 100, 100), (300, 300)).tolist() == [True, False]


def test_small_objects_are_found_in_tiles_and_placed_in_the_picture():
    merged = agree(look(RedBlocks(), street(), smallest_tile_pixels=60))
    truth = np.array([[30, 120, 130, 200], [250, 60, 270, 74]])
    assert len(merged.boxes) == 2
    order = np.argsort(merged.boxes[:, 0])
    assert np.abs(merged.boxes[order] - truth).max() < 6
    assert len(RedBlocks().detect(street()).boxes) == 1  # the whole picture alone is not enough


def test_one_look_among_many_counts_half():
    alone = agree([found([([10, 10, 50, 50], 0.8, CAR)]), Found.none()])
    assert np.allclose(alone.scores, 0.4)
    both = agree([found([([10, 10, 50, 50], 0.8, CAR)]), found([([12, 10, 52, 50], 0.6, CAR)])])
    assert np.allclose(both.scores, 0.7) and 10 < both.boxes[0, 0] < 12


def test_of_two_teachers_both_have_to_agree():
    sees = [found([([10, 10, 50, 50], 0.8, CAR)])] * 2
    blind = [Found.none()] * 2
    assert np.allclose(agree(sees, sees).scores, 0.8)
    assert np.allclose(agree(sees, blind).scores, 0.4) and np.allclose(
        agree(blind, sees).scores, 0.4
    )
    nearby = [found([([12, 10, 52, 50], 0.6, CAR)])] * 2
    assert np.allclose(agree(sees, nearby).scores, 0.7)


def test_car_and_truck_on_one_vehicle_are_one_label():
    merged = agree(
        [
            found([([10, 10, 50, 50], 0.5, TRUCK)]),
            found([([10, 10, 50, 50], 0.7, CAR)]),
            found([([11, 11, 50, 50], 0.6, CAR)]),
        ]
    )
    assert merged.class_ids.tolist() == [CAR]


def test_doubt_becomes_a_region_to_ignore_and_known_objects_gain_nothing():
    seen = found(
        [
            ([0, 0, 40, 40], 0.9, CAR),
            ([100, 0, 140, 40], 0.3, CAR),
            ([200, 0, 240, 40], 0.05, CAR),
            ([300, 0, 306, 40], 0.9, CAR),
        ]
    )
    labels = records(seen, Trust(), range(6), np.zeros((0, 4)))
    assert [a["iscrowd"] for a in labels] == [0, 1, 1]
    # A class labelled by hand: the teacher may only mark what was overlooked.
    overlooked = records(seen, Trust(), [], np.array([[2.0, 0, 40, 40]]))
    assert [(a["bbox"][0], a["iscrowd"]) for a in overlooked] == [(100.0, 1), (300.0, 1)]


def write_clip(file: Path, frames: list[np.ndarray]) -> None:
    height, width = frames[0].shape[:2]
    out = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 10, (width, height))
    for image in frames:
        out.write(image[:, :, ::-1])
    out.release()


def test_a_clip_becomes_a_coco_set_without_the_frames_held_out(tmp_path, monkeypatch):
    frames = [street((150 + 12 * i, 40)) for i in range(12)]
    frames[7][:, :] = 255 - frames[7]  # unlike all others, and held out
    write_clip(tmp_path / "clip.mp4", frames)
    held = tmp_path / "held"
    held.mkdir()
    cv2.imwrite(str(held / "a.png"), frames[7][:, :, ::-1])
    words = [
        "--teacher",
        "any.onnx",
        "--out",
        str(tmp_path / "out"),
        "--every",
        "2",
        "--tile",
        "60",
    ]
    words += ["--hold-out", str(held), "--around", "1", str(tmp_path / "clip.mp4")]
    monkeypatch.setattr(sys, "argv", ["pseudo_label", *words])
    monkeypatch.setattr(pseudo_label, "load_detector", lambda file, engine: RedBlocks())
    pseudo_label.main()
    coco = json.loads((tmp_path / "out" / "instances.json").read_text())
    kept = [i["file_name"] for i in coco["images"]]
    assert kept == [f"clip_{i:05d}.jpg" for i in (0, 2, 4, 10)]
    assert all((tmp_path / "out" / "images" / name).is_file() for name in kept)
    assert len(coco["annotations"]) == 8 and {a["category_id"] for a in coco["annotations"]} == {3}


def run_pseudo_label(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pseudo_label", "--teacher", "any.onnx", *words])
    monkeypatch.setattr(pseudo_label, "load_detector", lambda file, engine: RedBlocks())
    pseudo_label.main()


def test_a_class_that_was_labelled_by_hand_is_not_labelled_twice(tmp_path, monkeypatch):
    image = street((150, 40))
    cv2.imwrite(str(tmp_path / "1.png"), image[:, :, ::-1])
    write_clip(tmp_path / "clip.mp4", [image] * 2)
    run_pseudo_label(
        *(monkeypatch, "--out", str(tmp_path / "by_teacher"), "--tile", "60"),
        str(tmp_path / "clip.mp4"),
    )
    seen = json.loads((tmp_path / "by_teacher" / "instances.json").read_text())["annotations"]
    given = {
        "categories": [{"id": 1, "name": "car"}],  # as COCO has it, without coco_id
        "images": [{"id": 1, "file_name": "1.png", "height": 0, "width": 0}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": a["bbox"], "iscrowd": 0}
            for i, a in enumerate(seen, 1)
        ],
    }
    assert seen
    (tmp_path / "by_hand.json").write_text(json.dumps(given))
    run_pseudo_label(
        *(monkeypatch, "--out", str(tmp_path / "out"), "--tile", "60"),
        *("--complete", str(tmp_path / "by_hand.json"), "--images", str(tmp_path)),
    )
    coco = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [a["category_id"] for a in coco["annotations"]] == [1] * len(seen)


def test_completing_leaves_out_what_looks_like_a_picture_held_out(tmp_path, monkeypatch):
    (tmp_path / "held").mkdir()
    bright = 255 - street()
    cv2.imwrite(str(tmp_path / "held" / "a.png"), bright)
    for name, image in (("1.png", street()), ("2.png", bright)):
        cv2.imwrite(str(tmp_path / name), image)
    listed = [{"id": i, "file_name": f"{i}.png", "height": 240, "width": 400} for i in (1, 2)]
    box = {"category_id": 1, "bbox": [30, 120, 100, 80], "iscrowd": 0}
    given = {
        "categories": [{"id": 1, "name": "car"}],
        "images": listed,
        "annotations": [{**box, "id": i, "image_id": i} for i in (1, 2)],
    }
    (tmp_path / "by_hand.json").write_text(json.dumps(given))
    words = ["--complete", str(tmp_path / "by_hand.json"), "--images", str(tmp_path)]
    words += ["--out", str(tmp_path / "out"), "--hold-out", str(tmp_path / "held")]
    run_pseudo_label(monkeypatch, *words)
    coco = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [i["file_name"] for i in coco["images"]] == ["1.png"]
    assert {a["image_id"] for a in coco["annotations"]} == {1}


@pytest.mark.parametrize("taken", [["clip.mp4"], ["--complete", "set.json", "--images", "."]])
def test_a_folder_that_holds_nothing_out_is_an_error(taken, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.json").write_text(
        json.dumps({"categories": [{"id": 1, "name": "car"}], "images": [], "annotations": []})
    )
    for folder in ("no/such/folder", "empty"):
        with pytest.raises(DataError, match=f"{folder} holds no picture"):
            run_pseudo_label(monkeypatch, "--out", "out", "--hold-out", folder, *taken)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--complete", "set.json", "--images", ".", "--every", "2"], "--every is for clips"),
        (["--complete", "set.json", "--images", ".", "--around", "0"], "--around is for clips"),
        (["a/cam.mp4", "b/cam.mp4"], "2 clips are called cam"),
        (["--complete", "set.json"], "--complete needs --images"),
        ([], "give clips to label, or --complete"),
    ],
)
def test_what_would_be_mixed_up_is_refused(words, reason, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run_pseudo_label(monkeypatch, "--out", str(tmp_path), *words)
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


def test_earlier_labels_are_not_replaced(tmp_path, monkeypatch, capsys):
    (tmp_path / "instances.json").write_text("mended by hand")
    with pytest.raises(SystemExit) as end:
        run_pseudo_label(monkeypatch, "--out", str(tmp_path), str(tmp_path / "cam.mp4"))
    assert end.value.code == 2
    assert "is there already" in capsys.readouterr().err


def test_a_clip_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"missing\.mp4 is no video"):
        run_pseudo_label(monkeypatch, "--out", str(tmp_path), str(tmp_path / "missing.mp4"))
