"""OpenVINO goes on from what an earlier run compiled, and answers the same to the bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import numpy_helper

from pipeline.cores import processor_flags
from pipeline.engines import Purpose, ov_compiler
from pipeline.engines.cache_folder import CacheFolder
from pipeline.engines.ov_core import the_core
from pipeline.model_file.reading import ModelFile, read_model_file
from tests.pipeline.model_files import ENTRY, images, load, write_model

REPOSITORY = Path(__file__).resolve().parents[2]
HAS_BF16 = "BF16" in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return read_model_file(write_model(tmp_path / "m.onnx"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def answers(model: ModelFile, folder: Path | None, **asked) -> dict[str, np.ndarray]:
    with load(model, "openvino", cache=None if folder is None else str(folder), **asked) as engine:
        return engine.infer(images(1))


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def forbid_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("it was compiled")

    monkeypatch.setattr(openvino.Core, "read_model", refuse)
    monkeypatch.setattr(openvino.Core, "compile_model", refuse)


def test_the_second_start_compiles_nothing(
    model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers(model, folder)
    forbid_compiling(monkeypatch)
    assert_equal(answers(model, folder), first)
    with pytest.raises(RuntimeError, match="it was compiled"):
        answers(model, folder / "another")


@pytest.mark.parametrize("purpose", ["recording", "camera"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("precision", ["f32", *(["bf16"] if HAS_BF16 else [])])
def test_answers_are_equal_to_the_bit_with_and_without_what_was_kept(
    model: ModelFile, folder: Path, purpose: Purpose, batch: int, precision: str
) -> None:
    asked = {"purpose": purpose, "batch": batch, "precision": precision}
    compiled = answers(model, None, **asked)
    assert_equal(answers(model, folder, **asked), compiled)
    assert_equal(answers(model, folder, **asked), compiled)
    assert len(list(folder.iterdir())) == 1


def test_the_bundled_model_answers_the_same_at_each_of_its_sizes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = REPOSITORY / "models" / "zoo" / "street.onnx"
    if not path.exists():
        pytest.skip("the bundled model is not in this checkout")
    model = read_model_file(path)
    rng = np.random.default_rng(3)
    blocks = [rng.integers(0, 256, (1, h // 16, w // 16, 3)) for h, w in model.input_sizes_hw]
    pictures = [b.repeat(16, 1).repeat(16, 2).astype(np.uint8) for b in blocks]
    asked = {"all_sizes": True, "precision": "auto"}
    with load(model, "openvino", cache=None, **asked) as engine:
        compiled = [engine.infer(picture) for picture in pictures]
    load(model, "openvino", cache=str(folder), **asked)
    forbid_compiling(monkeypatch)
    with load(model, "openvino", cache=str(folder), **asked) as engine:
        for picture, expected in zip(pictures, compiled, strict=True):
            assert_equal(engine.infer(picture), expected)
    assert any(found["boxes"].any() for found in compiled)


def test_a_model_file_that_changes_in_its_place_is_compiled_anew(
    model: ModelFile, folder: Path
) -> None:
    before, old = model.path.read_bytes(), answers(model, folder)
    changed = onnx.load(model.path)
    tensor = changed.graph.initializer[1]
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[100] += 0.25
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(changed, model.path)
    new = answers(model, folder)
    assert_equal(new, answers(model, None))
    assert not np.array_equal(new["boxes"], old["boxes"])
    model.path.write_bytes(before)
    assert_equal(answers(model, folder), old)
    assert len(list(folder.iterdir())) == 2


def test_each_version_processor_precision_batch_and_number_of_threads_has_an_entry_of_its_own(
    model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = {"purpose": "camera"}
    ways = [{}, {"threads": 1}, {"batch": 2}, camera, camera | {"batch": 2}]
    ways += [{"precision": "bf16"}] if HAS_BF16 else []
    for _ in range(2):
        for way in ways:
            answers(model, folder, **way)
    assert len(list(folder.iterdir())) == len(ways)
    monkeypatch.setattr(openvino, "get_version", lambda: "another")
    answers(model, folder)
    monkeypatch.setattr(ov_compiler, "processor_flags", lambda: "another")
    answers(model, folder)
    assert len(list(folder.iterdir())) == len(ways) + 2


def test_what_openvino_refuses_to_go_on_from_is_compiled_anew_and_replaced(
    model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers(model, folder)
    (entry,) = folder.iterdir()
    CacheFolder(folder).write(entry.stem, b"whole, but no compiled model")
    assert_equal(answers(model, folder), first)
    forbid_compiling(monkeypatch)
    assert_equal(answers(model, folder), first)


def test_nothing_is_kept_when_it_is_switched_off(
    model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers(model, None)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    with load(model, "openvino"):  # as it is by default
        assert len(list((tmp_path / "boxstream").iterdir())) == 1


def test_a_folder_that_cannot_be_used_is_named_in_the_reason(
    model: ModelFile, folder: Path
) -> None:
    folder.write_bytes(b"a file in its place")
    with load(model, "openvino", cache=str(folder)) as engine:
        assert engine.reason.startswith("OpenVINO as asked; f32 as asked; compiled at every start")
        assert str(folder) in engine.reason
        assert_equal(engine.infer(images(1)), answers(model, None))
    with load(model, "openvino", cache=str(folder.with_name("fine"))) as engine:
        assert engine.reason == "OpenVINO as asked; f32 as asked"


def test_weights_in_another_file_are_in_no_key_so_nothing_is_kept(
    model: ModelFile, folder: Path
) -> None:
    expected = answers(model, None)
    onnx.save(
        onnx.load(model.path),
        model.path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert_equal(answers(read_model_file(model.path), folder), expected)
    assert not folder.exists()


def test_a_model_that_takes_as_long_to_read_as_to_compile_is_not_kept(
    model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = model.path.stat().st_size
    monkeypatch.setattr(ov_compiler, "MOST_MODEL_BYTES", size - 1)
    answers(model, folder)
    assert not folder.exists()
    monkeypatch.setattr(ov_compiler, "MOST_MODEL_BYTES", size)
    answers(model, folder)
    assert len(list(folder.iterdir())) == 1


def test_a_model_file_that_changes_while_it_is_compiled_is_not_kept(
    model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_model = openvino.Core.read_model

    def change_and_read(core: openvino.Core, path: Path) -> openvino.Model:
        path.write_bytes(path.read_bytes() + b"\x3a\x00")  # one more field, empty
        return read_model(core, path)

    monkeypatch.setattr(openvino.Core, "read_model", change_and_read)
    with load(model, "openvino", cache=str(folder)):
        assert not folder.exists()


def test_two_programs_that_start_at_once_share_one_entry(
    model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys\n"
        "from pipeline.model_file.reading import read_model_file\n"
        "from tests.pipeline.model_files import images, load\n"
        f"model = read_model_file({str(model.path)!r})\n"
        "print(flush=True)\n"
        "sys.stdin.readline()\n"
        f"with load(model, 'openvino', cache={str(folder)!r}) as engine:\n"
        "    sys.stdout.write(engine.infer(images(1))['boxes'].tobytes().hex())\n"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for start in starts:  # both are ready, so both begin now
        assert start.stdout and start.stdout.readline() == "\n"
    for start in starts:
        assert start.stdin
        start.stdin.write("\n")
        start.stdin.flush()
    found = [start.communicate(timeout=60)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert len(list(folder.iterdir())) == 1
    forbid_compiling(monkeypatch)
    assert found == [answers(model, folder)["boxes"].tobytes().hex()] * 2


def test_the_processor_is_known_by_what_it_can_do(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : x\nflags\t\t: sse avx2 fpu\n\nflags : sse avx2 fpu\n")
    assert processor_flags(cpuinfo) == "avx2 fpu sse"
    cpuinfo.write_text("Features : neon\n")
    assert processor_flags(cpuinfo) == "neon"
    assert processor_flags(tmp_path / "nothing") == ""


def test_the_names_that_a_graph_promises_are_checked_on_the_way(
    tmp_path: Path, folder: Path
) -> None:
    path = write_model(tmp_path / "m.onnx", {"outputs": [*ENTRY["outputs"], "count"]})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="export it again"):
            answers(read_model_file(path), folder)
    assert not folder.exists()
