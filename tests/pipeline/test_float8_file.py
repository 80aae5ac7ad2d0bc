"""A model file with layers in float8: who runs it, and what the others say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engines import load_engine
from pipeline.engines.nvidia import Gpu
from pipeline.engines.parity import bounds_by_cpu
from pipeline.engines.precision import check_float8
from pipeline.errors import EngineUnavailable
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from tests.pipeline import gpu
from tests.pipeline.model_files import images, load, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """Nothing in it is float8: who runs it is a matter of what it says."""
    check = {"f32": 0.426, "original": 0.427}
    entry = {"arithmetic": "f8", "precision_check": check}
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx", entry))


def test_onnxruntime_runs_it_when_asked_and_says_that_it_is_slow(model: ModelFile) -> None:
    with load(model, "onnxruntime") as engine:
        assert engine.infer(images(1))["scores"].shape[0] == 1
        assert "f8 and f16 layers as the model file has them (AP 0.426 against" in engine.reason
        assert "exactly and slowly" in engine.reason


@pytest.mark.parametrize("name", ["auto", "openvino"])
def test_no_engine_of_a_cpu_takes_it_unasked(model: ModelFile, name: str) -> None:
    with pytest.raises(EngineUnavailable, match=r"float8.*use its original, or --engine onnxrun"):
        load(model, name)


def test_tensorrt_runs_it_on_a_gpu_that_has_float8(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.install(monkeypatch, tmp_path)
    with load_engine(model, EngineSettings(batch=1)) as engine:
        assert engine.name == "tensorrt"
        assert "f8 and f16 layers" in engine.reason


@pytest.mark.parametrize("name", ["auto", "tensorrt"])
def test_an_older_gpu_is_named_with_the_remedy_and_no_cpu_steps_in(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(gpu, "GPU", Gpu("NVIDIA A10", (8, 6), 1 << 34))
    gpu.install(monkeypatch, tmp_path)
    told = r"float8, which the NVIDIA A10 does not have \(compute capability 8\.6; 8\.9 or higher"
    with pytest.raises(EngineUnavailable, match=f"{told}.*use its original"):
        load_engine(model, EngineSettings(name=name, batch=1))


@pytest.mark.parametrize(
    ("capability", "arithmetic", "refused"),
    [((8, 6), "f8", True), ((8, 9), "f8", False), ((10, 0), "f8", False), ((7, 5), "f16", False)],
)
def test_float8_wants_ada_or_later(
    model: ModelFile, capability: tuple[int, int], arithmetic: str, refused: bool
) -> None:
    other = replace(model, arithmetic=arithmetic)
    if refused:
        with pytest.raises(EngineUnavailable):
            check_float8(other, "GPU", capability)
    else:
        check_float8(other, "GPU", capability)


def test_its_plan_is_held_to_the_bounds_of_8_bits(model: ModelFile) -> None:
    assert bounds_by_cpu(model) == bounds_by_cpu(replace(model, arithmetic="int8"))
    assert bounds_by_cpu(model) != bounds_by_cpu(replace(model, arithmetic="f16"))
