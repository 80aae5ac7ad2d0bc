"""The command, on a toy of two sizes and on the bundled files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from models import quantize
from models.judging.detectors import load_detector
from models.judging.segmenters import load_segmenter
from models.model_file.input_sizes import at_size, combine, sizes_of
from models.model_file.onnx_file import halve_weights, write
from models.model_file.reading import description
from models.onnx_lint import lint
from models.quantization.agreement import objects_agree
from models.quantization.layers import constants
from pipeline.engines import load_engine, ov
from pipeline.engines.trt_graph import operators, static_graph
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings
from pipeline.sources.street import Street
from tests.models.quantization.toys import SIZE_HW, noise_frames, toy, write_toy

ZOO = Path(__file__).parents[3] / "models" / "zoo"
SMALL_HW = (16, 24)
OPENVINO = ov  # imported before any test, and without the tools that leave a thread behind


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
        given = static_graph(read_model_file(out), size)  # what TensorRT is given
        assert {"QuantizeLinear", "DequantizeLinear"} < set(operators(given))
    assert lint(out) == []


def test_the_line_runs_it_and_says_what_it_is(tmp_path, folder, labelled, monkeypatch):
    # The sums of three small layers are right wherever this runs.
    monkeypatch.setattr(ov, "processor_flags", lambda: "avx512_vnni")
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


def drawn(count: int, size_hw: tuple[int, int]) -> list[np.ndarray]:
    street = Street(seed=903, size_hw=size_hw, fps=1.0, seconds=2.0 * count)
    return [street.frame(2 * i).image for i in range(count)]


@pytest.mark.slow
def test_of_the_road_model_two_engines_find_the_same_in_int8(tmp_path):
    original = quantize.Original(ZOO / "road_segmentation.onnx")
    frames = drawn(4, (288, 512))
    write(
        quantize.Calibrated(original, [frames]).rounded(frozenset()),
        original.about,
        tmp_path / "q.onnx",
    )
    plain, *rounded = (
        load_segmenter(str(file), engine)
        for file, engine in (
            (original.path, "openvino"),
            (tmp_path / "q.onnx", "openvino"),
            (tmp_path / "q.onnx", "onnxruntime"),
        )
    )
    wanted, by_openvino, by_onnxruntime = (
        np.stack([one.segment(frame) for frame in frames[:2]]) for one in (plain, *rounded)
    )
    assert (by_openvino == by_onnxruntime).mean() > 0.9
    assert (by_openvino == wanted).mean() > 0.85


@pytest.mark.slow
def test_the_street_detector_in_int8_finds_what_it_found_at_both_sizes(tmp_path):
    original = quantize.Original(ZOO / "street.onnx")
    frames = drawn(4, (320, 576))
    proto = quantize.Calibrated(original, original.fitted(frames)).rounded(frozenset())
    write(proto, original.about | {"arithmetic": "int8"}, tmp_path / "q.onnx")
    assert lint(tmp_path / "q.onnx") == []
    assert (tmp_path / "q.onnx").stat().st_size < 0.6 * original.path.stat().st_size
    for size in ((320, 576), (224, 416)):
        plain, rounded = (
            load_detector(str(file), "openvino", input_hw=size)
            for file in (original.path, tmp_path / "q.onnx")
        )
        agreement = objects_agree(plain, rounded, frames, sure=0.5, most_score=0.1, least_iou=0.8)
        assert agreement.compared > 8 and agreement.share > 0.8


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
        (["--calibrate", "PICTURES", "--data", "no_set"], 2, "no classes.json in no_set"),
        (["--float16", "--keep-float", "trunk"], 2, "no layer 'trunk'"),
    ],
)
def test_wrong_words_end_with_a_reason_before_anything_is_calibrated(
    tmp_path, folder, capsys, monkeypatch, words, code, reason
):
    monkeypatch.delattr(quantize, "Calibrated")
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


def test_the_original_is_not_written_over(tmp_path, folder, capsys):
    path = write_toy(tmp_path / "m.onnx")
    before = path.read_bytes()
    assert run(path, path, "--calibrate", folder) == 2
    assert "is the original itself" in capsys.readouterr().err and path.read_bytes() == before


def test_what_is_no_onnx_file_ends_with_code_4(tmp_path, folder, capsys):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    assert run(tmp_path / "m.onnx", tmp_path / "q.onnx", "--calibrate", folder) == 4
    assert "error: " in capsys.readouterr().err


def test_int8_without_frames_is_a_question_of_arguments(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(write_toy(tmp_path / "m.onnx"), tmp_path / "q.onnx")
    assert "--calibrate" in capsys.readouterr().err
