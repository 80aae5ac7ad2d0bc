"""Commands end with a reason where what they are given is wrong, and with a traceback else."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from models.bad_input import told
from models.data.pictures import DataError
from models.model_file.reading import ZOO
from models.published import state_in
from models.training.starting_weights import SettingsError
from tests.clips import write_clip


@pytest.mark.parametrize(
    "error", [DataError("no set.json"), SettingsError("no trunk"), FileNotFoundError("no a.pth")]
)
def test_the_reason_is_told_in_one_line(error: Exception, capsys) -> None:
    with pytest.raises(SystemExit) as end, told():
        raise error
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), told():
        raise KeyError("boxes")


def test_of_a_checkpoint_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    last, average = ({"weight": torch.full((2,), value)} for value in (1.0, 2.0))
    torch.save({"model": last, "average": average, "step": 7}, tmp_path / "last.pt")
    assert torch.equal(state_in(tmp_path / "last.pt")["weight"], average["weight"])
    torch.save({"model": last}, tmp_path / "last.pt")
    assert torch.equal(state_in(tmp_path / "last.pt")["weight"], last["weight"])


def run(module: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of ``python -m models.MODULE WORDS``."""
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"models.{module}", run_name="__main__")
    return end.value.code


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one is in: a video, a text, and annotations of a picture that is not there."""
    folder = tmp_path / "given"
    folder.mkdir()
    write_clip(folder / "drive.mp4")
    (folder / "t.txt").write_text("each line of it says something")
    picture = {"id": 1, "file_name": "a.png", "height": 64, "width": 64}
    car = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 30, 30], "iscrowd": 0}
    about = {"images": [picture], "annotations": [car], "categories": [{"id": 1, "name": "car"}]}
    (folder / "good.json").write_text(json.dumps(about))
    (folder / "panoptic.json").write_text(json.dumps({**about, "annotations": [{"image_id": 1}]}))
    words = [{**car, "image_id": "1"}, {**car, "id": 2}]
    (folder / "words.json").write_text(json.dumps({**about, "annotations": words}))
    elsewhere = {"image_id": 2, "category_id": 1, "bbox": [8, 8, 30, 30], "score": 1.0}
    (folder / "elsewhere.json").write_text(json.dumps([elsewhere]))
    monkeypatch.chdir(folder)
    return folder


TRAIN = ["mobilenet_v2_fpn", "--out", "../out", "--size", "64x64", "--steps", "1", "--batch", "1"]
EXPORT = ["--size", "64x96", "--out", "../out/m.onnx", "--weights"]
JUDGED = ["--images", "x", "--annotations", "good.json"]
STREET = str(ZOO / "street.onnx")


@pytest.mark.parametrize(
    ("module", "words", "code", "what"),
    [
        ("train", [*TRAIN, "--data", "no.json:x"], 2, "no.json"),
        ("train", [*TRAIN, "--data", "panoptic.json:x"], 2, "annotations without category_id"),
        ("train", [*TRAIN, "--data", "words.json:x"], 2, "1 of 2, whose image_id is not among"),
        ("train", [*TRAIN, "--data", "good.json:x", "--weights", "drive.mp4"], 2, "drive.mp4"),
        ("train", [*TRAIN, "--data", "good.json:x", "--weights", "no.onnx"], 2, "no.onnx"),
        ("train", [*TRAIN, "--data", "good.json:x", "--trunk", STREET], 2, "is a model file"),
        ("evaluate", ["--model", "street", *JUDGED[:2], "--annotations", "no.json"], 2, "no.json"),
        ("evaluate", ["--model", "drive.mp4", *JUDGED], 2, "drive.mp4 is no ONNX file"),
        ("evaluate", ["--detections", "t.txt", *JUDGED], 2, "t.txt"),
        ("evaluate", ["--detections", "drive.mp4", *JUDGED], 2, "drive.mp4"),
        ("evaluate", ["--detections", "good.json", *JUDGED], 2, "holds no COCO results"),
        ("evaluate", ["--detections", "elsewhere.json", *JUDGED], 2, "picture 2"),
        ("evaluate", ["--network", "yolo_v2", "--weights", "t.txt", *JUDGED], 2, "t.txt"),
        ("pseudo_label", ["--teacher", "no.onnx", "--out", "../out", "c.mp4"], 2, "no.onnx"),
        ("pseudo_label", ["--teacher", "drive.mp4", "--out", "../out", "c.mp4"], 2, "drive.mp4"),
        ("pseudo_mask", ["--teacher", "no.onnx", "--clips", "c", "--out", "../out"], 2, "no.onnx"),
        ("pseudo_mask", ["--teacher", "t.txt", "--clips", "c", "--out", "../out"], 2, "t.txt"),
        ("precision_check", ["no.onnx", "--data", "no.json:x"], 2, "no.onnx"),
        ("precision_check", ["drive.mp4", "--data", "x:y"], 2, "drive.mp4 is no ONNX file"),
        ("proposals", ["--annotations", "no.json", *JUDGED[:2], "--out", "../o.npz"], 2, "no.json"),
        ("proposals", ["--annotations", "t.txt", *JUDGED[:2], "--out", "../o.npz"], 2, "each.xml"),
        ("onnx_lint", ["no.onnx"], 2, "no.onnx"),
        ("onnx_lint", ["drive.mp4"], 2, "drive.mp4 is no ONNX file"),
        ("export", ["yolo_v2", "--names", "a", *EXPORT, "t.txt"], 4, "t.txt"),
        ("export", ["yolo_v2", "--names", "a", *EXPORT, STREET], 4, "is a model file"),
        ("program", ["t.txt", "--out", "../out/m.pt2"], 4, "t.txt is no ONNX file"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # others import them
def test_a_command_ends_so(module, words, code, what, given: Path, monkeypatch, capsys) -> None:
    assert run(module, words, monkeypatch) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and what in line and len(line) < 300
    assert list(given.parent.iterdir()) == [given]


@pytest.mark.parametrize(
    ("module", "words", "wanted"),
    [
        ("export", ["yolo_v2", *EXPORT[:2], "--weights", "w.pt"], ".onnx or .pt2"),
        ("quantize", ["street", "--float16"], ".onnx"),
        ("adopt", ["drive.mp4", "--kind", "yolox"], ".onnx"),
        ("program", ["street"], ".pt2"),
        ("features", ["drive.mp4", "--weights", "w.pt"], ".npz"),
        ("proposals", [*JUDGED, "--proposer", "selective_search_fast"], ".npz"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # others import them
def test_a_file_is_written_under_the_name_it_is_found_by(
    module, words, wanted, given: Path, monkeypatch, capsys
) -> None:
    assert run(module, [*words, "--out", "../out.pt"], monkeypatch) == 2
    assert f"--out: the name has to end in {wanted}, got" in capsys.readouterr().err
    assert list(given.parent.iterdir()) == [given]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # others import it
def test_what_a_process_that_prepares_pictures_says_is_told_as_it_is(
    given: Path, monkeypatch, capsys
) -> None:
    assert run("train", [*TRAIN, "--data", "good.json:nofolder"], monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: cannot read picture nofolder/a.png; is the picture folder right?"


def without_packages(*words: str) -> subprocess.CompletedProcess[str]:
    """Python as it is where nothing was installed."""
    root = Path(__file__).parents[2]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-S", *words]
    return subprocess.run(command, cwd=root, env=bare, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["train", "onnx_lint", "segmentation.checkerboard"])
def test_a_command_without_its_packages_says_how_to_install_them(module: str) -> None:
    done = without_packages("-m", f"models.{module}", "--help")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"error: python -m models.{module} needs torch")
    assert "pip install -e '.[models]'" in line


def test_what_needs_no_packages_is_imported_without_them() -> None:
    done = without_packages("-c", "import models.detection")
    assert (done.returncode, done.stderr) == (0, "")
