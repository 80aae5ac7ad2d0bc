"""One model file for several sizes: at each it gives what a file for that size alone gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.hub import tqdm

from models.data.class_names import STREET_NAMES
from models.data.pictures import DataError
from models.detection.architectures import faster_rcnn
from models.export import main
from models.judging.detectors import load_detector
from models.judging.runners import the_core
from models.model_file import writing as model_file_module
from models.model_file.input_sizes import at_size, combine, sizes_of
from models.model_file.weights_back import load_from_model_file
from models.model_file.writing import export
from models.onnx_lint import lint
from pipeline.engines import Purpose
from pipeline.errors import ModelMismatch
from pipeline.model_file.reading import read_model_file
from pipeline.model_file.sizes import at_size as taken_out
from tests.models.detectors import frames, small_detector
from tests.models.sized import THREE, write_plain, write_sized
from tests.pipeline.model_files import ENGINES, load

pytestmark = pytest.mark.timeout(600)  # exports take long on busy machines

LARGE, SMALL = (96, 160), (64, 96)
Answer = dict[str, np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def _no_progress_monitor() -> Iterator[None]:
    """torch.export makes progress bars, unseen ones; each starts a thread to watch over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "monitor_interval", 0, raising=False)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small detector: for both sizes in one file, and for each alone; and what was told."""
    folder = tmp_path_factory.mktemp("exported")
    model = small_detector(LARGE)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and not parameter.any():  # equal ones are stored once as it is
            torch.nn.init.normal_(parameter, std=1e-3)
    files = {name: folder / f"{name}.onnx" for name in ("both", "large", "small")}
    files |= {"weights": folder / "weights.pth", "told": folder / "told.txt"}
    words = ["mobilenet_v2_fpn", "--weights", str(files["weights"]), "--half"]
    words += ["--size", "64x96", "--size", "96x160"]  # in any order
    words += ["--threshold", "0.3", "--min-score", "0.0123", "--proposals", "40"]
    words += ["--per-level", "60", "--provenance", 'score={"AP50": 0.9}']
    words += ["--provenance", "date=2026-11-21", "--provenance", "weights="]
    torch.save(model.state_dict(), files["weights"])
    told = StringIO()
    # Exporting each once more would take long.
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told):
        single = list[tuple[tuple[int, int], onnx.ModelProto]]()
        patch.setattr(model_file_module, "combine", lambda m: single.extend(m) or combine(m))
        assert main([*words, "--out", str(files["both"])]) == 0
    files["told"].write_text(told.getvalue())
    about = json.loads(onnx.load(files["both"]).metadata_props[0].value)
    del about["input_sizes_hw"]
    for name, (size_hw, proto) in zip(("large", "small"), single, strict=True):
        text = json.dumps(about | {"input_size_hw": size_hw})
        onnx.helper.set_model_props(proto, {"boxstream": text})
        onnx.save(proto, files[name])
    return files


@pytest.fixture
def sized(tmp_path: Path) -> Path:
    return write_sized(tmp_path / "sized.onnx")


def noise(n: int, size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *size_hw, 3), dtype=np.uint8)


def assert_same(found: Answer, wanted: Answer, atol: float = 1e-3) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name].shape == wanted[name].shape
        np.testing.assert_allclose(
            found[name].astype(float), wanted[name].astype(float), atol=atol, err_msg=name
        )


def by_onnxruntime(model: Path | bytes, images: np.ndarray) -> Answer:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {"frames": images}), strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_detector_for_two_sizes_finds_what_one_for_each_size_finds(
    exported: dict[str, Path], engine: str
) -> None:
    with load(read_model_file(exported["both"]), engine, all_sizes=True) as both:
        assert both.sizes_hw == (LARGE, SMALL)
        for name, size_hw in (("large", LARGE), ("small", SMALL)):
            with load(read_model_file(exported[name]), engine) as alone:
                images = frames(1, size_hw, seed=3).numpy()
                wanted = alone.infer(images)
                assert (wanted["scores"] > 0.05).sum() > 5
                assert_same(both.infer(images), wanted)


def test_a_detector_for_two_sizes_stores_its_weights_once(exported: dict[str, Path]) -> None:
    one, both = (exported[name].stat().st_size for name in ("large", "both"))
    assert both < 1.06 * one
    model = faster_rcnn("mobilenet_v2_fpn").eval()
    of_one = faster_rcnn("mobilenet_v2_fpn").eval()
    load_from_model_file(model, exported["both"])
    load_from_model_file(of_one, exported["large"])
    for name, value in of_one.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_detector_for_two_sizes_says_so_and_suits_tensorrt(exported: dict[str, Path]) -> None:
    assert lint(exported["both"]) == []
    model = onnx.load(exported["both"])
    about = json.loads(model.metadata_props[0].value)
    assert about["input_sizes_hw"] == [[96, 160], [64, 96]]
    assert about["input_size_hw"] == [96, 160]
    assert sizes_of(model) == [LARGE, SMALL]


def test_the_command_line_writes_what_it_was_told(exported: dict[str, Path]) -> None:
    told = exported["told"].read_text()
    assert "MB" in told
    assert "--names was not given; the classes are taken for person, bicycle, car," in told
    file = onnx.load(exported["large"])
    assert any(np.allclose(value, 0.0123, atol=1e-9) for value in scalars(file))
    state = torch.load(exported["weights"])
    numbers = sum(value.numel() for value in state.values())
    assert exported["both"].stat().st_size < 2.2 * numbers  # of two bytes each
    about = json.loads(onnx.load(exported["both"]).metadata_props[0].value)
    assert about["provenance"] == {
        "architecture": "mobilenet_v2_fpn",
        "date": "2026-11-21",
        "score": {"AP50": 0.9},
    }
    assert about["proposals"] == {"per_level": 60, "kept": 40}
    slots = [output.type.tensor_type.shape.dim[1].dim_value for output in file.graph.output[:3]]
    assert slots == [40 * len(STREET_NAMES)] * 3
    assert about["score_threshold"] == 0.3
    assert about["class_names"] == list(STREET_NAMES)


def scalars(file: onnx.ModelProto) -> list[np.ndarray]:
    """Every single number that stands in the graph."""
    constants = [
        onnx.helper.get_attribute_value(attribute)
        for node in file.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    values = map(onnx.numpy_helper.to_array, [*file.graph.initializer, *constants])
    return [value for value in values if value.size == 1]


def test_the_lint_tells_in_which_graph_the_fault_is(sized: Path) -> None:
    model = onnx.load(sized)
    arm = next(a.g for a in model.graph.node[-1].attribute if a.name == "then_branch")
    next(node for node in arm.node if node.op_type == "Relu").op_type = "Mish"
    onnx.save(model, sized)
    faults = [fault for fault in lint(sized) if "importer" in fault]
    assert faults == ["64x96: Mish 'r1': the importer does not know Mish"]


@pytest.mark.parametrize("size_hw", THREE)
def test_any_onnx_engine_runs_the_whole_file(
    tmp_path: Path, sized: Path, size_hw: tuple[int, int]
) -> None:
    images = noise(2, size_hw)
    wanted = by_onnxruntime(write_plain(tmp_path / "plain.onnx", size_hw), images)
    assert_same(by_onnxruntime(sized, images), wanted, atol=1e-5)
    compiled = the_core().compile_model(sized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([images])
    assert_same({port.any_name: found[port] for port in compiled.outputs}, wanted)


@pytest.mark.parametrize("size_hw", THREE)
def test_one_size_can_be_taken_out_in_two_ways(
    tmp_path: Path, sized: Path, size_hw: tuple[int, int]
) -> None:
    images = noise(1, size_hw)
    wanted = by_onnxruntime(write_plain(tmp_path / "plain.onnx", size_hw), images)
    by_onnx = at_size(onnx.load(sized), size_hw)
    onnx.checker.check_model(by_onnx, full_check=True)
    assert_same(by_onnxruntime(by_onnx.SerializeToString(), images), wanted, atol=0)
    by_hand = taken_out(read_model_file(sized), size_hw)
    assert isinstance(by_hand, bytes)
    onnx.checker.check_model(onnx.load_from_string(by_hand), full_check=True)
    assert_same(by_onnxruntime(by_hand, images), wanted, atol=0)
    assert not any(node.op_type == "If" for node in onnx.load_from_string(by_hand).graph.node)


def test_a_file_of_one_size_is_left_as_it_is(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "plain.onnx", (32, 48))
    assert taken_out(read_model_file(path), (32, 48)) == path
    assert at_size(onnx.load(path), (32, 48)) == onnx.load(path)
    with pytest.raises(DataError, match="not for frames of 64x96"):
        at_size(onnx.load(path), (64, 96))
    assert sizes_of(onnx.load(path)) == []


def test_a_size_that_the_file_promises_but_has_not_is_refused(sized: Path) -> None:
    model = onnx.load(sized)
    about = json.loads(model.metadata_props[0].value)
    about["input_sizes_hw"] = [[64, 96], [24, 48]]
    model.metadata_props[0].value = json.dumps(about)
    onnx.save(model, sized)
    for engine in ENGINES:
        with pytest.raises(ModelMismatch, match="24x48, which cannot be found"):
            load(read_model_file(sized), engine, all_sizes=True)
    with pytest.raises(DataError, match="24x48, only for 64x96, 32x48, 16x24"):
        at_size(model, (24, 48))


@pytest.mark.parametrize("sizes", [[(64, 96), (96, 64)], [(32, 48), (64, 96)]])
def test_sizes_that_do_not_shrink_are_refused(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="fewer pixels"):
        export(
            faster_rcnn("mobilenet_v2_fpn"),
            path,
            frame_hw=sizes[0],
            smaller_hw=sizes[1:],
            class_names=STREET_NAMES,
        )
    with pytest.raises(ModelMismatch, match="smaller than the one before"):
        read_model_file(write_sized(path, sizes))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size_hw", [None, *THREE])
def test_a_file_can_be_judged_at_each_of_its_sizes(
    tmp_path: Path, sized: Path, size_hw: tuple[int, int] | None, engine: str
) -> None:
    alone = write_plain(tmp_path / "plain.onnx", size_hw or THREE[0])
    picture = noise(1, (70, 110))[0]
    wanted = load_detector(str(alone), engine).detect(picture)
    found = load_detector(str(sized), engine, input_hw=size_hw).detect(picture)
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("purpose", ["recording", "camera"])
def test_calls_of_several_sizes_may_be_under_way_at_once(
    tmp_path: Path, sized: Path, engine: str, purpose: Purpose
) -> None:
    wanted = {
        size_hw: by_onnxruntime(write_plain(tmp_path / "p.onnx", size_hw), noise(2, size_hw))
        for size_hw in THREE
    }
    settings = {"batch": 3, "all_sizes": True}
    with load(read_model_file(sized), engine, purpose, **settings) as loaded:
        pending = [(size, loaded.submit(noise(2, size))) for size in (*THREE, *reversed(THREE))]
        for size_hw, answer in reversed(pending):
            assert_same(answer.result(), wanted[size_hw])
        assert loaded.calls == 6


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_was_not_asked_for_all_sizes_has_the_usual_one(
    sized: Path, engine: str
) -> None:
    with load(read_model_file(sized), engine) as loaded:
        assert loaded.sizes_hw == ((64, 96),)
        assert loaded.infer(noise(1, (64, 96)))["scores"].shape == (1, 96)
        with pytest.raises(ValueError, match="of 64x96, got"):
            loaded.infer(noise(1, (32, 48)))
