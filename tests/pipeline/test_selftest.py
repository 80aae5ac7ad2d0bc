"""The doctor's self-test: what it finds out about engines, and what it must not conclude."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import doctor
from pipeline.checkup import trial
from pipeline.engines import Engine, load_engine
from pipeline.errors import EngineUnavailable
from pipeline.settings import EngineSettings
from tests.pipeline.asked_here import asked_here, page, rows_of
from tests.pipeline.model_files import write_model
from tests.pipeline.task_files import write_instance, write_regional, write_semantic


@pytest.fixture(autouse=True)
def short_street(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and smaller frames, where the questions are asked in this process."""
    street = "synthetic://street?seed=7&size=320x180&fps=1&seconds=2"
    monkeypatch.setattr(trial, "STREET", street)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.onnx")


def falsified(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[..., Engine]:
    """An OpenVINO whose answers are changed on their way."""

    def load(model: Any, settings: EngineSettings, **options: Any) -> Engine:
        engine = load_engine(model, settings, **options)
        if engine.name == "openvino":
            honest = engine.infer

            def infer(*given: Any) -> dict[str, np.ndarray]:
                outputs = honest(*given)
                change(outputs)
                return outputs

            engine.infer = infer
        return engine

    return load


def shift(outputs: dict[str, np.ndarray]) -> None:
    outputs["boxes"] += 0.3 * (outputs["boxes"][..., 2:] - outputs["boxes"][..., :2]).max()


def blur(outputs: dict[str, np.ndarray]) -> None:
    outputs["scores"] *= 0.9


def swap(outputs: dict[str, np.ndarray]) -> None:
    outputs["labels"] = (outputs["labels"] + 1) % 3


def forget(outputs: dict[str, np.ndarray]) -> None:
    outputs["scores"][:] = np.nan


@pytest.mark.parametrize("change", [shift, blur, swap, forget])
def test_an_engine_that_says_something_else_is_found_out(
    change: Callable[[dict[str, np.ndarray]], object],
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trial, "load_engine", falsified(change))
    monkeypatch.setattr(doctor, "isolated", asked_here)
    assert doctor.main(["--json", "--model", str(small)]) == 4
    report = json.loads(capsys.readouterr().out)
    assert rows_of(report)["openvino", "f32"]["state"] == "failed"
    assert any("openvino f32 does not say what" in line for line in report["verdict"]["repair"])
    assert "openvino f32" not in report["verdict"]["expect"]


@pytest.mark.parametrize("write", [write_model, write_instance, write_regional, write_semantic])
def test_engines_are_compared_on_models_of_every_task(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    report = doctor.examine(write(tmp_path / "m.onnx"), ask=asked_here)
    row = rows_of(report)["openvino", "f32"]
    assert (row["state"], row["parity"]["share"]) == ("passed", 1.0)
    assert row["parity"]["unit"] == ("pixels" if write is write_semantic else "boxes")


def test_a_semantic_engine_that_sees_other_classes_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def darken(outputs: dict[str, np.ndarray]) -> None:
        outputs["classes"][:] = 0

    monkeypatch.setattr(trial, "load_engine", falsified(darken))
    report = doctor.examine(write_semantic(tmp_path / "m.onnx"), ask=asked_here)
    assert rows_of(report)["openvino", "f32"]["state"] == "failed"


def test_a_model_that_finds_nothing_proves_nothing(tmp_path: Path) -> None:
    model = write_model(tmp_path / "blind.onnx", {"score_threshold": 1.0})
    report = doctor.examine(model, ask=asked_here)
    assert rows_of(report)["openvino", "f32"]["state"] == "unproven"
    assert not report["verdict"]["good"]
    assert "found anything" in page(report)


def test_without_the_witness_nothing_is_proved(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: Any, settings: EngineSettings, **options: Any) -> Engine:
        if settings.name == "onnxruntime":
            raise EngineUnavailable("ONNX Runtime is not installed; run `pip install onnxruntime`")
        return load_engine(model, settings, **options)

    monkeypatch.setattr(trial, "load_engine", load)
    report = doctor.examine(small, ask=asked_here)
    states = {pair: row["state"] for pair, row in rows_of(report).items()}
    assert states["onnxruntime", "f32"] == "broken"
    assert states["openvino", "f32"] == "unproven"
    assert not report["verdict"]["good"]
    assert "pip install onnxruntime" in " ".join(report["verdict"]["repair"])


def test_an_engine_that_is_not_installed_is_no_fault(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: Any, settings: EngineSettings, **options: Any) -> Engine:
        if settings.name == "openvino":
            raise EngineUnavailable("OpenVINO is not installed; run `pip install openvino`")
        return load_engine(model, EngineSettings(name="onnxruntime"), **options)

    monkeypatch.setattr(trial, "load_engine", load)
    report = doctor.examine(small, ask=asked_here)
    unavailable = [row for row in report["selftest"]["engines"] if row["state"] == "unavailable"]
    assert [row["engine"] for row in unavailable if row["engine"] == "openvino"] == ["openvino"]
    assert report["verdict"]["good"]
    assert "auto takes onnxruntime (f32)" in page(report)


def test_a_precision_that_only_auto_can_take_is_run_and_named(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: Any, settings: EngineSettings, **options: Any) -> Engine:
        engine = load_engine(model, settings, **options)
        if settings.precision == "auto":
            engine.precision = "tf32"
        return engine

    monkeypatch.setattr(trial, "load_engine", load)
    report = doctor.examine(small, ask=asked_here)
    row = rows_of(report)["openvino", "tf32"]
    assert (row["state"], report["engine"]["precision"]) == ("passed", "tf32")
    assert report["engine"]["ms_per_call"] == row["ms_per_call"]
