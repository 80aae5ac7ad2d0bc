"""Labelled pictures, the average precision on them, and plans of TensorRT that lose some of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.evaluate import evaluate
from models.judging.detectors import load_detector
from pipeline import build
from pipeline.commands import MODELS
from pipeline.engines import Engine, load_engine
from pipeline.engines.parity import LabelledAp
from pipeline.errors import ConfigError
from pipeline.labelled import mean_ap, read_labelled_set
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from pipeline.sources.street.dataset import write
from tests.pipeline.gpu import StrawGpu, install
from tests.pipeline.model_files import CLASSES, ENTRY
from tests.pipeline.task_files import write_regional, write_semantic

HW = 32, 48
BOX = [8.0, 4.0, 30.0, 28.0]


def write_one_car(path: Path) -> ModelFile:
    """A model file that finds the same car in every picture."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["mean"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["grey", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "sure"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "car"], ["labels"]),
        helper.make_node("Unsqueeze", ["zero", "last"], ["cell"]),
        helper.make_node("Add", ["cell", "box"], ["boxes"]),
        helper.make_node("Less", ["mean_of", "much"], ["exact"]),
    ]
    nodes.insert(2, helper.make_node("ReduceMax", ["mean"], ["mean_of"], axes=[1], keepdims=0))
    constants = {
        "nothing": np.float32(0),
        "sure": np.float32(0.9),
        "much": np.float32(1e6),
        "car": np.int64(CLASSES.index("car")),
        "last": np.array([2]),
        "box": np.array([[BOX]], np.float32),
    }
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "car",
        [value("frames", TensorProto.UINT8, ["n", *HW, 3])],
        [
            value("boxes", TensorProto.FLOAT, ["n", 1, 4]),
            value("scores", TensorProto.FLOAT, ["n", 1]),
            value("labels", TensorProto.INT64, ["n", 1]),
            value("exact", TensorProto.BOOL, ["n"]),
        ],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(file, {"boxstream": json.dumps(ENTRY)})
    onnx.save(file, path)
    return read_model_file(path)


def content() -> dict[str, Any]:
    """Labels of five pictures, the car in each."""
    x1, y1, x2, y2 = BOX
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(5)],
        "categories": [{"id": 7, "name": "vehicle", "coco_id": 3}, {"id": 8, "name": "tree"}],
        "annotations": [
            {"image_id": i, "category_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]} for i in range(5)
        ],
    }


def write_set(folder: Path, labels: dict[str, Any], light: int = 40) -> str:
    """Write them with dark pictures; returns what ``--data`` is to be given."""
    (folder / "images").mkdir(parents=True)
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, light, (*HW, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), noise)
    (folder / "val.json").write_text(json.dumps(labels))
    return f"{folder / 'val.json'}:{folder / 'images'}"


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return write_one_car(tmp_path / "car.onnx")


@pytest.fixture
def straw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrawGpu:
    return install(monkeypatch, tmp_path / "plans")


def f32(model: ModelFile) -> Engine:
    return load_engine(model, EngineSettings(name="onnxruntime", precision="f32", batch=2))


# What is measured


def test_the_figure_is_that_of_the_models_own_evaluation(tmp_path: Path) -> None:
    """Crowds, categories that the model does not know, and numbers of COCO included."""
    write(tmp_path, images=6, first_seed=3, per_street=3, sizes_hw=[(270, 480), (200, 200)])
    labels = json.loads((tmp_path / "instances.json").read_text())
    assert any(one["iscrowd"] for one in labels["annotations"])
    renamed = {"car": "automobile", "truck": "lorry"}
    for one in labels["categories"]:
        one["name"] = renamed.get(one["name"], one["name"])
        if one["name"] == "lorry":
            one["coco_id"] = None
    (tmp_path / "instances.json").write_text(json.dumps(labels))
    street = read_model_file(MODELS["street"])
    labelled = read_labelled_set(f"{tmp_path / 'instances.json'}:{tmp_path / 'images'}", street)
    expected = evaluate(
        load_detector("street", "onnxruntime"), tmp_path / "instances.json", tmp_path / "images"
    )
    with f32(street) as engine:
        found = mean_ap(engine, street.input_size_hw, [labelled])
    assert 0.2 < found < 0.99
    assert found == pytest.approx(expected["AP"], abs=1e-6)


def test_several_sets_count_alike(tmp_path: Path, model: ModelFile) -> None:
    right = read_labelled_set(write_set(tmp_path / "right", content()), model)
    moved = content()
    for one in moved["annotations"]:
        one["bbox"][0] += 40
    wrong = read_labelled_set(write_set(tmp_path / "wrong", moved), model)
    with f32(model) as engine:
        assert mean_ap(engine, HW, [right]) == pytest.approx(1)
        assert mean_ap(engine, HW, [right, wrong]) == pytest.approx(0.5)


# What is no set


def lacking(part: str, key: str | None = None) -> Callable[[dict[str, Any]], None]:
    def change(labels: dict[str, Any]) -> None:
        if key is None:
            del labels[part]
        else:
            del labels[part][0][key]

    return change


def foreign_picture(labels: dict[str, Any]) -> None:
    labels["annotations"][0]["image_id"] = 77


def no_box(labels: dict[str, Any]) -> None:
    labels["annotations"][0]["bbox"] = [1, 2, 3]


def other_classes(labels: dict[str, Any]) -> None:
    labels["categories"][0]["coco_id"] = None


