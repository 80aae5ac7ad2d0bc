"""Evaluation against known figures, and the meeting of classes."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.hub import tqdm

from models import evaluate, precision_check
from models.bad_input import told
from models.data.class_names import COCO_NAMES, STREET_NAMES
from models.data.masks import read_masks
from models.data.pictures import DataError
from models.judging.coco_scores import Classes, meet, regroup, score
from models.judging.detectors import ModelFile, fit, load_detector
from models.judging.found import Found
from models.judging.segmentation_scores import evaluate_segmentation
from models.judging.segmenters import load_segmenter
from models.ladder.scenes import write_scenes
from models.model_file.reading import description
from models.model_file.writing import export_network
from models.papers import PAPERS
from models.proposals import Cache, Settings
from models.segmentation.deeplab import deeplab_v3_plus

KNOWN_COCO_100 = [
    0.503647, 0.696973, 0.571667, 0.593252, 0.557991, 0.489363,
    0.386813, 0.593680, 0.595353, 0.654764, 0.603130, 0.553744,
]  # fmt: skip  # a table


def test_the_twelve_figures_of_the_coco_example_come_out(shared_data):
    folder = shared_data / "eval_formats" / "coco_eval_100"
    (truth,) = folder.glob("gts/*.json")
    figures = score(
        json.loads(truth.read_text()), json.loads((folder / "cocoapi_results.json").read_text())
    )
    assert figures["stats"] == pytest.approx(KNOWN_COCO_100, abs=1e-6)


def test_yolox_nano_reaches_its_known_figures_on_voc(shared_data):
    folder = shared_data / "eval_formats" / "voc100"
    truth = folder / "gts" / "coco_format_v1" / "instances_default.json"
    yolox = load_detector(str(shared_data / "weights" / "yolox_nano_coco_416.onnx"))
    figures = evaluate.evaluate(yolox, truth, folder / "images")
    known = {"AP": 0.511, "AP50": 0.754, "AP75": 0.565}
    assert {k: figures[k] for k in known} == pytest.approx(known, abs=0.005)


def test_any_number_of_an_annotation_counts_and_what_it_lacks_is_filled_in():
    boxes = [[10, 10, 30, 20], [60, 10, 30, 20]]
    truth = {
        "categories": [{"id": 1, "name": "car"}],
        "images": [{"id": 1, "file_name": "1.png", "height": 60, "width": 300}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    assert score(truth, found)["AP"] == pytest.approx(1.0)  # one of them is number 0


def write_set(folder: Path, names: list[str]) -> Path:
    """Two pictures; one box of each category in the first, none in the second."""
    categories = [{"id": 10 + i, "name": n} for i, n in enumerate(names)]
    images = [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 300} for i in (1, 2)]
    for image in images:
        cv2.imwrite(str(folder / str(image["file_name"])), np.zeros((60, 300, 3), np.uint8))
    annotations = [
        {"id": 1 + i, "image_id": 1, "category_id": 10 + i, "bbox": [40 * i, 10, 30, 20],
         "area": 600, "iscrowd": 0}
        for i in range(len(names))
    ]  # fmt: skip  # a table
    file = folder / "truth.json"
    content = {"categories": categories, "images": images, "annotations": annotations}
    file.write_text(json.dumps(content))
    return file


class Says:
    """A detector that finds the same in the first picture it is shown, and nothing after."""

    def __init__(self, boxes: list[list[float]], class_ids: list[int]) -> None:
        self.class_names = STREET_NAMES
        scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
        self.rest = [Found(np.array(boxes, np.float32).reshape(-1, 4), scores, np.array(class_ids))]

    def detect(self, image: np.ndarray) -> Found:
        return self.rest.pop() if self.rest else Found.none()


def test_a_perfect_detector_scores_one_and_a_blind_one_zero(tmp_path):
    truth = write_set(tmp_path, ["person", "car"])
    right = Says([[0, 10, 30, 30], [40, 10, 70, 30]], [0, 2])
    figures = evaluate.evaluate(right, truth, tmp_path)
    assert figures["AP"] == pytest.approx(1.0) and set(figures["classes"]) == {"person", "car"}
    assert evaluate.evaluate(Says([], []), truth, tmp_path)["AP"] == 0.0


def test_classes_that_only_one_side_knows_are_left_out(tmp_path):
    truth = write_set(tmp_path, ["ambulance", "car"])
    detector = Says([[0, 10, 30, 30], [40, 10, 70, 30]], [0, 2])  # a "person" on the ambulance
    figures = evaluate.evaluate(detector, truth, tmp_path)
    assert figures["AP"] == pytest.approx(1.0) and figures["classes"]["car"]["boxes"] == 1


def test_merged_classes_count_as_one_and_doubles_on_one_object_are_dropped(tmp_path):
    truth = write_set(tmp_path, ["truck", "car"])
    boxes = [[0, 10, 30, 30], [1, 10, 31, 30], [40, 10, 70, 30]]
    classes = [STREET_NAMES.index(n) for n in ("car", "bus", "truck")]
    merge = {"vehicle": ["car", "bus", "truck"]}
    figures = evaluate.evaluate(Says(boxes, classes), truth, tmp_path, merge)
    assert figures["AP"] == pytest.approx(1.0)
    assert figures["classes"]["vehicle"]["boxes"] == 2
    assert evaluate.evaluate(Says(boxes, classes), truth, tmp_path)["AP"] == 0.0


def test_no_common_class_is_an_error(tmp_path):
    truth = write_set(tmp_path, ["zebra"])
    with pytest.raises(DataError, match="share no class"):
        evaluate.evaluate(Says([], []), truth, tmp_path)


def test_pictures_without_proposals_are_an_error(tmp_path):
    truth = write_set(tmp_path, ["car"])
    some = {"2.png": np.zeros((3, 4), np.float32)}
    with pytest.raises(DataError, match=r"no proposals for 1\.png.*make them for all pictures"):
        evaluate.evaluate(Says([], []), truth, tmp_path, regions=some)


def test_merging_works_when_the_truth_has_only_one_of_the_classes():
    classes = meet([{"id": 7, "name": "car"}], STREET_NAMES, {"vehicle": ["car", "bus", "truck"]})
    assert classes == Classes(["vehicle"], {7: 0}, {2: 0, 4: 0, 5: 0})
    found = Found(np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.array([4, 0]))
    assert regroup(found, classes, merged=False).class_ids.tolist() == [0]


@pytest.mark.parametrize("size_hw", [(60, 300), (300, 60), (641, 361), (1, 1), (320, 576)])
@pytest.mark.parametrize("how", ["letterbox", "stretch"])
def test_fitting_maps_the_corners_of_a_picture_into_the_input(size_hw, how):
    canvas, scale_xy, shift_xy = fit(np.full((*size_hw, 3), 250, np.uint8), (320, 576), how)
    assert canvas.shape == (320, 576, 3)
    low, high = shift_xy, shift_xy + scale_xy * np.array(size_hw[::-1])
    assert (low >= 0).all() and (high <= np.array([576, 320]) + 1e-3).all()
    x1, y1, x2, y2 = (round(float(v)) for v in (*low, *high))
    assert (canvas[y1:y2, x1:x2] == 250).all()
    assert (canvas == 250).all(2).sum() == (x2 - x1) * (y2 - y1)


def write_model(file: Path, about: dict[str, object] | None) -> None:
    """A model file that answers two overlapping boxes whatever it sees."""
    boxes = np.array([[[10, 20, 110, 70], [12, 20, 112, 70], [0, 0, 0, 0]]], np.float32)
    answers = {
        "boxes": boxes,
        "scores": np.array([[0.9, 0.6, 0.0]], np.float32),
        "labels": np.array([[2, 2, 0]], np.int64),
    }
    nodes = [
        helper.make_node("Constant", [], [n], value=numpy_helper.from_array(a))
        for n, a in answers.items()
    ]
    outputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in answers.items()
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, [None, 96, 160, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "fixed", [frames], outputs),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    if about is not None:
        helper.set_model_props(model, {"boxstream": json.dumps(about)})
    onnx.save(model, str(file))


ABOUT = {
    "class_names": STREET_NAMES, "input_size_hw": [96, 160], "fit": "letterbox", "nms_iou": 0.5,
    "outputs": ["boxes", "scores", "labels"], "output_form": "candidates",
}  # fmt: skip  # a table


def test_a_model_file_is_recognised_and_its_boxes_come_back_in_the_pictures_pixels(tmp_path):
    write_model(tmp_path / "m.onnx", ABOUT)
    detector = load_detector(str(tmp_path / "m.onnx"))
    assert isinstance(detector, ModelFile)
    found = detector.detect(np.zeros((192, 160, 3), np.uint8))  # half size, 40 pixels to the right
    assert np.allclose(found.boxes, [[0, 40, 140, 140]]) and found.class_ids.tolist() == [2]
    write_model(tmp_path / "d.onnx", {**ABOUT, "output_form": "detections"})
    both = load_detector(str(tmp_path / "d.onnx")).detect(np.zeros((96, 160, 3), np.uint8))
    assert len(both.boxes) == 2  # already suppressed in the graph


def test_an_overlap_of_zero_is_an_overlap(tmp_path, monkeypatch, shared_data):
    yolox = str(shared_data / "weights" / "yolox_nano_coco_416.onnx")
    assert load_detector(yolox, iou_threshold=0.0).iou_threshold == 0.0
    write_model(tmp_path / "m.onnx", ABOUT)
    assert load_detector(str(tmp_path / "m.onnx"), iou_threshold=0.0).iou_threshold == 0.0
    torch.save(PAPERS["localization"](1).state_dict(), tmp_path / "w.pt")
    words = ["--network", "localization", "--weights", str(tmp_path / "w.pt"), "--classes", "car"]
    words += ["--annotations", "truth.json", "--images", "images", "--nms-iou", "0"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *words])
    assert evaluate.detector_of(evaluate.parse_arguments()).iou_threshold == 0.0


def test_regions_for_a_detector_that_finds_its_own_are_refused(tmp_path, monkeypatch, capsys):
    truth = write_set(tmp_path, ["car"])
    write_model(tmp_path / "m.onnx", ABOUT)
    torch.save(PAPERS["localization"](1).state_dict(), tmp_path / "w.pt")
    Cache(Settings("selective_search_fast", 10, None)).save(tmp_path / "r.npz")
    about = ["--annotations", str(truth), "--images", str(tmp_path)]
    about += ["--regions", str(tmp_path / "r.npz")]
    network = ["--network", "localization", "--weights", str(tmp_path / "w.pt"), "--classes", "car"]
    for source in (["--model", str(tmp_path / "m.onnx")], network):
        monkeypatch.setattr(sys, "argv", ["evaluate", *source, *about])
        with pytest.raises(SystemExit) as end, told():
            evaluate.main()
        assert end.value.code == 2
        assert "--regions: this detector finds its regions itself" in capsys.readouterr().err


def test_a_missing_or_foreign_model_is_an_error_that_says_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model 'nonesuch'"):
        load_detector("nonesuch")
    write_model(tmp_path / "foreign.onnx", None)
    with pytest.raises(ValueError, match="neither a boxstream model file nor YOLOX"):
        load_detector(str(tmp_path / "foreign.onnx"))


def test_the_command_writes_the_figures(tmp_path, monkeypatch, capsys):
    truth = write_set(tmp_path, ["car"])
    ready = [{"image_id": 1, "category_id": 10, "bbox": [0, 10, 30, 20], "score": 0.9}]
    (tmp_path / "found.json").write_text(json.dumps(ready))
    words = ["--detections", str(tmp_path / "found.json"), "--annotations", str(truth)]
    monkeypatch.setattr(sys, "argv", ["evaluate", *words, "--json", str(tmp_path / "out.json")])
    evaluate.main()
    assert json.loads((tmp_path / "out.json").read_text())["AP"] == pytest.approx(1.0)
    assert "car" in capsys.readouterr().out


UNET, YOLO = (["--network", name, "--weights", "w.pt"] for name in ("unet", "yolo_v2"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--model", "street", "--precision", "bf16"], "wants --model and --engine openvino"),
        (["--detections", "found.json", "--merge", "v=car,bus"], "judged in the classes"),
        ([*UNET, "--masks", "m", "--size", "64x64"], "--size"),
        ([*UNET, "--masks", "m", "--engine", "openvino"], "--engine goes with --model"),
        (["--model", "street", "--classes", "car"], "--classes goes with --network"),
        (["--detections", "found.json", "--regions", "r.npz"], "--regions goes with --model"),
        (["--detections", "found.json", "--masks", "m"], "results are boxes"),
        (["--model", "roads", "--masks", "m", "--regions", "r.npz"], "--masks judges pixels"),
        (["--model", "roads", "--masks", "m", "--nms-iou", "0"], "--nms-iou: are of boxes"),
        (UNET, "a unet finds classes of pixels, not objects; judge it with --masks"),
        ([*YOLO, "--masks", "m"], "a yolo_v2 finds objects, not classes of pixels; judge it with"),
        ([*YOLO, "--annotations", "a.json"], "--images is missing"),
        (["--model", "street", "--annotations", "a.json"], "--images is missing"),
    ],
)
def test_what_would_be_ignored_or_cannot_be_judged_is_refused(words, reason, monkeypatch, capsys):
    if not {"--masks", "--annotations"} & set(words):
        words = [*words, "--annotations", "a.json", "--images", "i"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *words])
    with pytest.raises(SystemExit) as end:
        evaluate.main()
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("has_bf16", [True, False])
def test_the_check_of_precisions_is_written_into_the_model_file(
    tmp_path, has_bf16, monkeypatch, capsys
):
    monkeypatch.setattr(precision_check, "has_bf16", lambda: has_bf16)
    monkeypatch.setattr("models.judging.runners.has_bf16", lambda: has_bf16)
    write_model(tmp_path / "m.onnx", ABOUT)
    truth = write_set(tmp_path, ["car"])
    precision_check.main([str(tmp_path / "m.onnx"), "--data", f"{truth}:{tmp_path}"])
    props = onnx.load(str(tmp_path / "m.onnx")).metadata_props
    about = json.loads(next(p.value for p in props if p.key == "boxstream"))
    judged = about.pop("precision_check").keys()
    assert judged == ({"f32", "bf16"} if has_bf16 else {"f32"})
    assert ("has no bf16" in capsys.readouterr().out) != has_bf16
    assert about == {**ABOUT, "class_names": list(STREET_NAMES)}


def test_bf16_is_judged_on_no_processor_without_it(tmp_path, monkeypatch):
    write_model(tmp_path / "m.onnx", ABOUT)
    monkeypatch.setattr("models.judging.runners.has_bf16", lambda: False)
    with pytest.raises(LookupError, match="would compute in f32"):
        load_detector(str(tmp_path / "m.onnx"), "openvino", "bf16")


def test_of_classes_of_pixels_the_check_of_precisions_is_of_miou(tmp_path, capsys, monkeypatch):
    # torch.export makes progress bars, unseen ones; each starts a thread to watch over it.
    monkeypatch.setattr(tqdm, "monitor_interval", 0, raising=False)
    network = deeplab_v3_plus("mobilenet_v2", 2, width=8, decoder_width=8, low_level=8)
    export_network(network, tmp_path / "m.onnx", (64, 96), ("road", "car"))
    write_scenes(tmp_path / "set", 2, (64, 96), seed=0)
    (tmp_path / "set" / "classes.json").write_text(
        json.dumps({"classes": [{"id": 0, "name": "road"}, {"id": 1, "name": "car"}]})
    )
    precision_check.main([str(tmp_path / "m.onnx"), "--data", str(tmp_path / "set")])
    check = description(tmp_path / "m.onnx")["precision_check"]
    judged = evaluate_segmentation(
        load_segmenter(str(tmp_path / "m.onnx"), "openvino"),
        read_masks(str(tmp_path / "set")).entries,
    )
    assert check["f32"] == pytest.approx(judged["mIoU"], abs=1e-4)
    assert check.keys() == set(precision_check.precisions_here())
    assert all(0 < score < 1 for score in check.values())
    assert "mean mIoU" in capsys.readouterr().out


def test_the_bundled_model_finds_the_vehicles_on_the_highway(shared_data):
    folder = shared_data / "det_highway_hand"
    merge = {"vehicle": ["car", "bus", "truck"]}
    street = load_detector("street")
    figures = evaluate.evaluate(street, folder / "instances.json", folder / "images", merge)
    assert figures["AP50"] >= 0.9
    assert tuple(street.class_names) == STREET_NAMES


def test_coco_has_eighty_different_names():
    assert len(set(COCO_NAMES)) == 80
