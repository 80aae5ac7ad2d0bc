"""Pascal VOC: its annotations, and average precision as it counts it."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data.json_files import read_truth
from models.data.labelled import parse_share
from models.data.pictures import DataError
from models.judging.voc_scores import all_points, eleven_points, voc_scores

XML = """<annotation><filename>{name}.jpg</filename>
<size><width>50</width><height>40</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin>
<ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def write_voc(folder: Path) -> Path:
    """Two pictures; a car and a difficult person in the first, nothing in the second."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    objects = OBJECT.format(1, 1, 10, 20, name="car", difficult=0)
    objects += OBJECT.format(11, 5, 50, 40, name="person", difficult=1)
    for name, text in (("000001", objects), ("000002", "")):
        (folder / f"Annotations/{name}.xml").write_text(XML.format(name=name, objects=text))
    (folder / "ImageSets/Main/val.txt").write_text("000001\n000002\n")
    (folder / "ImageSets/Main/car_val.txt").write_text("000001  1\n")
    return folder


def test_voc_counts_pixels_from_one_and_a_difficult_object_is_a_crowd(tmp_path):
    folder = write_voc(tmp_path)
    truth = read_truth(folder / "Annotations")
    assert truth["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]
    assert [i["file_name"] for i in truth["images"]] == ["000001.jpg", "000002.jpg"]
    first, second = truth["annotations"]
    assert first["bbox"] == [0, 0, 10, 20] and first["area"] == 200 and not first["iscrowd"]
    assert second["bbox"] == [10, 4, 40, 36] and second["iscrowd"] == 1
    (entry, empty) = parse_share(
        f"{folder}/ImageSets/Main/val.txt:{folder}/JPEGImages:2", ("person", "car")
    ).entries
    assert entry.boxes.tolist() == [[0, 0, 10, 20]] and entry.class_ids.tolist() == [1]
    assert entry.ignored.tolist() == [[10, 4, 50, 40]]
    assert len(empty.boxes) == 0 and entry.file == folder / "JPEGImages/000001.jpg"
    assert len(read_truth(folder / "ImageSets/Main/car_val.txt")["images"]) == 1


def test_broken_annotations_are_named(tmp_path):
    folder = write_voc(tmp_path)
    with pytest.raises(DataError, match="no annotations"):
        read_truth(folder / "ImageSets/Main/test.txt")
    with pytest.raises(DataError, match="names no annotation"):
        read_truth(folder / "JPEGImages")
    (folder / "Annotations/000001.xml").write_text("<annotation><object/></annotation>")
    with pytest.raises(DataError, match=r"000001\.xml is not a VOC annotation"):
        read_truth(folder / "Annotations")
    (folder / "Annotations/000001.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"cannot read annotation .*000001\.xml"):
        read_truth(folder / "Annotations")


def test_the_xml_files_say_the_same_as_the_coco_files(shared_data):
    folder = shared_data / "eval_formats" / "voc100" / "gts"
    voc = read_truth(folder / "pascalvoc_format")
    coco = read_truth(folder / "coco_format_v1" / "instances_default.json")

    def said(truth: dict[str, Any], shift: int) -> list[tuple[object, ...]]:
        names = {c["id"]: c["name"] for c in truth["categories"]}
        files = {i["id"]: i["file_name"] for i in truth["images"]}
        return sorted(
            (
                files[a["image_id"]],
                names[a["category_id"]],
                *(round(v) for v in a["bbox"][:2]),
                *(round(v) - shift for v in a["bbox"][2:]),
            )
            for a in truth["annotations"]
        )

    # The COCO files keep xmin as it is, less one, and count the width as xmax - xmin.
    assert len(voc["annotations"]) == 273 and len(voc["images"]) == 100
    ours, theirs = said(voc, 1), said(coco, 0)
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    apart = np.abs(np.array([row[2:] for row in ours]) - np.array([row[2:] for row in theirs]))
    assert apart.max() <= 1


SAMPLE_TRUTH = {
    1: "25 16 38 56, 129 123 41 62", 2: "123 11 43 55, 38 132 59 45",
    3: "16 14 35 48, 123 30 49 44, 99 139 47 47", 4: "53 42 40 52, 154 43 31 34",
    5: "59 31 44 51, 48 128 34 52", 6: "36 89 52 76, 62 58 44 67", 7: "28 31 55 63, 58 67 50 58",
}  # fmt: skip  # a table
SAMPLE_FOUND = {
    1: ".88 5 67 31 48, .70 119 111 40 67, .80 124 9 49 67",
    2: ".71 64 111 64 58, .54 26 140 60 47, .74 19 18 43 35",
    3: ".18 109 15 77 39, .67 86 63 46 45, .38 160 62 36 53, .91 105 131 47 47, .44 18 148 40 44",
    4: ".35 83 28 28 26, .78 28 68 42 67, .45 87 89 25 39, .14 10 155 60 26",
    5: ".62 50 38 28 46, .44 95 11 53 28, .95 29 131 72 29, .23 29 163 72 29",
    6: ".45 43 48 74 38, .84 17 155 29 35, .43 95 110 25 42",
    7: ".48 16 20 101 88, .95 33 116 37 49",
}
"""Sample 2 of rafaelpadilla/Object-Detection-Metrics (MIT): x, y, width, height in whole pixels,
which the tool counts with both ends."""


def sample() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def record(image_id: int, numbers: Sequence[float]) -> dict[str, Any]:
        x, y, width, height = numbers
        return {"image_id": image_id, "category_id": 1, "bbox": [x, y, width + 1, height + 1]}

    truth = [
        record(i, [float(n) for n in row.split()])
        for i, rows in SAMPLE_TRUTH.items()
        for row in rows.split(",")
    ]
    found = [
        {**record(i, [float(n) for n in row.split()[1:]]), "score": float(row.split()[0])}
        for i, rows in SAMPLE_FOUND.items()
        for row in rows.split(",")
    ]
    return {"annotations": truth, "categories": [{"id": 1, "name": "object"}]}, found


@pytest.mark.parametrize(
    ("threshold", "all_points", "eleven_points"),
    [
        # The tool has 0.3333333333: its level 0.6 is 0.6000000000000001, so that it misses the
        # precision 9 / 23 at the recall 9 / 15, a share of 1 / 11.
        (0.1, 0.3371980676, 0.3333333333 + 9 / 23 / 11),
        (0.3, 0.2456866804, 0.2683982683),
        (0.5, 0.0222222222, 0.0303030303),
        (0.75, 0.0, 0.0),
    ],
)
def test_the_figures_that_were_published_for_a_sample_come_out(
    threshold, all_points, eleven_points
):
    scores = voc_scores(*sample(), threshold)
    assert scores["all points"] == pytest.approx(all_points, abs=1e-9)
    assert scores["11 points"] == pytest.approx(eleven_points, abs=1e-9)


def by_fractions(
    truth: dict[str, Any], found: list[dict[str, Any]], category_id: int, threshold: float
) -> tuple[float, float]:
    """AP by both methods with nothing but whole numbers and loops; boxes must be whole pixels."""

    def iou(a: list[float], b: list[float]) -> Fraction:
        ax, ay, aw, ah, bx, by, bw, bh = (Fraction(v) for v in (*a, *b))
        width = min(ax + aw, bx + bw) - max(ax, bx)
        height = min(ay + ah, by + bh) - max(ay, by)
        if width <= 0 or height <= 0:
            return Fraction(0)
        return width * height / (aw * ah + bw * bh - width * height)

    own = [a for a in truth["annotations"] if a["category_id"] == category_id]
    objects = sum(not a.get("iscrowd") for a in own)
    points: list[tuple[Fraction, Fraction]] = []
    taken: list[int] = []
    right = wrong = 0
    mine = [d for d in found if d["category_id"] == category_id]
    for detection in sorted(mine, key=lambda d: -d["score"]):
        rivals = [a for a in own if a["image_id"] == detection["image_id"]]
        best = max(rivals, key=lambda a: iou(a["bbox"], detection["bbox"]), default=None)
        hit = best is not None and iou(best["bbox"], detection["bbox"]) >= Fraction(threshold)
        if hit and best.get("iscrowd"):
            continue
        if hit and id(best) not in taken:
            taken.append(id(best))
            right += 1
        else:
            wrong += 1
        points.append((Fraction(right, objects), Fraction(right, right + wrong)))
    levels = [Fraction(i, 10) for i in range(11)]
    eleven = [max((p for r, p in points if r >= level), default=Fraction(0)) for level in levels]
    area, before = Fraction(0), Fraction(0)
    for i, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[i:])
        before = recall
    return float(sum(eleven) / 11), float(area)


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_voc_pictures_score_as_whole_numbers_and_loops_say(shared_data, threshold):
    folder = shared_data / "eval_formats" / "voc100"
    truth = read_truth(folder / "gts" / "pascalvoc_format")
    by_name = {c["name"]: c["id"] for c in truth["categories"]}
    by_file = {i["file_name"]: i["id"] for i in truth["images"]}
    content = json.loads((folder / "dets" / "coco_format" / "coco_dets.json").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    files = {i["id"]: i["file_name"] for i in content["images"]}
    found = [
        {**d, "image_id": by_file[files[d["image_id"]]], "category_id": by_name[n]}
        for d in content["annotations"]
        if (n := names[d["category_id"]]) in by_name
    ]
    assert len(found) > 200
    scores = voc_scores(truth, found, threshold)
    slow = {n: by_fractions(truth, found, i, threshold) for n, i in by_name.items()}
    for name, (eleven, area) in slow.items():
        assert scores["classes"][name]["11 points"] == pytest.approx(eleven, abs=1e-9), name
        assert scores["classes"][name]["all points"] == pytest.approx(area, abs=1e-9), name
    assert scores["all points"] == pytest.approx(np.mean([v[1] for v in slow.values()]))


def test_the_toy_pictures_score_as_fractions_say_and_alike_in_both_of_their_formats(shared_data):
    folder = shared_data / "eval_formats" / "toy"
    voc = read_truth(folder / "gts_vocpascal_format")
    coco = read_truth(folder / "gts_coco_format" / "toy_example_coco.JSON")
    content = json.loads((folder / "dets_coco_format" / "coco_dets.json").read_text())
    files = {i["id"]: i["file_name"] for i in content["images"]}

    def toy_boxes(truth: dict[str, Any]) -> list[dict[str, Any]]:
        ids = {i["file_name"]: i["id"] for i in truth["images"]}
        (category,) = truth["categories"]
        return [
            {**d, "image_id": ids[files[d["image_id"]]], "category_id": category["id"]}
            for d in content["annotations"]
        ]

    def scores(truth: dict[str, Any], threshold: float = 0.5) -> dict[str, Any]:
        return voc_scores(truth, toy_boxes(truth), threshold)

    one, other = scores(voc), scores(coco)
    assert one["classes"]["cat"]["boxes"] == other["classes"]["cat"]["boxes"] == 12
    assert one["all points"] == pytest.approx(other["all points"])
    assert one["11 points"] == pytest.approx(other["11 points"])
    assert one["11 points"] == pytest.approx(0.88636364)
    assert one["all points"] == pytest.approx(0.89583333)
    strict = scores(voc, 0.75)
    assert strict["11 points"] == pytest.approx(0.49793388)
    assert strict["all points"] == pytest.approx(0.51704545)
    for threshold in (0.5, 0.75):
        (category,) = voc["categories"]
        slow = by_fractions(voc, toy_boxes(voc), category["id"], threshold)
        fast = scores(voc, threshold)
        assert (fast["11 points"], fast["all points"]) == pytest.approx(slow)


def test_the_two_methods_differ_as_their_definitions_do():
    recall, precision = np.array([0.25, 0.25, 0.5]), np.array([1.0, 0.5, 2 / 3])
    assert all_points(recall, precision) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert eleven_points(recall, precision) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    nothing = np.zeros(0)
    assert all_points(nothing, nothing) == eleven_points(nothing, nothing) == 0.0


def test_a_second_find_is_wrong_and_a_difficult_object_counts_neither_way():
    def box(image_id: int, x: float, **more: Any) -> dict[str, Any]:
        return {"image_id": image_id, "category_id": 1, "bbox": [x, 0, 10, 10], **more}

    truth = {
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
        "annotations": [box(1, 0), box(1, 50, iscrowd=1)],
    }
    once = [box(1, 0, score=0.9)]
    twice = [box(1, 0, score=0.95), *once]
    unsure = [box(1, 50, score=0.99), *once]
    elsewhere = [box(2, 0, score=0.99), *once]
    assert voc_scores(truth, once)["all points"] == 1.0
    assert voc_scores(truth, unsure)["all points"] == 1.0
    assert voc_scores(truth, elsewhere)["all points"] == 0.5
    assert voc_scores(truth, twice)["classes"]["car"]["all points"] == 1.0
    later = [*twice, box(1, 100, score=0.1)]
    assert voc_scores(truth, later)["classes"]["car"] == {
        "11 points": pytest.approx(1.0), "all points": 1.0, "boxes": 1,
    }  # fmt: skip  # a table
    assert voc_scores(truth, once)["classes"]["bus"]["boxes"] == 0
