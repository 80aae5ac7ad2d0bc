"""Which engine and precision is taken, and how files that are no good are refused."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline.cores import usable_cores
from pipeline.engines import load_engine
from pipeline.engines.precision import choose_precision
from pipeline.errors import ConfigError, EngineError, EngineUnavailable, ModelMismatch
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from tests.pipeline.model_files import ENGINES, SLOTS, images, load, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


def cpu_has_bf16() -> bool:
    from pipeline.engines.ov_core import the_core

    return "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize(
    ("check", "has_bf16", "chosen", "why"),
    [
        ({"f32": 0.713, "bf16": 0.712}, True, "bf16", "AP 0.712 against 0.713"),
        ({"f32": 0.700, "bf16": 0.695}, True, "bf16", "AP 0.695 against 0.700"),
        ({"f32": 0.700, "bf16": 0.694}, True, "f32", "loses too much"),
        ({"f32": 0.700, "bf16": 0.720}, True, "bf16", "AP 0.720"),
        ({"f32": 0.713, "bf16": 0.712}, False, "f32", "no bf16 instructions"),
        ({"f32": 0.713}, True, "f32", "says nothing about its accuracy"),
        (None, True, "f32", "says nothing about its accuracy"),
    ],
)
def test_auto_takes_bf16_only_where_it_is_fast_and_known_to_be_accurate(
    model: ModelFile, check: dict[str, float] | None, has_bf16: bool, chosen: str, why: str
) -> None:
    checked = replace(model, precision_check=check)
    precision, reason = choose_precision(checked, "auto", has_bf16)
    assert precision == chosen
    assert why in reason


def test_of_a_rounded_file_the_reason_tells_what_its_layers_cost(model: ModelFile) -> None:
    check = {"f32": 0.427, "bf16": 0.428, "original": 0.422}
    rounded = replace(model, arithmetic="int8", precision_check=check)
    precision, reason = choose_precision(rounded, "auto", True)
    assert precision == "bf16"
    assert reason.startswith(
        "int8 layers as the model file has them (AP 0.427 against 0.422 of its original), all else "
        "bf16 because"
    )
    unmeasured = replace(rounded, precision_check=None)
    assert choose_precision(unmeasured, "f32", False)[1] == (
        "int8 layers as the model file has them, all else f32 as asked"
    )


@pytest.mark.parametrize(("original", "rest"), [(0.425, "bf16"), (0.426, "f32")])
def test_of_a_rounded_file_bf16_for_the_rest_may_not_lose_more_than_half_a_point_of_the_original(
    model: ModelFile, original: float, rest: str
) -> None:
    check = {"f32": 0.423, "bf16": 0.420, "original": original}
    rounded = replace(model, arithmetic="int8", precision_check=check)
    assert choose_precision(rounded, "auto", True)[0] == rest
    assert choose_precision(rounded, "int8", True)[0] == rest


def test_int8_of_a_file_that_has_none_is_refused(model: ModelFile) -> None:
    with pytest.raises(ConfigError, match="does not compute in int8"):
        choose_precision(model, "int8", True)


def test_bf16_on_a_cpu_without_it_is_refused(model: ModelFile) -> None:
    with pytest.raises(EngineUnavailable, match="use precision f32 or auto"):
        choose_precision(model, "bf16", False)
    assert choose_precision(model, "bf16", True) == ("bf16", "bf16 as asked")


def test_bf16_is_refused_by_onnxruntime(model: ModelFile) -> None:
    with pytest.raises(ConfigError, match="--engine openvino"):
        load(model, "onnxruntime", precision="bf16")


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")
def test_openvino_runs_in_the_precision_that_it_reports(model: ModelFile) -> None:
    with load(model, "openvino") as exact, load(model, "openvino", precision="bf16") as rough:
        assert (exact.precision, rough.precision) == ("f32", "bf16")
        a, b = exact.infer(images(1)), rough.infer(images(1))
        difference = np.abs(a["boxes"] - b["boxes"]).max()
        assert 0 < difference < 0.05 * np.abs(a["boxes"]).max()


# Which engine


def test_auto_takes_openvino_and_says_why(model: ModelFile) -> None:
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "openvino"
        assert "faster engine" in engine.reason
        assert "f32 because" in engine.reason  # no precision check in this file
        assert engine.batch == 1
        assert engine.in_flight >= 1


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_asked_for_by_name_is_taken(model: ModelFile, name: str) -> None:
    with load(model, name, batch=2) as engine:
        assert (engine.name, engine.precision, engine.batch) == (name, "f32", 2)
        assert "as asked" in engine.reason


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    modules = {"openvino": ("ov", "ov_core"), "onnxruntime": ("ort",)}
    for package in packages:
        for module in modules[package]:
            monkeypatch.delitem(sys.modules, f"pipeline.engines.{module}", raising=False)
        monkeypatch.setitem(sys.modules, package, None)


def test_auto_falls_back_to_onnxruntime_and_says_why(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "openvino")
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "onnxruntime"
        assert "pip install openvino" in engine.reason
        assert "its only precision" in engine.reason


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_that_is_not_installed_names_the_remedy(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without(monkeypatch, name)
    with pytest.raises(EngineUnavailable, match=f"pip install {name}") as caught:
        load(model, name)
    assert caught.value.exit_code == 4


def test_a_package_that_lacks_a_library_is_broken_and_auto_goes_on_without_it(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(name: str) -> Any:
        raise OSError("libopenvino.so: cannot open shared object file")

    broken = ModuleType("pipeline.engines.ov")
    monkeypatch.setattr(broken, "__getattr__", lacking, raising=False)
    monkeypatch.setitem(sys.modules, "pipeline.engines.ov", broken)
    with pytest.raises(EngineError, match="--force-reinstall openvino") as raised:
        load_engine(model, EngineSettings(name="openvino"))
    assert not isinstance(raised.value, EngineUnavailable)
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "onnxruntime" and "libopenvino.so" in engine.reason


def test_no_engine_at_all_names_both_remedies(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *ENGINES)
    with pytest.raises(EngineUnavailable, match=r"install openvino.*install onnxruntime"):
        load_engine(model, EngineSettings())


def test_nothing_but_the_engine_asked_for_is_imported() -> None:
    script = (
        "import sys, pipeline.detect, pipeline.engines, pipeline.preprocess\n"
        "assert not {'openvino', 'onnxruntime', 'onnx', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


# Files that are no good


def broken(tmp_path: Path, change: Any) -> ModelFile:
    """A model file with sound metadata, whose graph was changed."""
    path = write_model(tmp_path / "broken.onnx")
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, path)
    return read_model_file(path)


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].op_type = "Konv"


def dangling_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].input[0] = "nowhere"


def no_graph(proto: onnx.ModelProto) -> None:
    proto.ClearField("graph")


@pytest.mark.parametrize("name", [*ENGINES, "auto"])
@pytest.mark.parametrize("change", [unknown_operator, dangling_input, no_graph])
def test_a_broken_graph_is_a_model_mismatch(tmp_path: Path, name: str, change: Any) -> None:
    with pytest.raises(ModelMismatch, match="export it again") as caught:
        load(broken(tmp_path, change), name)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value).strip()


def other_name(proto: onnx.ModelProto) -> None:
    proto.graph.output[1].name = "best"


@pytest.mark.parametrize("name", ENGINES)
def test_a_graph_without_the_promised_outputs_is_a_model_mismatch(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelMismatch, match=re.escape("outputs boxes, scores, labels, exact")):
        load(broken(tmp_path, other_name), name)


@pytest.mark.parametrize("name", ENGINES)
def test_outputs_of_the_wrong_shape_are_a_model_mismatch(tmp_path: Path, name: str) -> None:
    path = write_model(tmp_path / "m.onnx", {"outputs": ["logits", "scores", "labels", "boxes"]})
    proto = onnx.load(path)
    swapped = {"boxes": "logits", "logits": "boxes"}
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, value in enumerate(names):
                names[index] = swapped.get(value, value)
    proto.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", SLOTS, 4])
    )
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, ["n", SLOTS, 3])
    )
    onnx.save(proto, path)
    with pytest.raises(ModelMismatch, match="output 'boxes' has shape"):
        load(read_model_file(path), name)


def test_an_openvino_failure_in_mid_run_is_an_engine_error(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.engines.ov import OpenVinoEngine

    class Failing:
        def wait(self) -> None:
            raise RuntimeError("Exception from somewhere.cpp:1:\nout of memory")

    with load(model, "openvino") as engine:
        assert isinstance(engine, OpenVinoEngine)
        pending = engine.submit(images(1))
        pending.result()
        pending._outputs = None
        monkeypatch.setattr(pending, "request", Failing())
        with pytest.raises(EngineError, match="out of memory"):
            pending.result()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_a_containers_quota_limits_the_cores(
    tmp_path: Path, files: dict[str, str], cores: int | None
) -> None:
    everything = usable_cores(tmp_path / "nothing")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (cores or everything)
