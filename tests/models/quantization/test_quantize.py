"""The command, on a toy of two sizes and on the bundled files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from models import quantize
from models.input_sizes import at_size, combine, sizes_of
from models.onnx_file import halve_weights
from models.onnx_lint import lint
from models.precision_check import description
from models.quantization.layers import constants
from models.segmenters import load_segmenter
from pipeline.engines import load_engine
from pipeline.model_file import read_model_file
from pipeline.settings import EngineSettings
from tests.models.quantization.toys import SIZE_HW, noise_frames, toy, write_toy

SMALL_HW = (16, 24)


def write_two_sizes(path: Path) -> Path:
    graphs = [(size, toy(size)) for size in (SIZE_HW, SMALL_HW)]
    for _, graph in graphs:
        halve_weights(graph)
    return write_toy(path, combine(graphs), input_sizes_hw=[SIZE_HW, SMALL_HW])


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures to calibrate on."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, frame in enumerate(noise_frames(6)):
        cv2.imwrite(str(pictures / f"{i}.png"), frame)
    return pictures


@pytest.fixture
def labelled(tmp_path) -> Path:
    """Masks that are what the toy itself sees, so that its mIoU is 1."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    classes = [{"id": i, "name": name} for i, name in enumerate(["road", "car", "sky"])]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    original = load_segmenter(str(write_toy(tmp_path / "judge.onnx")), "openvino")
    for i, frame in enumerate(noise_frames(6, seed=5)):
        cv2.imwrite(str(root / "images" / f"{i}.png"), frame[:, :, ::-1])
        cv2.imwrite(str(root / "labels" / f"{i}.png"), original.segment(frame))
    return root


def run(path: Path, out: Path, *words: object) -> int:
    return quantize.main([str(path), "--out", str(out), *map(str, words)])


def test_a_file_of_two_sizes_keeps_both_and_stores_its_weights_once_as_int8(tmp_path, folder):
    path, out = write_two_sizes(tmp_path / "toy.onnx"), tmp_path / "toy_int8.onnx"
    assert run(path, out, "--calibrate", folder) == 0
    model = onnx.load(out)
    assert sizes_of(model) == [SIZE_HW, SMALL_HW]
    shared = {t.name for t in model.graph.initializer}
    assert {"project.weight_int8", "project.weight_scale", "project.bias"} <= shared
    for size in sizes_of(model):
        single = constants(at_size(model, size))
        assert single["project.weight_int8"].dtype == np.int8
        assert single["head.weight_half"].dtype == np.float16
    assert lint(out) == []


def test_the_line_runs_it_and_says_what_it_is(tmp_path, folder, labelled):
    path, out = write_toy(tmp_path / "toy.onnx"), tmp_path / "toy_int8.onnx"
    assert run(path, out, "--calibrate", folder, "--data", labelled, "--most-loss", 0.1) == 0
    model, images = read_model_file(out), np.stack(noise_frames(1, seed=7))
    assert model.arithmetic == "int8"
    assert model.precision_check is not None and model.precision_check["original"] > 0.99
    for name in ("openvino", "onnxruntime"):
        settings = EngineSettings(name=name, batch=1, cache=None)
        with (
            load_engine(model, settings) as rounded,
            load_engine(read_model_file(path), settings) as plain,
        ):
            assert "int8 layers as the model file has them (mIoU" in rounded.reason
            same = rounded.infer(images)["classes"] == plain.infer(images)["classes"]
            assert same.mean() > 0.9


def test_the_verdict_and_the_noisiest_layers_are_shown(tmp_path, folder, capsys):
    assert run(write_toy(tmp_path / "m.onnx"), tmp_path / "q.onnx", "--calibrate", folder) == 0
    told = capsys.readouterr().out
    assert "3 layers in int8" in told and "found alike" in told
    assert "depthwise" in told and "MB instead of" in told


def test_layers_that_are_to_stay_float_do(tmp_path, folder):
    out = tmp_path / "q.onnx"
    words = ("--calibrate", folder, "--keep-float", "depthwise")
    assert run(write_toy(tmp_path / "m.onnx"), out, *words) == 0
    stored = constants(onnx.load(out))
    assert "depthwise.weight" in stored and "project.weight_int8" in stored
    assert description(out)["rounding"]["float_layers"] == ["depthwise"]


def test_what_loses_too_much_is_refused_with_code_6_and_leaves_no_file(
    tmp_path, folder, labelled, capsys
):
    out = tmp_path / "q.onnx"
    words = ("--calibrate", folder, "--data", labelled, "--most-loss", -1)
    assert run(write_toy(tmp_path / "m.onnx"), out, *words) == 6
    told = capsys.readouterr()
    assert not out.exists()
    assert "int8 loses too much" in told.err and "--keep-float" in told.err
    assert "stem" in told.out  # the table of layers


def test_float16_needs_no_frames_and_is_compared_where_there_are_some(tmp_path, folder, capsys):
    path = write_two_sizes(tmp_path / "toy.onnx")
    assert run(path, tmp_path / "h.onnx", "--float16") == 0
    assert read_model_file(tmp_path / "h.onnx").arithmetic == "f16"
    assert lint(tmp_path / "h.onnx") == []
    assert run(path, tmp_path / "h.onnx", "--float16", "--calibrate", folder) == 0
    assert "float16: " in capsys.readouterr().out
    assert description(tmp_path / "h.onnx")["rounding"]["agreement"] > 0.99


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--calibrate", "gone.mp4"], 2, "there is no gone.mp4"),
        (["--calibrate", "PICTURES", "--keep-float", "trunk"], 2, "no layer 'trunk'"),
    ],
)
def test_wrong_words_end_with_a_reason(tmp_path, folder, capsys, words, code, reason):
    words = [str(folder) if word == "PICTURES" else word for word in words]
    assert run(write_toy(tmp_path / "m.onnx"), tmp_path / "q.onnx", *words) == code
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("about", "reason"),
    [({"arithmetic": "int8"}, "int8 already"), ({"proposer": "selective_search"}, "needs regions")],
)
def test_files_that_cannot_be_rounded_end_with_code_4(tmp_path, folder, capsys, about, reason):
    path = write_toy(tmp_path / "m.onnx", **about)
    assert run(path, tmp_path / "q.onnx", "--calibrate", folder) == 4
    assert reason in capsys.readouterr().err


def test_int8_without_frames_is_a_question_of_arguments(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(write_toy(tmp_path / "m.onnx"), tmp_path / "q.onnx")
    assert "--calibrate" in capsys.readouterr().err
