"""A segmenter that answers in the words of another set."""

import json
import sys

import cv2
import numpy as np
import pytest

from models import evaluate
from models.data.road_classes import ROAD_CLASSES, ROAD_NAMES
from models.judging.segmenters import InWordsOf
from models.network import IGNORED


class Painter:
    """Says of every pixel the class whose number is the picture's red."""

    def __init__(self, class_names):
        self.class_names = class_names

    def segment(self, image):
        return image[..., 0]


def test_classes_are_merged_renamed_kept_or_unknown_to_the_set():
    painter = Painter(("road", "car", "truck", "grass"))
    judged = InWordsOf(painter, ("sky", "vehicle", "road"), {"vehicle": ["car", "truck"]})
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, :, 0] = range(4)
    assert judged.segment(image).tolist() == [[2, 1, 1, IGNORED]]
    assert judged.class_names == ("sky", "vehicle", "road")


def test_road_classes_told_in_camvids_words_are_what_the_table_of_classes_says():
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car",
             "pedestrian", "bicyclist")  # fmt: skip  # a table
    merge = {}
    for one in ROAD_CLASSES:
        if one.camvid not in (None, one.name):
            merge.setdefault(one.camvid, []).append(one.name)
    table = InWordsOf(Painter(ROAD_NAMES), names, merge).table
    told = [None if value == IGNORED else names[value] for value in table]
    assert told == [one.camvid for one in ROAD_CLASSES] + [None] * (256 - len(ROAD_CLASSES))


@pytest.mark.parametrize(
    ("merge", "named"), [({"wheels": ["car"]}, "wheels"), ({"road": ["lorry"]}, "lorry")]
)
def test_words_that_nobody_has_are_refused(merge, named):
    with pytest.raises(ValueError, match=f"no class '{named}'"):
        InWordsOf(Painter(("car", "road")), ("road", "car"), merge)


def test_the_command_judges_by_the_classes_of_the_set(tmp_path, monkeypatch):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, :, 2] = 1  # red, as OpenCV writes it: the upper row is a truck
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture)
    cv2.imwrite(str(tmp_path / "labels" / "a.png"), np.array([[1] * 3, [0] * 3], np.uint8))
    classes = [{"id": 0, "name": "road"}, {"id": 1, "name": "car"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
    painter = Painter(("road", "truck"))
    monkeypatch.setattr(evaluate, "load_segmenter", lambda *_: painter)
    out = tmp_path / "figures.json"
    words = ["evaluate", "--model", "x.onnx", "--masks", str(tmp_path), "--json", str(out)]
    for merge, car_or_truck in ((["--merge", "car=truck"], ("car", 3)), ([], ("truck", 0))):
        monkeypatch.setattr(sys, "argv", [*words, *merge])
        evaluate.main()
        figures = json.loads(out.read_text())
        name, pixels = car_or_truck
        assert figures["classes"][name]["pixels"] == pixels
        assert figures["confusion"] == [[3, 0, 0], [0, pixels, 0]]
