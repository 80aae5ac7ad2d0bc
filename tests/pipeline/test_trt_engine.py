"""The TensorRT engine at work, on stand-ins for CUDA and TensorRT that compute on the CPU."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import run_stream
from models.onnx_lint import lint
from pipeline.engines.trt import batch_sizes
from pipeline.engines.trt_graph import operators, static_graph
from pipeline.engines.trt_machine import Machine
from pipeline.engines.trt_run import PlanRunner
from pipeline.errors import ConfigError, EngineError, EngineUnavailable, ModelMismatch
from pipeline.model_file.reading import ModelFile, read_model_file
from tests.models.sized import write_sized
from tests.pipeline.gpu import StrawGpu, install, make_lean
from tests.pipeline.model_files import ENTRY, HEIGHT, SLOTS, WIDTH, images, load, write_model
from tests.pipeline.stand_in_tensorrt import SCRATCH, Context
from tests.pipeline.task_files import REGIONS, write_instance, write_regional, write_semantic

STREET = Path(__file__).parents[2] / "models" / "zoo" / "street.onnx"
LAZY, HASTY_COPIES, HASTY_WORK, HASTY = (), (0,), (1,), (0, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture
def straw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrawGpu:
    return install(monkeypatch, tmp_path / "plans")


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), atol=1e-4)


@pytest.mark.parametrize("hasty", [LAZY, HASTY_COPIES, HASTY_WORK, HASTY])
@pytest.mark.parametrize("graphs", [True, False])
def test_calls_under_way_keep_apart_however_the_streams_get_on(
    model: ModelFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hasty: tuple[int, ...],
    graphs: bool,
) -> None:
    straw = install(monkeypatch, tmp_path / "plans", hasty)
    straw.trt.faults.capture = not graphs
    counts = [1, 3, 2, 3, 1, 1, 2, 3, 3, 2]
    with load(model, "onnxruntime", batch=3) as other:
        expected = [other.infer(images(n, seed)) for seed, n in enumerate(counts)]
    with straw.engine(model) as engine:
        pending = []
        for seed, n in enumerate(counts):
            given = images(n, seed)
            pending.append(engine.submit(given))
            given[:] = 7  # the engine took a copy
        for answer, wanted in reversed(list(zip(pending, expected, strict=True))):
            assert_same(answer.result(), wanted)
        for seed, n in enumerate(counts):  # now memory is used again
            assert_same(engine.infer(images(n, seed)), expected[seed])
    assert straw.cuda.left() == {}


def test_the_next_images_are_copied_while_a_batch_is_computed(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straw = install(monkeypatch, tmp_path / "plans", HASTY_COPIES)
    with straw.engine(model) as engine:
        copying, computing = straw.cuda.streams.values()
        for _ in range(2):
            engine.submit(images(3))
            assert computing.waiting
            assert not copying.waiting
        engine.submit(images(3))
        assert copying.waiting  # both places are in use


def test_the_arrays_have_the_shapes_of_the_contract(straw: StrawGpu, model: ModelFile) -> None:
    with straw.engine(model) as engine:
        for n in (1, 2, 3):
            found = engine.infer(images(n))
            assert found["boxes"].shape == (n, SLOTS, 4)
            assert found["scores"].shape == found["labels"].shape == (n, SLOTS)
            assert found["exact"].tolist() == [True] * n
            assert found["labels"].dtype == np.int64


def test_answers_are_the_callers_own_and_may_be_asked_for_twice(
    straw: StrawGpu, model: ModelFile
) -> None:
    with straw.engine(model) as engine:
        first = engine.submit(images(3, seed=1))
        found = first.result()
        kept = {name: rows.copy() for name, rows in found.items()}
        engine.infer(images(3, seed=2))
        assert_same(found, kept)
        assert first.result() is found
        found["boxes"][:] = -1  # writable


def test_the_engine_counts_its_calls_and_the_time_that_the_gpu_worked(
    straw: StrawGpu, model: ModelFile
) -> None:
    with straw.engine(model) as engine:
        assert (engine.calls, engine.busy_seconds) == (0, 0.0)  # the golden input is not counted
        assert engine.load_seconds > 0
        started = time.perf_counter()
        for pending in [engine.submit(images(3)) for _ in range(5)]:
            pending.result()
        assert engine.calls == 5
        assert 0 < engine.busy_seconds <= time.perf_counter() - started


def test_an_answer_may_be_waited_for_on_another_thread(straw: StrawGpu, model: ModelFile) -> None:
    found = []
    with straw.engine(model) as engine:
        pending = [engine.submit(images(2, seed)) for seed in range(4)]
        thread = threading.Thread(target=lambda: found.extend(p.result() for p in pending))
        thread.start()
        expected = [engine.infer(images(2, seed)) for seed in range(4)]
        thread.join()
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


def test_the_reason_says_how_it_computes_and_where_the_plan_came_from(
    straw: StrawGpu, model: ModelFile
) -> None:
    with straw.engine(model) as engine:
        assert (engine.name, engine.precision, engine.batch) == ("tensorrt", "tf32", 3)
        assert engine.reason.startswith("asked; products of float32 rounded to tf32, in CUDA graph")
        assert "agrees with onnxruntime" in engine.reason
    with straw.engine(model) as engine:
        assert engine.reason.endswith("its plan was in the cache")


def test_a_call_of_few_images_takes_the_next_larger_batch_size() -> None:
    assert [batch_sizes(n) for n in (1, 2, 3, 8)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8)]


def test_recordings_get_larger_batches_than_cameras(straw: StrawGpu, model: ModelFile) -> None:
    with straw.engine(model, batch=0, latency=True) as engine:
        assert engine.batch == 1
    with straw.engine(model, batch=0) as engine:
        assert engine.batch == 4
    assert [batches for _, batches in straw.trt.built] == [(1,), (1, 2, 4)]


def test_all_profiles_compute_in_one_block_that_outlives_their_contexts(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = list[int]()
    malloc = straw.cuda.cudaMalloc
    monkeypatch.setattr(straw.cuda, "cudaMalloc", lambda size: got.append(size) or malloc(size))
    with straw.engine(model) as engine:
        assert (straw.trt.contexts, straw.trt.built) == (3, [("tf32", (1, 2, 3))])
        assert got.count(3 * SCRATCH) == 1 and not {SCRATCH, 2 * SCRATCH} & set(got)
        for n in (1, 2, 3):
            engine.infer(images(n))
    assert (straw.trt.contexts, straw.trt.crashes, straw.cuda.left()) == (0, 0, {})


# What goes wrong


def test_memory_that_tensorrt_does_not_take_is_an_error_in_its_words(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    straw.engine(model).__exit__(None, None, None)
    refuse = Context.set_device_memory

    def set_less(context: Context, memory: int, size: int) -> None:
        refuse(context, memory, size - 1)

    monkeypatch.setattr(Context, "set_device_memory", set_less)
    with pytest.raises(EngineError, match=r"take memory to compute in \(\d+ bytes are too few\)"):
        straw.engine(model)
    assert straw.cuda.left() == {}


def test_more_images_than_the_batch_are_refused(straw: StrawGpu, model: ModelFile) -> None:
    with straw.engine(model) as engine, pytest.raises(ValueError, match="takes 1 to 3 images"):
        engine.submit(images(4))


@pytest.mark.parametrize(
    ("batches", "says"),
    [((1, 2, 4), r"take frames of shape \(4, 32, 48, 3\)"), ((1, 2), "3 profiles, expected 2")],
)
def test_a_plan_without_a_profile_for_a_batch_is_refused(
    straw: StrawGpu, model: ModelFile, batches: tuple[int, ...], says: str
) -> None:
    straw.engine(model).__exit__(None, None, None)
    (plan,) = straw.folder.glob("*/plan")
    with ExitStack() as end:
        machine = Machine.here(end)
        with pytest.raises(EngineError, match=says):
            PlanRunner(machine, plan.read_bytes(), (HEIGHT, WIDTH), batches)
    assert straw.cuda.left() == {}


@pytest.mark.parametrize(
    "broken", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", None]
)
def test_work_that_cannot_be_captured_is_enqueued_each_time(
    straw: StrawGpu, model: ModelFile, broken: str | None
) -> None:
    if broken:
        straw.cuda.fail[broken] = 900
    else:
        straw.trt.faults.capture = True
    with load(model, "onnxruntime", batch=3) as other, straw.engine(model) as engine:
        assert "without CUDA graphs, because" in engine.reason
        for seed in range(4):
            assert_same(engine.infer(images(3, seed)), other.infer(images(3, seed)))
    assert straw.cuda.left() == {}


def test_a_failed_enqueue_is_an_error_with_tensorrts_words_and_the_next_call_goes_on(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.capture = True
    with straw.engine(model) as engine:
        expected = engine.infer(images(2))
        straw.trt.faults.enqueue = True
        with pytest.raises(EngineError, match=r"could not run \(an address is missing") as caught:
            engine.submit(images(2, seed=1))
        assert caught.value.exit_code == 4
        straw.trt.faults.enqueue = False
        for _ in range(3):
            assert_same(engine.infer(images(2)), expected)
    assert straw.cuda.left() == {}


@pytest.mark.parametrize("function", ["cudaGraphLaunch", "cudaMemcpyAsync", "cudaEventSynchronize"])
def test_a_gpu_that_fails_in_mid_run_is_an_engine_error(
    straw: StrawGpu, model: ModelFile, function: str
) -> None:
    with straw.engine(model) as engine:
        straw.cuda.fail[function] = 719
        with pytest.raises(EngineError, match=f"{function}: error 719.*nvidia-smi"):
            engine.infer(images(1))
        straw.cuda.fail.clear()
    assert straw.cuda.left() == {}


BROKEN = r"cudaEventSynchronize: error 719.*nvidia-smi"


def test_a_gpu_that_stays_broken_is_told_of_once_and_the_end_adds_nothing(
    straw: StrawGpu, model: ModelFile
) -> None:
    with straw.engine(model) as engine:
        pending = engine.submit(images(1))
        straw.cuda.broken = 719  # real failures stay: whatever is called gives them again
        with pytest.raises(EngineError, match=BROKEN):
            pending.result()
    with (
        pytest.raises(EngineError, match="cudaStreamCreateWithFlags: error 719"),
        straw.engine(model),
    ):
        pass


def test_a_gpu_that_breaks_while_a_plan_is_tried_is_told_of_in_its_own_words(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(event: object) -> tuple[int]:
        straw.cuda.broken = 719
        return (719,)

    monkeypatch.setattr(straw.cuda, "cudaEventSynchronize", break_down)
    with pytest.raises(EngineError, match=BROKEN):
        straw.engine(model)


def test_a_gpu_that_breaks_in_mid_run_leaves_the_report_and_says_what_broke(
    straw: StrawGpu,
    model: ModelFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    straw.engine(model).__exit__(None, None, None)
    launch, launched, report = straw.cuda.cudaGraphLaunch, itertools.count(), tmp_path / "r.json"

    def break_down(graph: object, stream: object) -> tuple[int]:
        if next(launched) == 6:
            straw.cuda.broken = 719
        return launch(graph, stream)

    monkeypatch.setattr(straw.cuda, "cudaGraphLaunch", break_down)
    words = ["synthetic://street?seed=1&size=96x64&fps=10&seconds=3", "--model", str(model.path)]
    words += ["--engine", "tensorrt", "--batch", "3", "--report", str(report)]
    assert run_stream.main([*words, "--out", str(tmp_path / "found.jsonl")]) == 4
    told = json.loads(report.read_text())
    assert "cudaGraphLaunch: error 719" in told["error"]
    assert 0 < told["totals"]["frames"] < 30
    assert "cudaGraphLaunch: error 719" in capsys.readouterr().err


def test_the_end_waits_for_calls_under_way_and_gives_everything_back(
    straw: StrawGpu, model: ModelFile
) -> None:
    with straw.engine(model) as engine:
        answered = engine.submit(images(3))
        answered.result()
        pending = [engine.submit(images(3, seed)) for seed in range(5)]
    assert straw.cuda.left() == {}
    assert set(answered.result()) == set(ENTRY["outputs"])
    with pytest.raises(EngineError, match="closed"):
        pending[0].result()
    with pytest.raises(EngineError, match="closed"):
        engine.submit(images(1))


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMallocHost", "cudaEventCreateWithFlags"])
def test_what_an_engine_that_cannot_be_loaded_had_got_is_given_back(
    straw: StrawGpu, model: ModelFile, function: str
) -> None:
    straw.engine(model).__exit__(None, None, None)
    straw.cuda.fail[function] = 2
    for batch in (3, 2):  # with a plan in the cache, and without
        with pytest.raises(EngineError, match=f"{function}: error 2"):
            straw.engine(model, batch=batch)
    assert straw.cuda.left() == {}
    assert len(list(straw.folder.glob("*/plan"))) == 1  # it has done nothing wrong


# Models


def test_every_size_of_a_file_has_a_plan_without_open_sides(
    straw: StrawGpu, tmp_path: Path
) -> None:
    sized = read_model_file(write_sized(tmp_path / "sized.onnx"))
    assert sized.smaller_hw
    with (
        load(sized, "onnxruntime", all_sizes=True, batch=2) as other,
        straw.engine(sized, all_sizes=True, batch=2) as engine,
    ):
        assert engine.sizes_hw == sized.input_sizes_hw
        for size_hw in (*sized.input_sizes_hw, *sized.input_sizes_hw):
            given = np.random.default_rng(3).integers(0, 256, (2, *size_hw, 3), dtype=np.uint8)
            assert_same(engine.infer(given), other.infer(given))
    assert straw.cuda.left() == {}


def test_a_model_of_another_task_is_run_and_compared(straw: StrawGpu, tmp_path: Path) -> None:
    for write in (write_semantic, write_instance):
        other = read_model_file(write(tmp_path / "m.onnx"))
        with load(other, "onnxruntime") as wanted, straw.engine(other, batch=1) as engine:
            assert_same(engine.infer(images(1)), wanted.infer(images(1)))
            assert "agrees with onnxruntime" in engine.reason


def test_regions_go_in_beside_the_images(straw: StrawGpu, tmp_path: Path) -> None:
    regional = read_model_file(write_regional(tmp_path / "m.onnx"))
    regions = np.random.default_rng(1).random((2, REGIONS, 4)).astype(np.float32)
    with load(regional, "onnxruntime", batch=2) as other, straw.engine(regional) as engine:
        assert_same(engine.infer(images(2), regions), other.infer(images(2), regions))
        assert " boxes, lowest IoU 1.000" in engine.reason


def test_what_tensorrt_is_given_of_the_bundled_model_is_static_but_for_the_batch(
    tmp_path: Path,
) -> None:
    street = read_model_file(STREET)
    for size_hw in street.input_sizes_hw:
        content = static_graph(street, size_hw)
        proto = onnx.load_from_string(content)
        (frames,) = proto.graph.input
        sides = [side.dim_value for side in frames.type.tensor_type.shape.dim]
        assert sides == [0, *size_hw, 3]
        assert sorted(operators(content)) == sorted(node.op_type for node in proto.graph.node)
        for entry in proto.metadata_props:  # the rest of the entry tells of several sizes
            entry.value = '{"nms_body": "fixpoint"}'
        onnx.save(proto, tmp_path / "m.onnx")
        assert lint(tmp_path / "m.onnx") == []


def test_a_graph_whose_shapes_depend_on_data_is_refused_with_a_remedy(
    straw: StrawGpu, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"]))
    onnx.save(proto, path)
    with pytest.raises(ModelMismatch, match=r"NonMaxSuppression.*--nms fixpoint.*openvino"):
        straw.engine(read_model_file(path))


def test_a_function_of_the_graph_is_looked_into(tmp_path: Path) -> None:
    hidden = helper.make_function(
        "ours",
        "Search",
        ["x"],
        ["y"],
        [helper.make_node("NonZero", ["x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    proto = onnx.load(write_model(tmp_path / "m.onnx"))
    proto.functions.append(hidden)
    assert "NonZero" in set(operators(proto.SerializeToString()))


@pytest.mark.parametrize("dimension", ["fixed batch", "free width"])
def test_a_graph_that_fixes_or_frees_the_wrong_dimension_is_refused(
    straw: StrawGpu, tmp_path: Path, dimension: str
) -> None:
    regional = write_regional(tmp_path / "m.onnx")
    proto = onnx.load(regional)
    if dimension == "fixed batch":
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    else:
        proto.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "r"
    onnx.save(proto, regional)
    with pytest.raises(ModelMismatch, match="expected a free batch and everything else fixed"):
        straw.engine(read_model_file(regional))


def test_a_graph_that_tensorrt_cannot_read_is_a_model_mismatch(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.unknown = "ArgMax"
    with pytest.raises(
        ModelMismatch, match=r"cannot read m\.onnx at 32x48.*ArgMax: no imp"
    ) as caught:
        straw.engine(model)
    assert "\n" not in str(caught.value)


def test_a_library_that_the_parser_lacks_is_named_with_its_package(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.library = "libnvinfer_vc_plugin.so.nowhere"
    with pytest.raises(
        EngineUnavailable, match=r"Unable to open library: .*so\.nowhere.*tensorrt-lean-cu13-libs"
    ):
        straw.engine(model)


def test_the_library_that_the_parser_opens_by_name_is_loaded_from_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    if not (compiler := shutil.which("gcc")):
        pytest.skip("there is no gcc to make a library with")
    package, name = tmp_path / "tensorrt_lean_libs", "libnvinfer_vc_plugin.so.10"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('it loads a second runtime')")
    command = [compiler, "-shared", f"-Wl,-soname,{name}", "-o", package / name, "-x", "c", "-"]
    subprocess.run(command, input=b"", check=True)
    straw = install(monkeypatch, tmp_path / "plans", version="10.15.1.29")
    straw.trt.faults.library = name
    with pytest.raises(EngineUnavailable, match="Unable to open library"):
        straw.engine(model)
    monkeypatch.syspath_prepend(tmp_path)
    with straw.engine(model) as engine:
        assert "its plan was built" in engine.reason
    assert "tensorrt_lean_libs" not in sys.modules


def test_a_graph_without_the_promised_outputs_is_a_model_mismatch(
    straw: StrawGpu, model: ModelFile
) -> None:
    promises = replace(model, outputs=(*model.outputs, "masks"), path=model.path)
    with pytest.raises(ModelMismatch, match="promises"):
        straw.engine(promises)
    assert straw.cuda.left() == {}


# Precision


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_half_precision_is_not_tensorrts_to_choose(
    straw: StrawGpu, model: ModelFile, precision: str
) -> None:
    with pytest.raises(ConfigError, match="the types that the model file's graph has"):
        straw.engine(model, precision=precision)


def test_f32_is_exact_and_auto_is_exact_where_tf32_fails_its_check(
    straw: StrawGpu, model: ModelFile, caplog: pytest.LogCaptureFixture
) -> None:
    with straw.engine(model, precision="f32") as engine:
        assert (engine.precision, straw.trt.built) == ("f32", [("f32", (1, 2, 3))])
    straw.trt.faults.scores["tf32"] = -0.05
    for _ in range(2):  # the refusal is kept like a plan
        with straw.engine(model) as engine:
            assert engine.precision == "f32"
            assert "asked; f32, in CUDA graphs" in engine.reason
    assert "largest score difference 0.05" in caplog.text
    every = [("f32", (1, 2, 3)), ("tf32", (1, 2, 3)), ("tf32", (1,))]
    assert straw.trt.built == every  # the last to see which layers moved


# Packages


def test_an_old_tensorrt_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    straw = install(monkeypatch, tmp_path, version="10.12.0.36")
    with pytest.raises(EngineUnavailable, match=r"10\.13 is the oldest"):
        straw.engine(model)


@pytest.mark.parametrize(
    ("streams", "says"), [(0, r"cannot use the GPU \(CUDA init"), (35, "cudaStreamCreateWithFlags")]
)
def test_a_driver_that_is_too_old_for_tensorrt_is_an_error_and_no_crash(
    straw: StrawGpu, model: ModelFile, streams: int, says: str
) -> None:
    straw.engine(model).__exit__(None, None, None)
    straw.trt.faults.driver = True
    straw.cuda.fail["cudaStreamCreateWithFlags"] = streams
    remedy = r"nvidia-smi.* tensorrt-cu12 .*'cuda-bindings<13'"
    for batch in (3, 2):  # with a plan in the cache, and without
        with pytest.raises(EngineUnavailable, match=f"{says}.*{remedy}"):
            straw.engine(model, batch=batch)
    gc.collect()
    assert straw.trt.crashes == 0
    assert len(list(straw.folder.glob("*/plan"))) == 1  # the plan has done nothing wrong
    assert straw.cuda.left() == {}


def test_the_line_runs_on_it_and_says_so(straw: StrawGpu, model: ModelFile, tmp_path: Path) -> None:
    source = "synthetic://street?seed=1&size=96x64&fps=10&seconds=1.3"
    report = tmp_path / "report.json"
    words = [source, "--model", str(model.path), "--engine", "tensorrt", "--report", str(report)]
    words += ["--out", str(tmp_path / "found.jsonl"), "--quiet"]
    assert run_stream.main([*words, "--no-build"]) == 4
    assert run_stream.main(words) == 0
    told = json.loads(report.read_text())
    assert (told["engine"]["name"], told["engine"]["precision"]) == ("tensorrt", "tf32")
    assert told["totals"]["frames"] == 13
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 13
    assert straw.cuda.left() == {}


def test_a_portable_plan_is_run_by_a_later_version_and_by_the_lean_runtime(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with straw.engine(model, portable=True) as engine:
        expected = engine.infer(images(2))
    straw.trt.__version__ = "11.9.0.1"
    with straw.engine(model) as engine:
        assert_same(engine.infer(images(2)), expected)
    make_lean(monkeypatch, straw)
    with straw.engine(model) as engine:
        assert_same(engine.infer(images(2)), expected)
    assert len(straw.trt.built) == 1


def test_the_lean_runtime_without_a_plan_says_where_one_is_made(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lean(monkeypatch, straw)
    with pytest.raises(EngineUnavailable, match=r"only runs plans.*pipeline\.build.* --portable`"):
        straw.engine(model)
    with pytest.raises(EngineUnavailable, match="only runs plans"):
        straw.engine(model, portable=True)
