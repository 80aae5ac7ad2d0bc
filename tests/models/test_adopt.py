"""A foreign detector as a model file of ours: the same boxes, in every engine and in the line."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import evaluate
from models.adopt import EXIT_MODEL, KINDS, AdoptionError, adopt, main
from models.data.class_names import COCO_NAMES
from models.judging.detectors import load_detector
from models.judging.found import Found, suppress
from models.judging.runners import onnxruntime_runner, openvino_runner
from models.judging.yolox import YoloX, grid
from models.onnx_lint import lint
from pipeline.engines import load_engine
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings

SIDE = 64
CELLS = len(grid(SIDE)[0])


def small_yolox(classes: int = 3, ops: int = 11) -> onnx.ModelProto:
    """A head with the face of YOLOX: one convolution a stride, for one picture only."""
    rng = np.random.default_rng(0)
    nodes, weights, flat = [], [], []
    for stride in (8, 16, 32):
        weight = rng.normal(0, 0.004, (5 + classes, 3, stride, stride)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight * 8 / stride, f"w{stride}"))
        nodes += [
            helper.make_node(
                "Conv", ["images", f"w{stride}"], [f"m{stride}"], strides=[stride, stride]
            ),
            helper.make_node("Reshape", [f"m{stride}", "shape"], [f"f{stride}"]),
        ]
        flat.append(f"f{stride}")
    weights.append(numpy_helper.from_array(np.array([1, 5 + classes, -1]), "shape"))
    nodes += [
        helper.make_node("Concat", flat, ["columns"], axis=2),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Split", ["rows"], ["box", "sure"], axis=2, split=[4, 1 + classes]),
        helper.make_node("Sigmoid", ["sure"], ["chances"]),
        helper.make_node("Concat", ["box", "chances"], ["output"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, CELLS, 5 + classes])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", ops)], ir_version=6)


def pictures(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("load", [onnxruntime_runner, openvino_runner])
def test_a_batch_of_pictures_says_what_the_foreign_graph_says_of_each(load):
    foreign = small_yolox()
    adopted = adopt(foreign, KINDS["yolox"], ("a", "b", "c"))
    twin = YoloX(onnxruntime_runner(foreign.SerializeToString(), 1), SIDE)
    frames = pictures(3)
    outputs = load(adopted.SerializeToString(), threads=1)(frames)
    for frame, boxes, scores, labels, exact in zip(frames, *outputs, strict=True):
        wanted = twin.candidates(frame)
        found = scores > 0
        assert found.sum() == len(wanted.scores) > 30
        assert exact == (found.sum() <= len(scores))
        assert np.allclose(scores[found], wanted.scores, atol=1e-5)
        order, twins = (
            np.lexsort(np.c_[boxes[found], labels[found]].round(1).T),
            np.lexsort(np.c_[np.clip(wanted.boxes, 0, SIDE), wanted.class_ids].round(1).T),
        )
        assert np.allclose(boxes[found][order], np.clip(wanted.boxes, 0, SIDE)[twins], atol=0.01)
        assert (labels[found][order] == wanted.class_ids[twins]).all()


def test_the_foreign_model_is_left_as_it_is():
    foreign = small_yolox()
    before = foreign.SerializeToString()
    adopt(foreign, KINDS["yolox"], ("a", "b", "c"))
    assert foreign.SerializeToString() == before


def test_other_files_are_refused():
    with pytest.raises(AdoptionError, match="3 classes, 80 names"):
        adopt(small_yolox(), KINDS["yolox"], COCO_NAMES)
    more = small_yolox()
    more.graph.output.append(helper.make_tensor_value_info("box", TensorProto.FLOAT, None))
    with pytest.raises(AdoptionError, match="got 1 and 2"):
        adopt(more, KINDS["yolox"], ("a", "b", "c"))


def test_what_is_no_network_ends_with_one_sentence(tmp_path: Path, capsys):
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    words = [str(tmp_path / "no.onnx"), "--kind", "yolox", "--out", str(tmp_path / "out.onnx")]
    assert main(words) == EXIT_MODEL
    assert "cannot adopt" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_the_folder_to_write_into_is_made(tmp_path: Path):
    onnx.save(small_yolox(), tmp_path / "small.onnx")
    out = tmp_path / "new" / "m.onnx"
    words = [str(tmp_path / "small.onnx"), "--kind", "yolox", "--names", "a,b,c"]
    assert main([*words, "--out", str(out)]) == 0
    assert read_model_file(out).class_names == ("a", "b", "c")


@pytest.fixture(scope="module")
def nano(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOX-nano, adopted by the command line."""
    out = tmp_path_factory.mktemp("adopted") / "nano.onnx"
    foreign = shared_data / "weights" / "yolox_nano_coco_416.onnx"
    assert main([str(foreign), "--kind", "yolox", "--names", "coco", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_engines_of_the_line_take_the_adopted_file_in_batches(nano, engine):
    model = read_model_file(nano)
    assert (model.input_size_hw, model.fit, model.class_names) == (
        (416, 416),
        "letterbox",
        COCO_NAMES,
    )
    images = np.zeros((2, 416, 416, 3), np.uint8)
    with load_engine(model, EngineSettings(name=engine, batch=2, threads=1)) as ready:
        outputs = ready.infer(images)
    assert outputs["boxes"].shape == (2, 1000, 4)


def test_the_adopted_file_is_one_that_tensorrt_imports(nano):
    assert lint(nano) == []


class TopLeft:
    """The adopted file with pictures laid as its authors trained it and our adapter does."""

    class_names = COCO_NAMES

    def __init__(self, file: Path) -> None:
        self.run = onnxruntime_runner(file)

    def detect(self, image: np.ndarray) -> Found:
        scale = 416 / max(image.shape[:2])
        width, height = (int(side * scale) for side in image.shape[1::-1])
        frame = np.full((1, 416, 416, 3), 114, np.uint8)
        frame[0, :height, :width] = cv2.resize(image, (width, height))
        boxes, scores, labels, _ = (out[0] for out in self.run(frame))
        return suppress(Found(boxes / scale, scores, labels), 0.65, 100)


@pytest.mark.slow
def test_the_adopted_file_reaches_the_figures_of_the_adapter(nano, shared_data):
    folder = shared_data / "eval_formats" / "voc100"
    truth = folder / "gts" / "coco_format_v1" / "instances_default.json"
    foreign = load_detector(str(shared_data / "weights" / "yolox_nano_coco_416.onnx"))
    adapter, alike, usual = (
        evaluate.evaluate(detector, truth, folder / "images")
        for detector in (foreign, TopLeft(nano), load_detector(str(nano)))
    )
    for figure in ("AP", "AP50", "AP75"):
        assert alike[figure] == pytest.approx(adapter[figure], abs=0.001)
        # The line lays pictures in the middle and shrinks them by areas: 0.505 against 0.512 AP.
        assert usual[figure] == pytest.approx(adapter[figure], abs=0.015)
