"""Every rule of the lint fires on a small bad graph, and a clean graph passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.onnx_lint import lint, main

ZOO = Path(__file__).parents[2] / "models" / "zoo"
UINT8, FLOAT, INT64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] = (),
    *,
    frames: onnx.ValueInfoProto | None = None,
    opset: int = 18,
    nms_body: str = "fixpoint",
) -> Path:
    """A graph over ``frames`` (N, 8, 8, 3) uint8 that first casts them to ``pixels``."""
    frames = frames or helper.make_tensor_value_info("frames", UINT8, ["N", 8, 8, 3])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["frames"], ["pixels"], name="cast", to=FLOAT), *nodes],
        "graph",
        [frames],
        list(outputs) or [helper.make_tensor_value_info("out", FLOAT, ["N", 8, 8, 3])],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(model, {"boxstream": json.dumps({"nms_body": nms_body})})
    onnx.save(model, path)
    return path


def relu(source: str = "pixels", target: str = "out") -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], name="relu")


def test_a_plain_graph_has_no_faults(tmp_path: Path) -> None:
    assert lint(write(tmp_path / "m.onnx", [relu()])) == []


def test_an_operator_outside_the_table_is_named(tmp_path: Path) -> None:
    odd = helper.make_node("Bernoulli", ["pixels"], ["out"], name="odd")
    assert lint(write(tmp_path / "m.onnx", [odd])) == [
        "Bernoulli 'odd': the importer does not know Bernoulli"
    ]


def test_an_opset_beyond_the_importer_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [relu()])
    model = onnx.load(path)
    model.opset_import[0].version = 7
    onnx.save(model, path)
    assert lint(path) == ["opset 7: the importer takes 9 to 24"]


@pytest.mark.parametrize(("nms_body", "faults"), [("fixpoint", 1), ("nonmaxsuppression", 0)])
def test_non_maximum_suppression_is_for_cpu_files_only(
    nms_body: str, faults: int, tmp_path: Path
) -> None:
    nodes = [
        relu(),
        helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"], name="nms"),
    ]
    constants = {
        "boxes": np.zeros((1, 4, 4), np.float32),
        "scores": np.zeros((1, 1, 4), np.float32),
    }
    found = lint(write(tmp_path / "m.onnx", nodes, constants, nms_body=nms_body))
    assert len([fault for fault in found if fault.startswith("NonMaxSuppression")]) == faults


def test_other_shapes_from_data_are_refused_whatever_the_file_says(tmp_path: Path) -> None:
    nodes = [relu(), helper.make_node("NonZero", ["pixels"], ["places"], name="where")]
    for nms_body in ("fixpoint", "nonmaxsuppression"):
        found = lint(write(tmp_path / "m.onnx", nodes, nms_body=nms_body))
        assert "NonZero 'where': the shape of its output depends on data" in found


@pytest.mark.parametrize(
    ("k", "ordered", "says"),
    [(3839, 1, None), (3840, 1, "k is 3840, at most 3839"), (3, 0, "sorted must be 1")],
)
def test_top_k_has_a_limit(k: int, ordered: int, says: str | None, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("TopK", ["row", "k"], ["best", "which"], name="top", sorted=ordered),
        relu(),
    ]
    constants = {"row": np.zeros((1, 5000), np.float32), "k": np.array([k])}
    found = lint(write(tmp_path / "m.onnx", nodes, constants))
    assert found == ([f"TopK 'top': {says}"] if says else [])


def test_a_k_that_is_computed_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["pixels"], ["k"], start=1, end=2),
        helper.make_node("TopK", ["row", "k"], ["best", "which"], name="top"),
        relu(),
    ]
    path = write(tmp_path / "m.onnx", nodes, {"row": np.zeros((1, 50), np.float32)})
    assert "TopK 'top': k is not a constant" in lint(path)


def test_a_scatter_may_not_add(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "ScatterND", ["row", "at", "ones"], ["sum"], name="scatter", reduction="add"
        ),
        relu(),
    ]
    constants = {
        "row": np.zeros(5, np.float32),
        "at": np.array([[1]]),
        "ones": np.ones(1, np.float32),
    }
    (fault,) = lint(write(tmp_path / "m.onnx", nodes, constants))
    assert fault.startswith("ScatterND 'scatter': reduction")


def test_resize_may_not_smooth(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "Resize", ["pixels", "", "", "size"], ["out"], name="r", antialias=1, mode="linear"
        )
    ]
    (fault,) = lint(write(tmp_path / "m.onnx", nodes, {"size": np.array([1, 8, 8, 3])}))
    assert fault == "Resize 'r': antialias is not supported"


def test_only_the_batch_of_the_input_may_be_free(tmp_path: Path) -> None:
    frames = helper.make_tensor_value_info("frames", UINT8, ["N", "H", 8, 3])
    out = helper.make_tensor_value_info("out", FLOAT, ["N", "H", 8, 3])
    found = lint(write(tmp_path / "m.onnx", [relu()], outputs=[out], frames=frames))
    assert "frames: dimensions [0, 1] are free; only the batch may be" in found
    assert "out: dimensions [0, 1] are free; only the batch may be" in found


def test_a_batch_that_moved_inside_the_graph_is_allowed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[1, 0, 2, 3]),
        helper.make_node("Transpose", ["turned"], ["out"], perm=[1, 0, 2, 3]),
    ]
    assert lint(write(tmp_path / "m.onnx", nodes)) == []


def test_work_on_bytes_is_refused(tmp_path: Path) -> None:
    nodes = [relu(), helper.make_node("Transpose", ["frames"], ["turned"], name="turn")]
    found = lint(write(tmp_path / "m.onnx", nodes))
    assert found == [
        "Transpose 'turn': works on uint8; only a Cast may",
        "turned: uint8 inside the graph",
    ]


def test_a_map_of_classes_may_leave_as_bytes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["pixels"], ["classes"], to=UINT8)]
    out = helper.make_tensor_value_info("classes", UINT8, ["N", 8, 8, 3])
    assert lint(write(tmp_path / "m.onnx", nodes, outputs=[out])) == []


def test_bytes_are_made_of_floats_and_become_floats(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["pixels"], ["best"], axis=3, keepdims=0),
        helper.make_node("Cast", ["best"], ["classes"], name="narrow", to=UINT8),
    ]
    out = helper.make_tensor_value_info("classes", UINT8, ["N", 8, 8])
    assert lint(write(tmp_path / "m.onnx", nodes, outputs=[out])) == [
        "Cast 'narrow': makes uint8 of int64; only a float can become it"
    ]
    nodes[1:] = [
        helper.make_node("Cast", ["best"], ["as_float"], to=FLOAT),
        helper.make_node("Cast", ["as_float"], ["classes"], to=UINT8),
    ]
    assert lint(write(tmp_path / "m.onnx", nodes, outputs=[out])) == []
    wide = helper.make_node("Cast", ["frames"], ["wide"], name="wide", to=TensorProto.INT32)
    assert lint(write(tmp_path / "m.onnx", [relu(), wide])) == [
        "Cast 'wide': makes int32 of uint8; it can only become a float"
    ]


def test_doubles_are_refused(tmp_path: Path) -> None:
    nodes = [relu(), helper.make_node("Cast", ["pixels"], ["exact"], to=TensorProto.DOUBLE)]
    assert lint(write(tmp_path / "m.onnx", nodes)) == ["exact: float64 is not supported"]


@pytest.mark.parametrize("name", ["street", "road_segmentation"])
@pytest.mark.parametrize("form", ["", "_int8"])
def test_the_bundled_models_are_fit_for_tensorrt(name: str, form: str) -> None:
    assert main([name + form]) == 0


def test_the_command_prints_faults_and_says_so_to_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good.onnx", [relu()])
    bad = write(tmp_path / "bad.onnx", [relu()], opset=18, nms_body="fixpoint", frames=None)
    model = onnx.load(bad)
    model.opset_import[0].version = 8
    onnx.save(model, bad)
    assert main([str(good)]) == 0
    assert main([str(good), str(bad)]) == 1
    assert "bad.onnx: opset 8" in capsys.readouterr().out
