"""Which layers moved in a plan that was refused."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from pipeline.commands import MODELS
from pipeline.engines import trt_layers, trt_plans
from pipeline.engines.layers import Layer
from pipeline.engines.parity import by_cpu, golden_input
from pipeline.engines.trt_build import Order
from pipeline.engines.trt_graph import nodes, operators, static_graph, with_outputs
from pipeline.engines.trt_layers import Suspect, moved_layers
from pipeline.engines.trt_machine import Machine
from pipeline.errors import EngineError
from pipeline.model_file.reading import ModelFile, read_model_file
from tests.pipeline.gpu import StrawGpu, install
from tests.pipeline.model_files import write_model
from tests.pipeline.task_files import write_regional


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture
def straw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrawGpu:
    return install(monkeypatch, tmp_path / "plans")


def refusal(straw: StrawGpu, model: ModelFile, portable: bool = False) -> str:
    """Why its plan in f32 may not run; the same again from the cache."""
    said = []
    for _ in range(2):
        with pytest.raises(EngineError, match="plan was refused") as caught:
            straw.engine(model, precision="f32", portable=portable)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert straw.cuda.left() == {}
    assert straw.trt.contexts == 0
    return said[0]


def test_the_first_layer_that_moved_is_named_and_no_earlier_one(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.layers["f32"] = "c2"
    said = refusal(straw, model)
    assert "1 moved (less than 30 dB beside ONNX Runtime)" in said
    assert "in the order of the graph first 'c2' (Conv, " in said
    assert straw.trt.built == [("f32", (1, 2, 3)), ("f32", (1,))]
    assert straw.trt.given_timings == [b"", b"timings f32"]  # the second takes less long
    (manifest,) = straw.folder.glob("*/manifest.json")
    assert "first 'c2' (Conv" in json.loads(manifest.read_text())["refused"]


def test_a_refusal_is_kept_before_the_search_for_the_layers_which_may_be_interrupted(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    straw.trt.faults.layers["f32"] = "c2"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trt_plans, "moved_layers", interrupted)
        straw.engine(model, precision="f32")
    assert "answers otherwise than onnxruntime" in refusal(straw, model)
    assert straw.trt.built == [("f32", (1, 2, 3))]


@pytest.mark.parametrize("portable", [False, True])
def test_a_fault_goes_on_behind_the_layer_that_has_it(
    straw: StrawGpu, model: ModelFile, portable: bool
) -> None:
    straw.trt.faults.layers["f32"] = "c1"
    assert "2 of 2 layers open, 2 moved" in (said := refusal(straw, model, portable))
    assert "in the order of the graph first 'c1' (Conv, " in said


def test_another_precision_goes_without_the_fault(
    straw: StrawGpu, model: ModelFile, caplog: pytest.LogCaptureFixture
) -> None:
    straw.trt.faults.layers["tf32"] = "c2"
    with straw.engine(model) as engine:
        assert engine.precision == "f32"
    assert "first 'c2'" in caplog.text


def test_a_fault_that_vanishes_when_outputs_are_open_lies_in_fusing(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.layers["f32"], straw.trt.faults.fused = "c2", True
    said = refusal(straw, model)
    assert "2 of 2 layers open, none moved, the lowest is 'c1' (Conv, inf dB)" in said
    assert "it answers rightly" in said and "fault lies in how it fuses them" in said


def test_a_fault_of_no_layer_is_said_to_lie_between_them(straw: StrawGpu, model: ModelFile) -> None:
    straw.trt.faults.scores["f32"] = -0.07
    said = refusal(straw, model)
    assert "none moved" in said and "the fault lies between these layers or behind them" in said


def test_it_is_looked_for_in_the_smallest_batch_that_goes_wrong(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.several["f32"] = -0.07
    said = refusal(straw, model)
    assert "for batches of 2" in said and "none moved" in said and "behind them" in said
    assert straw.trt.built == [("f32", (1, 2, 3)), ("f32", (2,))]


def test_where_the_second_build_fails_the_refusal_stands_and_says_why(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.layers["f32"], straw.trt.faults.most_outputs = "c2", 4
    said = refusal(straw, model)
    assert "score difference" in said
    assert "which layers moved is not known, because TensorRT cannot build m.onnx" in said
    assert "no way of computing was found" in said


def test_without_onnx_runtime_the_refusal_stands_and_says_so(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("pipeline.engines.ort", "pipeline.engines.layers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    straw.trt.faults.layers["f32"] = "c2"
    said = refusal(straw, model)
    assert "otherwise than openvino" in said
    assert "not known, because ONNX Runtime, which could tell, cannot be loaded" in said
    assert len(straw.trt.built) == 1


def test_a_graph_without_layers_is_said_to_have_none(straw: StrawGpu, tmp_path: Path) -> None:
    model = read_model_file(write_regional(tmp_path / "m.onnx"))
    straw.trt.faults.scores["f32"] = -0.07
    assert "the graph has none that could be looked at" in refusal(straw, model)


def test_of_a_large_network_every_second_layer_is_looked_at(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_layers, "MOST_BYTES", 8 * 8 * 12 * 4)  # what c1 gives, and no more
    straw.trt.faults.layers["f32"] = "c1"
    assert "1 of 2 layers open, 1 moved" in refusal(straw, model)


def test_layers_of_the_bundled_model_are_found_through_to_its_regions(straw: StrawGpu) -> None:
    """Rows of regions do not begin with the batch, and weights are kept in half precision."""
    street = read_model_file(MODELS["street"])
    size_hw = street.smaller_hw[0]
    onnx, golden = static_graph(street, size_hw), golden_input(street, size_hw)
    kinds = {node.operator for node in nodes(onnx)}
    assert {"Conv", "Gemm", "RoiAlign", "TopK"} <= kinds == set(operators(onnx))
    (faulty,) = (n for n in nodes(onnx) if n.operator == "Gemm" and n.name.endswith("linear_1"))
    straw.trt.faults.layers["f32"] = faulty.outputs[0]
    order = Order("street", onnx, (1, 2), tf32=False, portable=False)
    expected, _ = by_cpu(street, size_hw, golden)
    suspect = Suspect(street, order, size_hw, golden, expected, 2, b"")
    with ExitStack() as end:
        said = moved_layers(Machine.here(end), suspect)
    assert f"first {faulty.name!r} (Gemm, " in said
    assert "for batches of 2 and with the outputs of 81 of 81 layers" in said
    assert straw.cuda.left() == {}


def test_the_order_behind_a_selection_is_no_noise_and_what_is_lost_is() -> None:
    values, swapped = np.array([[3.0, 1.0], [2.0, 5.0]]), np.array([[2.0, 5.0], [3.0, 1.0]])
    for chosen, decibels in ((True, np.inf), (False, pytest.approx(0.596, abs=0.001))):
        layer = Layer("n", "Gemm", "n", chosen)
        layer.add(values, swapped)
        assert layer.decibels == decibels
    for wanted, found, decibels in (
        ([-np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([-np.inf, 1.0], [0.0, 1.0], -np.inf),
        ([1.0, 1.0], [np.nan, 1.0], -np.inf),
        ([0.0, 0.0], [0.0, 1.0], -np.inf),
        ([0.0, 10.0], [1.0, 10.0], 20.0),
    ):
        layer = Layer("n", "Conv", "n", False)
        layer.add(np.array(wanted, np.float32), np.array(found, np.float32))
        assert layer.decibels == pytest.approx(decibels)


def test_an_output_of_the_graph_is_not_made_one_again(model: ModelFile) -> None:
    onnx = static_graph(model, model.input_size_hw)
    assert with_outputs(onnx, {"scores": 1}) == onnx
    assert len(with_outputs(onnx, {"scores": 1, "c1": None})) > len(onnx)
