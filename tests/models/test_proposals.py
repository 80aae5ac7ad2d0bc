"""Proposals of a whole set: kept, taken up again, and judged."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")

from models import proposals
from models.data.pictures import DataError
from models.detection.proposers import propose
from models.proposals import (
    Cache,
    Settings,
    best_overlaps,
    fill,
    main,
    read_cache,
    read_proposals,
    recall,
)

GRID = Settings("grid", 300, None)


def write_pictures(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        height, width = rng.integers(30, 60, 2)
        noise = rng.integers(0, 256, (height // 10, width // 10, 3)).astype(np.uint8)
        picture = cv2.resize(noise, (int(width), int(height)), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(folder / name), picture)


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 50, (count, 2))
    return np.hstack([corner, corner + rng.uniform(1, 40, (count, 2))]).astype(np.float32)


def test_best_overlaps_agree_with_trying_every_box():
    rng = np.random.default_rng(0)
    truth, boxes, counts = random_boxes(rng, 6), random_boxes(rng, 40), (1, 5, 40, 99)
    slow = [
        [max(slow_iou(t, b) for b in boxes.tolist()[:n]) for n in counts] for t in truth.tolist()
    ]
    np.testing.assert_allclose(best_overlaps(truth, boxes, counts), slow, atol=1e-6)


@pytest.mark.parametrize(("objects", "boxes"), [(3, 0), (0, 3), (0, 0)])
def test_best_overlaps_without_objects_or_boxes(objects, boxes):
    rng = np.random.default_rng(0)
    best = best_overlaps(random_boxes(rng, objects), random_boxes(rng, boxes), (1, 10))
    assert best.tolist() == [[0, 0]] * objects


def test_recall_counts_objects_of_pictures_with_proposals_and_leaves_out_crowds():
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in (1, 2, 3)],
        "annotations": [
            {"image_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0},
            {"image_id": 1, "bbox": [0, 0, 50, 50], "iscrowd": 1},
            {"image_id": 2, "bbox": [20, 20, 10, 10]},
            {"image_id": 2, "bbox": [20, 20, 0, 10]},
            {"image_id": 3, "bbox": [0, 0, 5, 5]},
        ],
    }
    given = {
        "1.png": np.array([[50, 50, 60, 60], [0, 0, 10, 10]], np.float32),
        "2.png": np.array([[20, 20, 30, 26]], np.float32),
    }
    figures = recall(content, given, (1, 2))
    assert (figures["pictures"], figures["objects"]) == (2, 2)
    assert figures["boxes_per_picture"] == 1.5
    one, two = figures["rows"]
    assert (one["recall_50"], one["recall_70"]) == (0.5, 0.0)
    assert (two["recall_50"], two["recall_70"]) == (1.0, 0.5)
    assert two["mean_best_overlap"] == pytest.approx(0.8)


def test_recall_of_a_set_without_objects_says_no_share():
    content = {"images": [{"id": 1, "file_name": "a"}], "annotations": []}
    figures = recall(content, {"a": np.zeros((0, 4), np.float32)}, (10,))
    assert figures["rows"] == [{"boxes": 10}]


def test_what_is_kept_comes_back_by_file_name(tmp_path):
    names = ["a.png", "folder/b.png", "about.png"]
    write_pictures(tmp_path, names)
    fill(names, tmp_path, GRID, tmp_path / "kept.npz")
    kept = read_proposals(tmp_path / "kept.npz")
    assert list(kept) == names
    for name in names:
        image = cv2.imread(str(tmp_path / name))[:, :, ::-1]
        np.testing.assert_array_equal(kept[name], propose("grid", image, 300))
        assert kept[name].dtype == np.float32
    assert not list(tmp_path.glob("*.part"))


def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    names = [f"{n}.png" for n in range(5)]
    write_pictures(tmp_path, names[:3])
    monkeypatch.setattr(proposals, "SAVE_EVERY", 2)
    with pytest.raises(DataError, match=r"3\.png"):
        fill(names, tmp_path, GRID, tmp_path / "kept.npz")
    assert list(read_proposals(tmp_path / "kept.npz")) == names[:2]
    write_pictures(tmp_path, names)
    (tmp_path / names[0]).unlink()  # would be missed if it were looked at again
    assert list(fill(names, tmp_path, GRID, tmp_path / "kept.npz").boxes) == names
    cache = read_cache(tmp_path / "kept.npz")
    assert list(cache.boxes) == list(cache.seconds) == names


@pytest.mark.parametrize("settings", [Settings("grid", 300, 40), Settings("grid", 299, None)])
def test_boxes_made_in_another_way_are_not_mixed(tmp_path, settings):
    Cache(GRID).save(tmp_path / "kept.npz")
    with pytest.raises(DataError, match="name another file"):
        fill([], tmp_path, settings, tmp_path / "kept.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_file_without_proposals_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "kept.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"kept\.npz"):
        read_proposals(tmp_path / "kept.npz")


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    whole, cut = tmp_path / "whole.npz", tmp_path / "cut.npz"
    Cache(GRID, {"a.png": np.ones((200, 4), np.float32)}).save(whole)
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(DataError, match="holds no proposals"):
        read_proposals(cut)


def test_an_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "kept.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match="holds no proposals"):
        read_proposals(tmp_path / "kept.npz")


@pytest.mark.slow  # each process loads torch
def test_two_processes_propose_what_one_does(tmp_path):
    names = [f"{n}.png" for n in range(4)]
    write_pictures(tmp_path, names)
    settings = Settings("selective_search_fast", 100, None)
    one = fill(names, tmp_path, settings, tmp_path / "one.npz").boxes
    two = fill(names, tmp_path, settings, tmp_path / "two.npz", processes=2).boxes
    assert list(one) == list(two)
    for name in names:
        np.testing.assert_array_equal(one[name], two[name])


def test_the_command_line_writes_boxes_and_figures(tmp_path, monkeypatch, capsys):
    names = [f"{n}.png" for n in range(5)]
    write_pictures(tmp_path, names)
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": n, "category_id": 1, "bbox": [0, 0, 30, 30]} for n in range(5)
        ],
        "categories": [{"id": 1, "name": "car"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    words = ["--annotations", "set.json", "--images", ".", "--proposer", "grid", "--pictures", "3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["proposals", *words, "--out", "a.npz", "--json", "a.json"])
    main()
    figures = json.loads((tmp_path / "a.json").read_text())
    assert list(read_proposals(tmp_path / "a.npz")) == [names[0], names[2], names[4]]
    assert (figures["objects"], figures["proposer"], figures["most"]) == (3, "grid", 2000)
    assert [row["boxes"] for row in figures["rows"]] == [10, 30, 100, 300, 1000, 2000]
    shares = [row["recall_50"] for row in figures["rows"]]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "3 objects in 3 pictures" in capsys.readouterr().out
