"""The engine for programs of torch: choosing it, its answers, what it keeps, what it refuses."""

from __future__ import annotations

import inspect
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'models' is not installed")

import torch

import pipeline.engines.program as program_engine
import pipeline.engines.program_compile as program_compile
import pipeline.engines.program_tools as program_tools
from pipeline.checkup.questions import look_at_torch
from pipeline.checkup.verdict import judge
from pipeline.engines import load_engine
from pipeline.engines.cache_folder import CacheFolder
from pipeline.engines.nvidia import Driver, Gpu
from pipeline.engines.precision import choose_gpu_precision
from pipeline.engines.program_compile import Compiled, NotCompiled, ProgramCompiler
from pipeline.engines.program_cuda import CudaRunner
from pipeline.errors import ConfigError, EngineError, EngineUnavailable, ModelMismatch
from pipeline.machine import instruction_sets
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from tests.pipeline.doctors_report import report_of
from tests.pipeline.model_files import SLOTS, images, load, write_model
from tests.pipeline.programs import Cells, SlotsMissing, write_program_file
from tests.pipeline.stand_in_torch_cuda import StandInTorchCuda

HAS_BF16 = bool((instruction_sets() or {}).get("bf16"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_program_file(tmp_path_factory.mktemp("program") / "cells.pt2")


@pytest.fixture(scope="module")
def model(path: Path) -> ModelFile:
    return read_model_file(path)


def program(model: ModelFile, **settings: Any):
    """The engine without a compiler, unless told otherwise."""
    return load(model, "program", **{"build": False, "cache": None} | settings)


def expected(given: np.ndarray) -> dict[str, np.ndarray]:
    names = ("boxes", "scores", "labels", "exact")
    with torch.no_grad():
        found = Cells().eval()(torch.from_numpy(given))
    return {name: one.numpy() for name, one in zip(names, found, strict=True)}


def assert_alike(a: dict[str, np.ndarray], b: dict[str, np.ndarray], apart: float = 1e-4) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), atol=apart)


def test_auto_takes_the_engine_that_a_program_is_for(model: ModelFile) -> None:
    settings = EngineSettings(build=False, cache=None)
    with load_engine(model, settings) as engine:
        assert engine.name == "program" and engine.batch == 1
        assert engine.reason.startswith("the file is a program of torch; f32 because")
        assert "operator by operator, because engine.build is false" in engine.reason


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "tensorrt"])
def test_other_engines_are_not_given_a_program(model: ModelFile, name: str) -> None:
    with pytest.raises(ConfigError, match=f"--engine {name} runs ONNX files.*program or auto"):
        load(model, name)


def test_an_onnx_file_is_refused_with_the_command_that_makes_a_program(tmp_path: Path) -> None:
    onnx = read_model_file(write_model(tmp_path / "m.onnx"))
    with pytest.raises(ConfigError, match=r"python -m models\.program .*m\.onnx --out m\.pt2"):
        program(onnx)


def test_answers_are_those_of_the_network_for_every_number_of_images(model: ModelFile) -> None:
    with program(model, batch=3) as engine:
        for n in (1, 3, 2):
            given = images(n, seed=n)
            given.flags.writeable = False
            assert_alike(engine.infer(given), expected(images(n, seed=n)))
        assert engine.calls == 3 and engine.busy_seconds > 0 and engine.in_flight == 1
        with pytest.raises(ValueError, match="1 to 3 images"):
            engine.infer(images(4))


def test_threads_are_as_the_settings_say(model: ModelFile) -> None:
    before = torch.get_num_threads()
    try:
        with program(model, threads=2):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")
def test_bf16_is_rougher_and_near(model: ModelFile) -> None:
    with program(model, precision="bf16") as engine:
        assert engine.precision == "bf16"
        found, exact = engine.infer(images(1)), expected(images(1))
    difference = np.abs(found["scores"] - exact["scores"]).max()
    assert 0 < difference < 0.05 and found["boxes"].dtype == np.float32


