"""Reading what a model file says about itself, and refusing what is none."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pipeline.commands import model_path
from pipeline.errors import EngineError, ModelMismatch, ModelNotFound
from pipeline.model_file.reading import read_model_file
from tests.pipeline.model_files import ENTRY, write_model


def test_a_model_file_gives_back_what_onnx_wrote_into_it(tmp_path: Path) -> None:
    check = {"f32": 0.71, "bf16": 0.709}
    path = write_model(tmp_path / "m.onnx", {"precision_check": check})
    model = read_model_file(path)
    assert model.path == path
    assert list(model.class_names) == ENTRY["class_names"]
    assert model.input_size_hw == (32, 48)
    assert (model.output_form, model.fit, model.task) == ("candidates", "letterbox", "detection")
    assert model.outputs == ("boxes", "scores", "labels", "exact")
    assert (model.score_threshold, model.nms_iou, model.max_detections) == (0.5, 0.5, 100)
    assert model.precision_check == check


def test_a_model_file_may_have_several_input_sizes(tmp_path: Path) -> None:
    assert read_model_file(write_model(tmp_path / "m.onnx")).input_sizes_hw == ((32, 48),)
    path = write_model(tmp_path / "m.onnx", {"input_sizes_hw": [[32, 48], [16, 24]]})
    assert read_model_file(path).input_sizes_hw == ((32, 48), (16, 24))


def test_a_model_file_says_in_which_arithmetic_its_layers_compute(tmp_path: Path) -> None:
    assert read_model_file(write_model(tmp_path / "m.onnx")).arithmetic == "f32"
    rounded = read_model_file(write_model(tmp_path / "q.onnx", {"arithmetic": "int8"}))
    assert rounded.arithmetic == "int8"
    with pytest.raises(ModelMismatch, match="arithmetic is 'int4'"):
        read_model_file(write_model(tmp_path / "odd.onnx", {"arithmetic": "int4"}))


def test_a_model_file_without_a_precision_check_has_none(tmp_path: Path) -> None:
    assert read_model_file(write_model(tmp_path / "m.onnx")).precision_check is None


def test_a_hundred_megabytes_are_not_read_to_find_the_entry(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    small = path.read_bytes()
    # A field 999 of 100 MB in front, written as a hole: reading it would show in the memory.
    size = 100 << 20
    key, length = b"\xba\x3e", b"\x80\x80\x80\x32"
    with path.open("wb") as file:
        file.write(key + length)
        file.seek(size, os.SEEK_CUR)
        file.write(small)
    assert read_model_file(path).max_detections == 100


def test_a_missing_file_says_what_to_give_instead(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"bundled model \(.*street.*\) or the path") as caught:
        read_model_file(tmp_path / "none.onnx")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.exit_code == 4


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch, match="is a folder"):
        read_model_file(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is a text that somebody named .onnx\n" * 50,
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"\x08\x01" * 200_000,
        bytes(range(256)) * 40,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x1f\x8b\x08" + bytes(range(200)),
    ],
    ids=["empty", "text", "zeros", "ones", "endless", "pattern", "png", "gzip"],
)
def test_garbage_is_refused_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelMismatch, match=r"export it again|models\.export"):
        read_model_file(path)


def test_every_truncation_of_a_model_file_is_refused(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "m.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelMismatch):
            read_model_file(cut)


def test_an_onnx_file_of_somebody_else_is_not_ours(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", key="somebody")
    with pytest.raises(ModelMismatch, match=r"not one of our model files.*models\.export"):
        read_model_file(path)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"schema": 2}, "schema 2, this program reads 1"),
        ({"task": "poses"}, "task is 'poses', known are detection, instance, semantic"),
        ({"output_form": "raw"}, "output_form is 'raw'"),
        ({"fit": "crop"}, "fit is 'crop', known are letterbox, stretch"),
        ({"outputs": ["boxes", "scores"]}, "needs outputs ['labels']"),
        ({"output_form": "detections"}, "needs outputs ['count']"),
        ({"class_names": []}, "class names"),
        ({"input_size_hw": [320]}, "cannot be read"),
        ({"input_size_hw": [0, 576]}, "input size"),
        ({"input_sizes_hw": [[16, 24]]}, "does not begin with input_size_hw"),
        ({"input_sizes_hw": [[32, 48], [48, 32]]}, "smaller than the one before"),
        ({"input_sizes_hw": [[32, 48], [-16, -24]]}, "smaller than the one before"),
        ({"input_sizes_hw": []}, "cannot be read"),
        ({"score_threshold": 50}, "between 0 and 1"),
        ({"class_names": 6}, "cannot be read"),
        ({"precision_check": [1]}, "cannot be read"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: dict[str, object], says: str) -> None:
    with pytest.raises(ModelMismatch, match=re.escape(says)):
        read_model_file(write_model(tmp_path / "m.onnx", entry))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes().replace(b'"nms_iou"', b'"nms_iov"'))
    with pytest.raises(ModelMismatch, match="lacks 'nms_iou'"):
        read_model_file(path)


@pytest.mark.parametrize("text", [b"{", b"[]", b"null", b"\xff\xfe"])
def test_an_entry_that_is_no_json_object_is_refused(tmp_path: Path, text: bytes) -> None:
    path = write_model(tmp_path / "m.onnx")
    written = json.dumps(ENTRY).encode()
    path.write_bytes(path.read_bytes().replace(written, text.ljust(len(written))))
    with pytest.raises(ModelMismatch, match="cannot be read"):
        read_model_file(path)


@pytest.mark.parametrize("name", ["stret", "stret.onnx", "Street"])
def test_a_mistyped_name_is_told_with_the_nearest_bundled_one(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"did you mean 'street'.* bundled model .*street_int8"):
        read_model_file(model_path(name))


def test_a_path_is_not_taken_for_a_mistyped_name(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        read_model_file(tmp_path / "stret.onnx")
    assert "did you mean" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_a_file_that_may_not_be_read_is_an_engine_error(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    path.chmod(0)
    with pytest.raises(EngineError, match="cannot read the model file"):
        read_model_file(path)
