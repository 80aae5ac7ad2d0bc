"""Commands end with a reason where what they are given is wrong, and with a traceback else."""

from __future__ import annotations

import runpy
import sys

import pytest

from models.bad_input import told
from models.pictures import DataError
from models.starting_weights import SettingsError


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


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("train", ["mobilenet_v2_fpn", "--data", "no.json:x", "--out", "OUT"]),
        ("evaluate", ["--model", "street", "--annotations", "no.json", "--images", "x"]),
        ("pseudo_label", ["--teacher", "no.onnx", "--out", "OUT", "clip.mp4"]),
        ("precision_check", ["no.onnx", "--data", "no.json:x"]),
        ("proposals", ["--annotations", "no.json", "--images", "x", "--out", "OUT.npz"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # others import them
def test_a_command_ends_so(module, words, tmp_path, monkeypatch, capsys) -> None:
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"models.{module}", run_name="__main__")
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and ("no.json" in line or "no.onnx" in line)
    assert list(tmp_path.iterdir()) == []