def test_f16_is_for_gpus(model: ModelFile) -> None:
    with pytest.raises(ConfigError, match="on an NVIDIA GPU"):
        program(model, precision="f16")
    assert choose_gpu_precision(model, "auto")[0] == "f32"
    assert choose_gpu_precision(model, "f16") == ("f16", "f16 as asked")


def test_a_gpu_takes_f16_where_bf16_is_known_to_be_accurate(tmp_path: Path) -> None:
    check = {"precision_check": {"f32": 0.42, "bf16": 0.419}}
    checked = read_model_file(write_model(tmp_path / "m.onnx", check))
    assert choose_gpu_precision(checked, "auto") == (
        "f16",
        "f16, finer than bf16, because the model file's own check shows AP 0.419 against 0.420 "
        "with f32",
    )


def test_a_program_has_no_form_in_int8(model: ModelFile) -> None:
    with pytest.raises(ConfigError, match="does not compute in int8; use --engine openvino"):
        program(model, precision="int8")
    with pytest.raises(ConfigError, match="no form in int8"):
        choose_gpu_precision(model, "int8")


def test_without_torch_the_remedy_is_named(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineUnavailable, match="run `pip install torch`"):
        program(model)


# Compiling


@pytest.mark.timeout(600)  # a C++ compiler is slow where others compute
def test_what_was_compiled_is_kept_and_answers_the_same(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("there is no C++ compiler here")
    kept: dict[str, Any] = {"cache": str(tmp_path / "cache"), "batch": 2}
    with program(model, build=True, **kept) as engine:
        assert engine.reason.endswith(", compiled"), engine.reason
        first = [engine.infer(images(n, seed=n)) for n in (1, 2)]  # one of them is filled up
    for n, found in zip((1, 2), first, strict=True):
        assert_alike(found, expected(images(n, seed=n)))

    def refuse(*_: object) -> None:
        raise AssertionError("it was read, or compiled")

    monkeypatch.setattr(program_engine, "read_program", refuse)
    monkeypatch.setattr(ProgramCompiler, "_package", refuse)
    with program(model, **kept) as engine:  # though nothing may be built
        assert engine.reason.endswith("compiled by an earlier run")
        assert_alike(engine.infer(images(2, seed=2)), first[1], 0)


def test_a_compiler_that_gives_up_is_no_reason_not_to_run_and_is_asked_once(
    model: ModelFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = list[bool]()

    def give_up(*_: object, **__: object) -> None:
        asked.append("which takes a minute" in caplog.text)  # said before, not afterwards
        raise RuntimeError("C++ compile error\n  in cpp_builder.py")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", give_up)
    monkeypatch.setattr(program_compile, "missing_tools", lambda *_, **__: None)
    kept = {"build": True, "cache": str(tmp_path)}
    for ends in ("cannot be compiled (C++ compile error)", "=null, tries again"):
        with program(model, **kept) as engine:
            assert "operator by operator, because it cannot be compiled (C++ comp" in engine.reason
            assert engine.reason.endswith(ends)
            assert_alike(engine.infer(images(1)), expected(images(1)))
    assert asked == [True]
    monkeypatch.setattr(program_compile, "tools", lambda **_: {"compiler": "another"})
    program(model, **kept)
    assert len(asked) == 2


def test_a_full_disk_is_no_reason_not_to_compile_the_next_time(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[None]()

    def fill(*_: object, **__: object) -> None:
        asked.append(None)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fill)
    monkeypatch.setattr(program_compile, "missing_tools", lambda *_, **__: None)
    for _ in range(2):
        with program(model, build=True, cache=str(tmp_path)) as engine:
            assert "No space left on device" in engine.reason
    assert len(asked) == 2


def test_where_no_compiler_starts_none_is_asked(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> str:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", fail)
    monkeypatch.setattr(ProgramCompiler, "_package", lambda *_: pytest.fail("it was asked"))
    with program(model, build=True) as engine:
        assert "because there is no C++ compiler that starts: install g++" in engine.reason
    assert "minute" not in caplog.text


def test_without_cudas_toolkit_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_tools, "cpp_compiler", lambda: "g++")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", None)
    remedy = "install that of CUDA 13.0, or let CUDA_HOME name its folder"
    assert program_tools.missing_tools(torch, on_gpu=False) is None
    said = program_tools.missing_tools(torch, on_gpu=True)
    assert said == f"for a GPU torch compiles with CUDA's toolkit, which is not here: {remedy}"
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", str(tmp_path))
    for header in program_tools.CUDA_HEADERS:
        said = program_tools.missing_tools(torch, on_gpu=True)
        assert said is not None and f"has no include/{header}: {remedy}" in said
        (tmp_path / "include" / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "include" / header).touch()
    assert program_tools.missing_tools(torch, on_gpu=True) is None


def test_machine_code_that_finds_something_else_is_not_used_and_not_kept(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = list[str]()

    def wrong(self: Any, program: Any, given: Any, module: Any, *, may_build: bool) -> Any:
        def call(*tensors: Any) -> Any:
            boxes, scores, labels, exact = module()(*tensors)
            return boxes, 1 - scores * 0.2, labels, exact

        return Compiled(call, True, (tmp_path / "kept").touch, refused.append)

    monkeypatch.setattr(ProgramCompiler, "compiled", wrong)
    with program(model, build=True) as engine:
        assert "what was compiled finds something else" in engine.reason
        assert len(refused) == 1 and refused[0] in engine.reason
        assert_alike(engine.infer(images(1)), expected(images(1)))
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("on_gpu", [True, False])
def test_machine_code_for_a_gpu_asks_nothing_while_it_is_captured(
    on_gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways, real = [], inspect.signature(torch._inductor.aoti_load_package)
    assert "run_single_threaded" in real.parameters
    monkeypatch.setattr(program_compile, "missing_tools", lambda *_, **__: None)
    monkeypatch.setattr(ProgramCompiler, "_package", lambda *_: b"machine code")
    monkeypatch.setattr(
        torch._inductor,
        "aoti_load_package",
        lambda path, run_single_threaded=False: ways.append(run_single_threaded),
    )
    given = [SimpleNamespace(shape=(1,), is_cuda=on_gpu)]
    for _ in range(2):  # compiled, and kept
        compiler = ProgramCompiler(torch, CacheFolder(tmp_path), {})
        compiler.compiled(b"program", given, torch.nn.Identity, may_build=True).keep()
    assert ways == [on_gpu] * 2


# A GPU of straw


@pytest.fixture
def _backends() -> Iterator[None]:
    """What the engine tells torch for a GPU is taken back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    yield
    cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = before


@pytest.fixture
def _straw(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch finds a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA of straw")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))


@pytest.mark.usefixtures("_backends", "_straw")
def test_a_gpu_that_fails_while_a_program_is_loaded_is_an_engine_error(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with ...")

    monkeypatch.setattr(torch.Tensor, "to", fail)
    with pytest.raises(EngineError, match=r"failed \(CUDA error: out of memory\); look at nvidia"):
        program(model)


@pytest.fixture
def _runner(_straw: None, _backends: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes on the CPU."""
    real = CudaRunner
    monkeypatch.setattr(
        program_engine, "CudaRunner", lambda cuda, *given: real(StandInTorchCuda(), *given)
    )
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, kind, *a, **k: self if kind == "cuda" else to(self, kind)
    )
    monkeypatch.setattr(torch.fx.GraphModule, "to", lambda self, _: self)


@pytest.mark.usefixtures("_runner")
def test_a_size_that_cannot_be_compiled_for_a_gpu_is_the_last_that_is_tried(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[int]()

    def give_up(self: Any, program: Any, given: Any, module: Any, *, may_build: bool) -> Any:
        tried.append(len(given[0]))
        raise NotCompiled("CUDA's toolkit is not here")

    monkeypatch.setattr(ProgramCompiler, "compiled", give_up)
    with program(model, build=True) as engine:
        assert engine.reason.endswith("because CUDA's toolkit is not here, in CUDA graphs")
        assert tried == [1]
        assert_alike(engine.infer(images(3)), expected(images(3)))


@pytest.mark.usefixtures("_runner")
def test_on_a_gpu_calls_are_under_way_and_come_back_right(model: ModelFile) -> None:
    with program(model) as engine:
        assert (engine.batch, engine.in_flight, engine.precision) == (4, 2, "f32")
        assert engine.reason.endswith("in CUDA graphs")
        assert not torch.backends.cudnn.allow_tf32  # f32 is f32
        given = [images(n, seed) for seed, n in enumerate((1, 4, 3, 2))]
        pending = [engine.submit(one) for one in given]
        for answer, one in zip(pending, given, strict=True):
            assert_alike(answer.result(), expected(one))
        assert engine.calls == 4


@pytest.mark.parametrize(("cuda", "built"), [(None, "the CPU"), ("14.1", "CUDA 14.1")])
def test_a_torch_that_cannot_use_the_gpu_says_so(
    model: ModelFile, monkeypatch: pytest.MonkeyPatch, cuda: str | None, built: str
) -> None:
    there = Driver((13, 1), (Gpu("NVIDIA of straw", (9, 0), 1 << 34),))
    monkeypatch.setattr(program_tools, "driver", lambda: there)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = (
        f"this torch ({torch.__version__}, built for {built}) cannot use the NVIDIA of straw: "
        "install one that is built for CUDA, 13.1 at the newest"
    )
    with program(model) as engine:
        assert engine.reason.endswith(f"; {told}")
    report = report_of() | {"torch": look_at_torch()}
    report["gpu"] = {"error": None, "gpus": [{"name": "NVIDIA of straw"}]}
    assert f"programs of torch (.pt2) on the GPU: {told}" in judge(report)["faster"]


# Files that are no good


def test_every_truncation_of_a_program_is_refused(path: Path, tmp_path: Path) -> None:
    whole, cut = path.read_bytes(), tmp_path / "cut.pt2"
    for length in [*range(4, len(whole), len(whole) // 50), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        # Inside it is a smaller archive, which a cut may leave whole at the end.
        with pytest.raises(ModelMismatch, match=r"copy or export it again|models\.export"):
            read_model_file(cut)


def test_an_archive_of_somebody_else_is_not_ours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("other/extra/somebody", "{}")
    with pytest.raises(ModelMismatch, match=r"it holds no 'boxstream' entry.*models\.export"):
        read_model_file(tmp_path / "other.pt2")


def test_an_archive_that_torch_cannot_read_is_a_model_mismatch(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/extra/boxstream"))
        entry = archive.read(name)
    with zipfile.ZipFile(tmp_path / "hollow.pt2", "w") as archive:
        archive.writestr(name, entry)
    with pytest.raises(ModelMismatch, match="export it again, with this version") as caught:
        program(read_model_file(tmp_path / "hollow.pt2"))
    assert "\n" not in str(caught.value)


def test_a_graph_without_the_promised_outputs_is_a_model_mismatch(tmp_path: Path) -> None:
    file = write_program_file(tmp_path / "m.pt2", {"outputs": ["boxes", "scores", "labels"]})
    with pytest.raises(ModelMismatch, match="promises 1 inputs and 3 outputs"):
        program(read_model_file(file))
    file = write_program_file(tmp_path / "n.pt2", network=SlotsMissing())
    with pytest.raises(ModelMismatch, match=rf"'boxes' has shape \(1, {SLOTS}, 3\)"):
        program(read_model_file(file))


# The doctor


def test_the_doctor_sees_torch_and_what_it_compiles_with() -> None:
    found = look_at_torch()
    assert found["version"] == torch.__version__
    assert found["gpu"] is None or torch.cuda.is_available()
    assert found["compiler"] is None or "/" not in found["compiler"]
    assert found["unused_gpu"] is None or found["gpu"] is None
