"""What is written beside the figures: confusion, worst cases; and models of pixels and regions."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models import evaluate, papers
from models.data.masks import read_masks
from models.judging.detection_errors import detection_confusion, judge
from models.judging.detectors import ModelFile, load_detector
from models.judging.reports import report_detection, report_segmentation
from models.judging.segmenters import SemanticFile, load_segmenter
from models.judging.worst_cases import palette
from tests.models.test_evaluate import ABOUT, write_model, write_set
from tests.models.test_masks import stripes, write_folder
from tests.models.tiny import TinySegmenter

CATEGORIES = [{"id": 4, "name": "car"}, {"id": 9, "name": "bus"}]


def box(category_id: int, x: float, image_id: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": [x, 10, 20, 20], **more}


TRUTH = {
    "categories": CATEGORIES,
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [
        box(4, 0), box(4, 40), box(9, 80), box(9, 120), box(4, 160, iscrowd=1), box(4, 0, 2),
    ],
}  # fmt: skip  # a table
FOUND = [
    box(4, 1, score=0.9),  # right
    box(9, 2, score=0.8),  # the same car again, as a bus
    box(9, 41, score=0.9),  # the second car as a bus
    box(9, 82, score=0.7),  # right
    box(4, 162, score=0.9),  # in the crowd
    box(4, 200, score=0.6),  # nothing there
    box(9, 120, score=0.2),  # too unsure
    box(4, 0, 2, score=0.99),  # right
]


def test_the_confusion_has_every_object_and_every_detection_once():
    judged = judge(TRUTH, FOUND)
    table = detection_confusion(judged, CATEGORIES)
    #              car bus missed
    assert table.tolist() == [[2, 1, 0], [0, 1, 1], [1, 1, 0]]
    first, second = judged
    assert first.mistakes == 4 and second.mistakes == 0
    assert [a["bbox"][0] for a in first.missed] == [120]
    assert table[:2].sum() == 5 and table.sum(0)[:2].sum() == 6


def test_a_lower_threshold_finds_more_and_pictures_without_anything_are_fine():
    assert detection_confusion(judge(TRUTH, FOUND, 0.1), CATEGORIES)[1].tolist() == [0, 2, 0]
    nothing = {**TRUTH, "annotations": []}
    assert detection_confusion(judge(nothing, []), CATEGORIES).sum() == 0
    blind = detection_confusion(judge(TRUTH, []), CATEGORIES)
    assert blind.tolist() == [[0, 0, 3], [0, 0, 2], [0, 0, 0]]


def pictures_of(page: str) -> list[np.ndarray]:
    import base64

    coded = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(c), np.uint8), 1) for c in coded]
    assert all(one is not None for one in decoded)
    return decoded


def test_the_report_of_a_detector_shows_its_worst_picture_with_all_kinds_of_mistakes(tmp_path):
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), np.full((60, 240, 3), 40, np.uint8))
    report_detection(tmp_path / "out", {"AP": 0.5}, TRUTH, FOUND, tmp_path, 0.5)
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["AP"] == 0.5 and figures["confusion"][0] == [2, 1, 0]
    confusion = cv2.imread(str(tmp_path / "out" / "confusion.png"))
    assert confusion is not None and min(confusion.shape[:2]) > 200
    page = (tmp_path / "out" / "worst.html").read_text()
    assert "1.png: 1 missed, 2 not there, 1 of another class, 2 right" in page
    assert "2.png" not in page and 'src="http' not in page
    (picture,) = pictures_of(page)
    assert picture.shape == (60, 240, 3)
    red = (picture[..., 2] > 180) & (picture[..., 1] < 90)
    yellow = (picture[..., 2] > 180) & (picture[..., 1] > 180) & (picture[..., 0] < 110)
    assert red[10:31, 198:222].any() and not red[10:31, 118:142].any()
    assert yellow[10:31, 118:142].any() and not yellow[10:31, 198:222].any()


class LeftAndRight:
    """Knows where the classes should be, but not where they are."""

    class_names = ("left", "right")

    def segment(self, image: np.ndarray) -> np.ndarray:
        return stripes(0, 1)


def test_the_report_of_a_segmenter_puts_the_worst_picture_first(tmp_path):
    labels = [stripes(0, 1), stripes(1, 0), stripes(0, 0, 1)]
    part = write_folder(tmp_path, labels, ["left", "right"])
    entries = read_masks(str(part)).entries
    figures = report_segmentation(tmp_path / "out", LeftAndRight(), entries)
    assert figures["pixel_accuracy"] == pytest.approx((30 + 0 + 25) / 90)
    page = (tmp_path / "out" / "worst.html").read_text()
    order = re.findall(r"(\d)\.jpg: ([\d.]+) %", page)
    assert order == [("1", "100.0"), ("2", "16.7"), ("0", "0.0")]
    first = pictures_of(page)[0]
    assert first.shape == (20, 120, 3) and (first[:, 92:] > 200).all()
    assert json.loads((tmp_path / "out" / "figures.json").read_text()) == figures
    assert cv2.imread(str(tmp_path / "out" / "confusion.png")) is not None
    assert report_segmentation(None, LeftAndRight(), entries) == figures


def test_the_palette_has_a_colour_of_its_own_for_every_class():
    for classes in (1, 2, 11, 21):
        colours = palette(classes)
        assert len(np.unique(colours[:classes], axis=0)) == classes
        assert (colours[classes:] == 0).all() and (colours[:classes].max(1) > 100).all()


def write_semantic(file: Path, task: str = "semantic") -> None:
    """A model file that says class 1 where the red of a pixel is above 127."""
    nodes = [
        helper.make_node("Slice", ["frames", "zero", "one", "last"], ["red"]),
        helper.make_node("Squeeze", ["red", "last"], ["flat"]),
        helper.make_node("Greater", ["flat", "limit"], ["above"]),
        helper.make_node("Cast", ["above"], ["classes"], to=TensorProto.UINT8),
    ]
    constants = [
        numpy_helper.from_array(np.array([value], kind), name)
        for name, value, kind in (
            ("zero", 0, np.int64), ("one", 1, np.int64), ("last", 3, np.int64),
            ("limit", 127, np.uint8),
        )
    ]  # fmt: skip  # a table
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [None, 40, 80, 3])
    classes = helper.make_tensor_value_info("classes", TensorProto.UINT8, [None, 40, 80])
    model = helper.make_model(
        helper.make_graph(nodes, "red", [frames], [classes], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    about = {"task": task, "class_names": ["dark", "red"], "input_size_hw": [40, 80],
             "fit": "letterbox", "outputs": ["classes"]}  # fmt: skip  # a table
    helper.set_model_props(model, {"boxstream": json.dumps(about)})
    onnx.save(model, str(file))


@pytest.mark.parametrize("size_hw", [(40, 80), (80, 160), (40, 40), (30, 90), (77, 51)])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_semantic_file_answers_at_the_size_of_the_picture(tmp_path, size_hw, engine):
    write_semantic(tmp_path / "m.onnx")
    segmenter = load_segmenter(str(tmp_path / "m.onnx"), engine)
    assert isinstance(segmenter, SemanticFile)
    height, width = size_hw
    picture = np.zeros((*size_hw, 3), np.uint8)
    picture[: height // 2, width // 3 :, 0] = 255
    found = segmenter.segment(picture)
    assert found.shape == size_hw and found.dtype == np.uint8
    # Only along the edge may a pixel of the network's grid fall on the other side.
    assert ((found == 1) != (picture[..., 0] > 127)).mean() < 0.06


def test_a_model_of_the_wrong_task_is_refused_with_a_remedy(tmp_path):
    write_semantic(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="judge it with --masks"):
        load_detector(str(tmp_path / "m.onnx"))
    write_model(tmp_path / "d.onnx", ABOUT)
    with pytest.raises(ValueError, match="no semantic model file"):
        load_segmenter(str(tmp_path / "d.onnx"))


def test_a_region_model_is_given_its_proposals_where_the_picture_was_put():
    """It answers the first region; letterboxed and back, that is the region that was given."""
    seen: list[np.ndarray] = []

    def run(frames: np.ndarray, regions: np.ndarray) -> list[np.ndarray]:
        seen.append(regions)
        return [regions[:, :1], np.array([[0.9]], np.float32), np.array([[1]])]

    about = {**ABOUT, "proposer": "grid", "regions": 5}
    model = ModelFile(run, about)
    picture = np.zeros((192, 160, 3), np.uint8)
    found = model.detect_in(picture, np.array([[10, 20, 110, 180]], np.float32))
    assert np.allclose(found.boxes, [[10, 20, 110, 180]])
    # Half size, 40 pixels to the right; the slots that are left are empty.
    assert np.allclose(seen[0][0, 0], [45, 10, 95, 90]) and seen[0].shape == (1, 5, 4)
    assert (seen[0][0, 1:] == 0).all()
    own = model.detect(picture)
    assert (seen[1][0, :5, 2] > seen[1][0, :5, 0]).all() and len(own.boxes) == 1


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, words)])
    evaluate.main()


def test_the_command_judges_a_semantic_file_and_a_network(tmp_path, monkeypatch, capsys):
    write_semantic(tmp_path / "m.onnx")
    part = write_folder(tmp_path, [stripes(0, 1), stripes(1, 0)], ["dark", "red"])
    for i, left in enumerate((0, 255)):
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[:, :15, 2], picture[:, 15:, 2] = left, 255 - left
        cv2.imwrite(str(part / "images" / f"{i}.jpg"), picture)
    out = tmp_path / "out"
    run_command(monkeypatch, "--model", tmp_path / "m.onnx", "--masks", part, "--report", out)
    figures = json.loads((out / "figures.json").read_text())
    assert figures["mIoU"] > 0.9 and {f.name for f in out.iterdir()} == {
        "figures.json", "confusion.png", "worst.html",
    }  # fmt: skip  # a command
    assert "pixel accuracy" in capsys.readouterr().out
    monkeypatch.setitem(papers.PAPERS, "tiny", TinySegmenter)
    torch.save(TinySegmenter(2).state_dict(), tmp_path / "w.pt")
    run_command(
        monkeypatch, "--network", "tiny", "--weights", tmp_path / "w.pt", "--masks", part,
        "--json", tmp_path / "f.json",
    )  # fmt: skip  # a command
    assert set(json.loads((tmp_path / "f.json").read_text())["classes"]) == {"dark", "red"}


def test_the_command_judges_boxes_by_both_arithmetics_and_reports(tmp_path, monkeypatch):
    truth = write_set(tmp_path, ["car", "bus"])
    found = [{"image_id": 1, "category_id": 10, "bbox": [0, 10, 30, 20], "score": 0.9}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    run_command(
        monkeypatch, "--detections", tmp_path / "found.json", "--annotations", truth,
        "--images", tmp_path, "--report", tmp_path / "out", "--json", tmp_path / "f.json",
    )  # fmt: skip  # a command
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["VOC"]["classes"]["car"]["11 points"] == pytest.approx(1.0)
    assert figures["VOC"]["all points"] == pytest.approx(0.5)
    assert figures["classes"]["car"]["AP50"] == pytest.approx(1.0)
    assert "1 missed" in (tmp_path / "out" / "worst.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "street"],
        ["--model", "street", "--annotations", "a.json"],
        ["--network", "mobilenet_v2_fpn", "--masks", "a"],
        ["--model", "street", "--annotations", "a.json", "--images", "b", "--masks", "c"],
    ],
)
def test_a_command_that_lacks_something_says_so(words, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_command(monkeypatch, *words)
    assert "--" in capsys.readouterr().err