def nothing_but_crowds(labels: dict[str, Any]) -> None:
    labels["annotations"] = [one | {"iscrowd": 1} for one in labels["annotations"]]


def no_pictures(labels: dict[str, Any]) -> None:
    labels["images"], labels["annotations"] = [], []


def missing_picture(labels: dict[str, Any]) -> None:
    labels["images"][3]["file_name"] = "elsewhere.png"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lacking("images"), "has no images with id, file_name"),
        (lacking("annotations", "category_id"), "has no annotations with image_id"),
        (foreign_picture, "picture 77 with the category 7, and does not list both"),
        (no_box, "a bbox in '0.png' that is not x, y, width and height"),
        (other_classes, r"none of the classes of car.onnx \(person, car, bus\)"),
        (nothing_but_crowds, "labels no object"),
        (no_pictures, "labels no object"),
        (missing_picture, "there is no picture .*elsewhere.png"),
    ],
)
def test_what_is_no_labelled_set_is_an_error_with_a_remedy(
    tmp_path: Path, model: ModelFile, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    labels = content()
    change(labels)
    with pytest.raises(ConfigError, match=says):
        read_labelled_set(write_set(tmp_path / "set", labels), model)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{}/val.json", "wants VAL.json:IMAGES"),
        ("{}/none.json:{}", "No such file"),
        ("{}/car.onnx:{}", "is no JSON"),
        ("{}/list.json:{}", "is no COCO json"),
    ],
)
def test_a_set_that_cannot_be_read_ends_the_command_with_2(
    straw: StrawGpu,
    model: ModelFile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    says: str,
) -> None:
    (tmp_path / "list.json").write_text("[1, 2]")
    given = words.replace("{}", str(tmp_path))
    assert build.main([str(model.path), "--data", given]) == 2
    assert says in capsys.readouterr().err
    assert straw.trt.built == []


def test_a_broken_picture_ends_the_command_with_2(
    straw: StrawGpu, model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write_set(tmp_path / "set", content())
    (tmp_path / "set" / "images" / "2.png").write_bytes(b"no picture")
    assert build.main([str(model.path), "--data", given]) == 2
    assert "2.png' cannot be read; replace it" in capsys.readouterr().err
    assert straw.cuda.left() == {}


@pytest.mark.parametrize("other", [write_semantic, write_regional])
def test_a_model_that_has_no_average_precision_of_its_own_takes_no_set(
    tmp_path: Path, other: Callable[[Path], Path]
) -> None:
    with pytest.raises(ConfigError, match="leave --data out"):
        read_labelled_set("val.json:images", read_model_file(other(tmp_path / "m.onnx")))


# What becomes of a plan


def test_what_a_plan_reaches_is_said_kept_and_told_again(
    straw: StrawGpu, model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [write_set(tmp_path / name, content()) for name in ("one", "other")]
    assert build.main([str(model.path), "--data", *sets]) == 0
    said = "AP 1.0000 of 1.0000 on 2 sets"
    assert f"{said} at 32x48, by onnxruntime in f32" in capsys.readouterr().err
    assert straw.trt.built == [("tf32", (1, 2, 4))]
    with load_engine(model, EngineSettings(name="tensorrt", batch=2)) as engine:
        assert engine.reason.endswith(f"its plan was in the cache ({said})")
    (manifest,) = Path(straw.folder).rglob("manifest.json")
    kept = json.loads(manifest.read_text())
    assert (kept["labelled"]["found"], kept["labelled"]["judge"]) == (1.0, "onnxruntime")
    assert kept["parity"].startswith("10 boxes")  # what was there before


def test_a_plan_that_loses_too_much_is_refused_and_the_next_precision_tried(
    straw: StrawGpu, model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straw.trt.faults.dark["tf32"] = -1.0
    given = write_set(tmp_path / "set", content())
    assert build.main([str(model.path), "--anew", "--data", given]) == 0
    assert straw.trt.built == [("tf32", (1, 2, 4)), ("f32", (1, 2, 4))]
    assert "AP 1.0000 of 1.0000 on 1 set" in capsys.readouterr().err
    with load_engine(model, EngineSettings(name="tensorrt", batch=4)) as engine:
        assert engine.precision == "f32"
    assert len(straw.trt.built) == 2
    every = [json.loads(path.read_text()) for path in straw.folder.rglob("manifest.json")]
    (refused,) = (kept for kept in every if kept["refused"])
    assert refused["labelled"]["found"] == 0.0
    assert refused["parity"].startswith("10 boxes") and refused["judge"] == "onnxruntime"
    assert len(list(straw.folder.rglob("plan"))) == 1, "what may not work takes no room"


def test_where_every_plan_loses_too_much_the_command_ends_with_4_and_both_figures(
    straw: StrawGpu, model: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straw.trt.faults.dark |= {"tf32": -1.0, "f32": -1.0}
    given = write_set(tmp_path / "set", content())
    for _ in range(2):  # the second time from the cache
        assert build.main([str(model.path), "--data", given]) == 4
        said = capsys.readouterr().err
        assert said.count("AP 0.0000 of 1.0000 on 1 set, which onnxruntime reaches in f32") == 2
        assert "--anew" in said
    assert len(straw.trt.built) == 2
    assert straw.cuda.left() == {}


@pytest.mark.parametrize(("found", "is_near"), [(0.43, True), (0.4235, True), (0.4225, False)])
def test_half_a_point_may_be_lost(found: float, is_near: bool) -> None:
    assert LabelledAp(found, 0.428, "onnxruntime", ("val.json",)).is_near is is_near
