"""Which file a rounded one was made from, and how that is found out afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import onnx
import pytest

from models import precision_check, quantize
from models.model_file.input_sizes import combine
from models.model_file.onnx_file import content_sha256, halve_weights
from models.model_file.reading import description
from models.precision_check import precisions_here, write_entry
from models.quantization.origin import is_made_from
from pipeline.engines import load_engine
from pipeline.model_file import content
from pipeline.model_file.reading import read_model_file
from pipeline.settings import EngineSettings
from tests.models.quantization.toys import SIZE_HW, noise_frames, toy, write_toy

ZOO = Path(__file__).parents[3] / "models" / "zoo"
SMALL_HW = (16, 24)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i, frame in enumerate(noise_frames(4)):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    return folder


def write_sizes(path: Path, *sizes, seed: int = 0) -> Path:
    graphs = [(size, toy(size, seed)) for size in sizes]
    for _, graph in graphs:
        halve_weights(graph)
    about = {"input_sizes_hw": sizes} if len(sizes) > 1 else {}
    return write_toy(path, combine(graphs), **about)


def rounded(original: Path, calibration: Path, *words: str) -> Path:
    out = original.with_name(f"{original.stem}_int8.onnx")
    given = [str(original), "--out", str(out), "--calibrate", str(calibration), *words]
    assert quantize.main(given) == 0
    return out


def forget(file: Path) -> None:
    """As files were before they said it."""
    model = onnx.load(file)
    about = {key: value for key, value in description(file).items() if key != "made_from"}
    onnx.helper.set_model_props(model, {"boxstream": json.dumps(about)})
    onnx.save(model, file)


def change(file: Path, how) -> Path:
    model = onnx.load(file)
    how(model)
    other = file.with_name("other.onnx")
    onnx.save(model, other)
    return other


@pytest.mark.parametrize("words", [(), ("--keep-float", "depthwise")])
@pytest.mark.parametrize("sizes", [(SIZE_HW,), (SIZE_HW, SMALL_HW)])
def test_a_file_says_and_shows_of_which_it_was_made(tmp_path, calibration, sizes, words):
    original = write_sizes(tmp_path / "m.onnx", *sizes)
    out = rounded(original, calibration, *words)
    assert read_model_file(out).made_from == content.content_sha256(original)
    assert is_made_from(original, out)
    assert not is_made_from(write_sizes(tmp_path / "trained.onnx", *sizes, seed=1), out)
    assert not is_made_from(original, original)
    assert not is_made_from(write_sizes(tmp_path / "more.onnx", *sizes, (8, 16)), out)


def test_equal_weights_in_another_graph_do_not_do(tmp_path, calibration):
    original = write_toy(tmp_path / "m.onnx")
    out = rounded(original, calibration)

    def otherwise(model):
        model.graph.node[-3].attribute[0].i = 2  # of the last ArgMax

    assert not is_made_from(change(original, otherwise), out)


def test_a_float_layer_that_was_trained_on_does_not_do(tmp_path, calibration):
    original = write_toy(tmp_path / "m.onnx")
    out = rounded(original, calibration)

    def later(model):
        (head,) = (t for t in model.graph.initializer if t.name == "head.weight")
        values = onnx.numpy_helper.to_array(head) * 1.001
        head.CopyFrom(onnx.numpy_helper.from_array(values, head.name))

    assert not is_made_from(change(original, later), out)


def test_both_sides_know_a_file_by_the_same_digest_whatever_its_metadata(tmp_path):
    for path in (ZOO / "street.onnx", write_sizes(tmp_path / "m.onnx", SIZE_HW, SMALL_HW)):
        assert content_sha256(path) == content.content_sha256(path)
    before = content_sha256(path)
    write_entry(path, {"precision_check": {"f32": 0.5, "bf16": 0.5}})
    assert content_sha256(path) == before
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match="cut short"):
        content_sha256(tmp_path / "cut.onnx")


def test_the_line_takes_what_was_made_where_it_pays(tmp_path, calibration, monkeypatch):
    original = write_toy(tmp_path / "m.onnx")
    out = rounded(original, calibration)
    write_entry(out, {"precision_check": {"f32": 0.42, "bf16": 0.42, "original": 0.42}})
    monkeypatch.setattr("pipeline.engines.ov.processor_flags", lambda: "avx512_vnni")
    with load_engine(read_model_file(original), EngineSettings(cache=None)) as engine:
        assert engine.model.path == out and engine.precision.startswith("int8+")


# The command


def test_a_file_that_does_not_say_it_is_told_of_which_it_was_made(tmp_path, calibration, capsys):
    original = write_toy(tmp_path / "m.onnx")
    out = rounded(original, calibration)
    write_entry(out, {"precision_check": {"f32": 0.4, "bf16": 0.4}})
    before = description(out)
    forget(out)
    assert precision_check.main([str(out), "--original", str(original)]) == 0
    assert "m_int8.onnx: made from m.onnx" in capsys.readouterr().out
    assert description(out) == before  # what was measured before stays


def test_a_stranger_is_refused_with_code_6_and_not_written(tmp_path, calibration, capsys):
    out = rounded(write_toy(tmp_path / "m.onnx"), calibration)
    stranger, before = write_sizes(tmp_path / "other.onnx", SIZE_HW, seed=3), out.read_bytes()
    assert precision_check.main([str(out), "--original", str(stranger)]) == 6
    assert "was not made from" in capsys.readouterr().out
    assert out.read_bytes() == before


def test_with_labelled_sets_the_original_is_measured_as_well(tmp_path, calibration, capsys):
    original = write_toy(tmp_path / "m.onnx")
    out = rounded(original, calibration)
    root = tmp_path / "set"
    shutil.copytree(calibration, root / "images")
    (root / "labels").mkdir()
    for picture in calibration.iterdir():
        labels = cv2.imread(str(picture))[:, :, 0] % 3
        cv2.imwrite(str(root / "labels" / picture.name), labels)
    classes = [{"id": i, "name": name} for i, name in enumerate(["road", "car", "sky"])]
    (root / "classes.json").write_text(json.dumps({"classes": classes}))
    words = [str(out), "--original", str(original), "--data", str(root)]
    assert precision_check.main(words) == 0
    check = read_model_file(out).precision_check
    assert check is not None and set(check) == {*precisions_here(), "original"}
    assert precision_check.main([str(original), "--data", str(root)]) == 0
    assert check["original"] == description(original)["precision_check"]["f32"]
    assert read_model_file(out).made_from == content.content_sha256(original)


def test_without_anything_to_do_it_is_a_question_of_arguments(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        precision_check.main([str(write_toy(tmp_path / "m.onnx"))])
