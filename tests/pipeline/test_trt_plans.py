"""Plans of TensorRT on disk: when one is taken, discarded, refused or built, and by whom."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline import build
from pipeline.checkup.selftest import SelfTest
from pipeline.commands import MODELS
from pipeline.engines import load_engine
from pipeline.engines.cuda_calls import GpuFailed
from pipeline.engines.trt_cache import PlanCache, PlanKey, plan_folder
from pipeline.engines.trt_progress import BuildBars, build_monitor
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from tests.pipeline.asked_here import asked_here
from tests.pipeline.gpu import GPU, StrawGpu, install
from tests.pipeline.model_files import images, write_int8_form, write_model

KEY = PlanKey("ab", "11.4", "NVIDIA of straw", "9.0", "tf32", (32, 48), (1, 2), False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture
def straw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StrawGpu:
    return install(monkeypatch, tmp_path / "plans")


def started(straw: StrawGpu, model: ModelFile, **options: object) -> str:
    """Start an engine, ask it something, and return what it said of itself."""
    with straw.engine(model, **options) as engine:
        assert len(engine.infer(images(engine.batch))["scores"]) == engine.batch
        return engine.reason


def folder_of(straw: StrawGpu) -> Path:
    """Where the only plan lies."""
    (manifest,) = straw.folder.glob("*/manifest.json")
    return manifest.parent


def test_a_second_start_builds_nothing(straw: StrawGpu, model: ModelFile) -> None:
    started(straw, model)
    assert "in the cache" in started(straw, model)
    assert len(straw.trt.built) == 1


def test_a_plan_is_not_used_for_what_it_was_not_built_for(
    straw: StrawGpu, model: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(straw, model)
    other = write_model(tmp_path / "other.onnx", {"score_threshold": 0.4})
    started(straw, read_model_file(other))
    started(straw, model, batch=4)
    started(straw, model, precision="f32")
    started(straw, model, portable=True)
    straw.trt.__version__ = "11.5.0.1"
    started(straw, model, batch=4)
    assert len(straw.trt.built) == 6
    monkeypatch.setattr("tests.pipeline.gpu.GPU", replace(GPU, name="another GPU"))
    started(straw, model, batch=4)
    assert len(straw.trt.built) == 7
    assert len(list(straw.folder.glob("*/plan"))) == 7  # nobody took the place of another


def test_a_plan_for_larger_batches_serves_smaller_ones(straw: StrawGpu, model: ModelFile) -> None:
    started(straw, model, batch=8)
    started(straw, model, batch=4, anew=True)
    expected = straw.engine(model, batch=4, build=False)
    with expected, straw.engine(model, batch=0, latency=True, build=False) as camera:
        assert (camera.batch, camera.reason.endswith("its plan was in the cache")) == (1, True)
        alone, among = camera.infer(images(1)), expected.infer(images(1))
        assert all((alone[name] == among[name]).all() for name in among)
        with pytest.raises(ValueError, match="1 to 1 images"):
            camera.submit(images(2))
        assert straw.trt.contexts == 3 + 1  # what is not wanted takes no memory
    assert straw.trt.built == [("tf32", (1, 2, 4, 8)), ("tf32", (1, 2, 4))]
    with pytest.raises(EngineUnavailable, match="building is forbidden"):
        straw.engine(model, batch=3, build=False)


def test_a_refused_or_damaged_plan_for_larger_batches_serves_nobody(
    straw: StrawGpu, model: ModelFile, caplog: pytest.LogCaptureFixture
) -> None:
    straw.trt.faults.scores["tf32"] = -0.07
    with straw.engine(model, batch=2) as engine:
        assert engine.precision == "f32"
    straw.trt.faults.scores.clear()
    (plan,) = straw.folder.glob("*/plan")
    one_byte(plan.parent)
    with straw.engine(model, batch=1, precision="f32") as engine:
        assert "was built in" in engine.reason
    assert "not the plan that its manifest tells of" in caplog.text
    with straw.engine(model, batch=1) as engine:
        assert (engine.precision, "was built in" in engine.reason) == ("tf32", True)
    assert straw.cuda.left() == {}


def test_the_manifest_says_what_the_plan_is_and_how_it_was_checked(
    straw: StrawGpu, model: ModelFile
) -> None:
    started(straw, model)
    manifest = json.loads((folder_of(straw) / "manifest.json").read_text())
    assert manifest["key"]["gpu"] == "NVIDIA of straw"
    assert manifest["key"]["compute_capability"] == "9.0"
    assert manifest["key"]["tensorrt"] == "11.4.0.106"
    assert manifest["refused"] is None
    assert manifest["judge"] == "onnxruntime"
    assert "lowest IoU" in manifest["parity"]


def cut_short(folder: Path) -> None:
    plan = folder / "plan"
    plan.write_bytes(plan.read_bytes()[:-100])


def one_byte(folder: Path) -> None:
    content = bytearray((folder / "plan").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "plan").write_bytes(content)


def no_plan(folder: Path) -> None:
    (folder / "plan").unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def half_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"key": {')


def manifest_of_another(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["key"]["gpu"] = "another GPU"
    (folder / "manifest.json").write_text(json.dumps(manifest))


def no_golden_arrays(folder: Path) -> None:
    (folder / "golden.npz").write_bytes(b"PK\x03\x04 nothing")


def golden_of_another(folder: Path) -> None:
    np.savez(folder / "golden.npz", images=np.zeros((2, 32, 48, 3), np.uint8))


def plan_of_another_kind(folder: Path) -> None:
    """Whole by its manifest, and yet nothing that TensorRT can read."""
    (folder / "plan").write_bytes(b"something else")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["plan_sha256"] = hashlib.sha256(b"something else").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_short, "not the plan that its manifest tells of"),
        (one_byte, "not the plan that its manifest tells of"),
        (no_plan, "cannot be read"),
        (no_manifest, "cannot be read"),
        (half_a_manifest, "cannot be read"),
        (manifest_of_another, "that of another plan"),
        (no_golden_arrays, "cannot be read"),
        (golden_of_another, "golden answers lack"),
        (plan_of_another_kind, "could not read the plan (the magic tag does not match)"),
    ],
)
def test_a_damaged_or_foreign_plan_is_discarded_with_a_reason_and_built_anew(
    straw: StrawGpu, model: ModelFile, caplog: pytest.LogCaptureFixture, damage, says: str
) -> None:
    started(straw, model)
    damage(folder_of(straw))
    assert "was built in" in started(straw, model)
    assert says in caplog.text
    assert "in the cache" in started(straw, model)
    assert len(straw.trt.built) == 2
    assert straw.cuda.left() == {}


def test_a_plan_is_not_to_blame_where_the_gpu_has_no_memory(
    straw: StrawGpu, model: ModelFile
) -> None:
    started(straw, model)
    straw.trt.faults.memory = True
    with pytest.raises(GpuFailed, match=r"no memory to read the plan \(.*OutOfMemory"):
        straw.engine(model)
    straw.trt.faults.memory = False
    assert "in the cache" in started(straw, model)
    assert straw.cuda.left() == {}


def test_a_plan_that_answers_otherwise_than_when_it_was_new_is_discarded(
    straw: StrawGpu, model: ModelFile, caplog: pytest.LogCaptureFixture
) -> None:
    started(straw, model)
    straw.trt.faults.scores["tf32"] = 0.01  # too much for the same plan, allowed for a new one
    assert "was built in" in started(straw, model)
    assert "answers otherwise than when it was new" in caplog.text
    assert "in the cache" in started(straw, model)


def test_a_plan_that_answers_otherwise_than_the_cpu_is_refused_with_figures_and_for_good(
    straw: StrawGpu, model: ModelFile
) -> None:
    straw.trt.faults.scores = {"tf32": -0.07, "f32": -0.03}
    for _ in range(2):
        with pytest.raises(EngineError, match=r"score difference 0\.07.*difference 0\.03.*--anew"):
            straw.engine(model)
    each = [("tf32", (1, 2, 3)), ("tf32", (1,)), ("f32", (1, 2, 3)), ("f32", (1,))]
    assert straw.trt.built == each  # and once more to see which layers moved
    straw.trt.faults.scores.clear()
    with pytest.raises(EngineError, match="refused"):
        straw.engine(model)
    assert "agrees with onnxruntime" in started(straw, model, anew=True)
    assert "in the cache" in started(straw, model)
    assert straw.cuda.left() == {}


# Who builds


def test_where_building_is_forbidden_the_error_says_how_to_build_beforehand(
    straw: StrawGpu, model: ModelFile
) -> None:
    with pytest.raises(EngineUnavailable, match="building is forbidden") as caught:
        straw.engine(model, build=False, precision="f32")
    command = f"python -m pipeline.build {model.path} --batch 3 --precision f32"
    assert f"`{command}`" in str(caught.value)
    assert straw.trt.built == []

    assert build.main([*command.split()[3:]]) == 0
    with load_engine(
        model, EngineSettings(name="tensorrt", build=False, precision="f32", batch=3)
    ) as engine:
        assert "in the cache" in engine.reason


def test_the_command_builds_each_size_and_says_where(
    straw: StrawGpu, capsys: pytest.CaptureFixture[str], model: ModelFile
) -> None:
    assert build.main([str(model.path), "--portable", "--all-sizes"]) == 0
    assert str(plan_folder("auto")) in capsys.readouterr().err.replace("\n", "")
    assert straw.trt.built == [("tf32", (1, 2, 4))]
    assert build.main([str(model.path), "--portable", "--anew"]) == 0
    assert len(straw.trt.built) == 2


def test_the_command_takes_the_name_of_a_bundled_model(
    straw: StrawGpu, monkeypatch: pytest.MonkeyPatch, model: ModelFile
) -> None:
    monkeypatch.setitem(MODELS, "straw", model.path)
    assert build.main(["straw"]) == 0


def test_the_command_reports_errors_by_its_exit_code(
    straw: StrawGpu, capsys: pytest.CaptureFixture[str], model: ModelFile
) -> None:
    straw.trt.faults.build = True
    assert build.main([str(model.path)]) == 4
    assert "no way of computing was found" in capsys.readouterr().err.replace("\n", " ")
    assert straw.cuda.left() == {}


def test_what_a_build_measured_is_given_to_the_next_one(straw: StrawGpu, model: ModelFile) -> None:
    started(straw, model)
    started(straw, model, batch=4)
    assert straw.trt.given_timings == [b"", b"timings tf32"]
    (timings,) = straw.folder.glob("*.timings")
    timings.write_bytes(b"of another version")
    started(straw, model, batch=5)
    assert straw.trt.given_timings[2:] == [b""]


def test_a_build_waits_for_another_process_and_takes_its_plan(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    program = (
        "import logging, sys; from pathlib import Path\n"
        "from pipeline.engines.trt_cache import PlanCache\n"
        "from tests.pipeline.test_trt_plans import KEY\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        f"cache = PlanCache(Path({str(tmp_path)!r}))\n"
        "with cache.locked(KEY):\n"
        "    print(cache.find(KEY).plan)\n"
    )
    with cache.locked(KEY):
        other = subprocess.Popen(
            [sys.executable, "-u", "-c", program],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout
        assert "waiting" in other.stdout.readline()
        cache.add(KEY, b"the plan", {"1/scores": np.zeros(3)}, {})
    assert other.communicate()[0].strip() == "b'the plan'"
    assert other.returncode == 0


def test_a_process_that_dies_while_it_writes_leaves_nothing_that_counts(tmp_path: Path) -> None:
    cache = PlanCache(tmp_path)
    program = (
        "import os; from pathlib import Path\n"
        "from pipeline.engines.trt_cache import PlanCache\n"
        "from tests.pipeline.test_trt_plans import KEY\n"
        "os.rename = lambda *paths: os._exit(9)\n"
        f"cache = PlanCache(Path({str(tmp_path)!r}))\n"
        "with cache.locked(KEY):\n"
        "    cache.add(KEY, b'the plan', {}, {})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    assert done.returncode == 9
    assert len(list(tmp_path.glob("*.part-*"))) == 1
    with cache.locked(KEY):  # the dead hold no lock
        assert cache.find(KEY) is None
        cache.add(KEY, b"the plan", {}, {})
    assert list(tmp_path.glob("*.part-*")) == []


def test_a_cache_that_cannot_be_made_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(EngineError, match=r"engine\.cache=PATH"),
        PlanCache(tmp_path / "file" / "plans").locked(KEY),
    ):
        raise AssertionError("it was let in")


def test_a_disk_without_room_is_an_error_and_leaves_the_old_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PlanCache(tmp_path)
    cache.add(KEY, b"old", {}, {})

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EngineError, match="No space left on device"):
        cache.add(KEY, b"new", {}, {})
    found = cache.find(KEY)
    assert found is not None
    assert found.plan == b"old"


def test_a_cache_that_can_only_be_read_serves_its_plans(straw: StrawGpu, model: ModelFile) -> None:
    started(straw, model)
    for lock in straw.folder.glob("*.lock"):  # what cannot be opened for writing, for root too
        lock.unlink()
        lock.mkdir()
    assert "in the cache" in started(straw, model, build=False)


def test_where_a_plan_could_not_be_kept_none_is_built(straw: StrawGpu, model: ModelFile) -> None:
    straw.folder = Path("/proc")  # where nobody can make a file, not even root
    with pytest.raises(EngineError, match=r"cannot write TensorRT's plans to '/proc'.*cache=PATH"):
        straw.engine(model)
    assert straw.trt.built == []
    assert straw.cuda.left() == {}


@pytest.mark.parametrize(
    ("named", "found"),
    [("/elsewhere", "/elsewhere"), ("", "~/.cache"), ("not/absolute", "~/.cache")],
)
def test_the_cache_lies_where_the_desktop_standard_says(
    monkeypatch: pytest.MonkeyPatch, named: str, found: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert plan_folder("auto") == Path(found).expanduser() / "boxstream" / "tensorrt"


def test_plans_lie_where_the_setting_says_and_the_command_knows_it(
    straw: StrawGpu, model: ModelFile, tmp_path: Path
) -> None:
    here = EngineSettings(name="tensorrt", batch=1, cache=str(tmp_path / "kept"))
    with pytest.raises(EngineUnavailable, match=r"--cache \S+/kept"):
        load_engine(model, replace(here, build=False))
    assert build.main([str(model.path), "--batch", "1", "--cache", str(tmp_path / "kept")]) == 0
    assert list((tmp_path / "kept" / "tensorrt").glob("*/plan"))
    with load_engine(model, replace(here, build=False)) as engine:
        assert "in the cache" in engine.reason


def test_without_a_folder_tensorrt_is_refused_and_auto_takes_another_engine(
    straw: StrawGpu, model: ModelFile
) -> None:
    with pytest.raises(EngineUnavailable, match=r"engine\.cache is null"):
        load_engine(model, EngineSettings(name="tensorrt", cache=None))
    with load_engine(model, EngineSettings(cache=None)) as engine:
        assert engine.name == "openvino" and "engine.cache is null" in engine.reason


def test_the_doctors_choice_is_built_only_where_it_may_be(
    straw: StrawGpu, model: ModelFile, tmp_path: Path
) -> None:
    trials = SelfTest(model.path, tmp_path, asked_here, str)
    chosen = trials.choose(build=False)
    assert (chosen["name"], straw.trt.built) == ("openvino", [])
    assert "python -m pipeline.build" in chosen["reason"]
    chosen = trials.choose(build=True)
    assert (chosen["name"], straw.trt.built) == ("tensorrt", [("tf32", (1,))])


# How far a build is


def test_a_build_draws_on_a_terminal_only() -> None:
    shown = {}
    for terminal in (True, False):
        screen = StringIO()
        console = Console(file=screen, force_terminal=terminal, width=100)
        with BuildBars(console, "m.onnx at 32x48") as bars:
            bars.start("Building", 2, inner=False)
            bars.start("Timing", 3, inner=True)
            assert bars.step("Timing", 0)
            bars.finish("Timing")
            bars.finish("Building")
        shown[terminal] = screen.getvalue()
    assert "TensorRT builds m.onnx at 32x48:   Timing" in shown[True]
    assert shown[False] == ""


class InterruptedScreen(StringIO):
    """A terminal on which Ctrl-C is pressed while something is drawn."""

    armed = False

    def write(self, text: str) -> int:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return super().write(text)


def test_ctrl_c_ends_a_build(straw: StrawGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = InterruptedScreen()
    console = Console(file=screen, force_terminal=True)
    monkeypatch.setattr("pipeline.engines.trt_progress.Console", lambda **_: console)
    with pytest.raises(KeyboardInterrupt), build_monitor(straw.trt, "m") as monitor:
        monitor.phase_start("Timing", None, 3)
        screen.armed = True
        assert not monitor.step_complete("Timing", 0)  # TensorRT is told to stop
        assert not monitor.step_complete("Timing", 1)


# Which engine auto takes


def test_auto_takes_tensorrt_where_there_is_a_gpu(straw: StrawGpu, model: ModelFile) -> None:
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "tensorrt"
        assert engine.reason.startswith("TensorRT on the NVIDIA of straw; ")


def test_auto_falls_back_to_the_cpu_and_says_why(
    straw: StrawGpu, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    straw.trt.faults.build = True
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "openvino"
        assert "no way of computing was found" in engine.reason
    with load_engine(model, EngineSettings(build=False)) as engine:
        assert engine.name == "openvino"
        assert "pipeline.build" in engine.reason
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "openvino"
        assert "TensorRT is not installed; run `pip install -e" in engine.reason


def test_auto_does_not_speak_of_tensorrt_where_there_is_no_driver(model: ModelFile) -> None:
    with load_engine(model, EngineSettings()) as engine:
        assert engine.name == "openvino"
        assert "TensorRT" not in engine.reason


def test_auto_in_bf16_is_for_the_cpu(straw: StrawGpu, model: ModelFile) -> None:
    with (
        suppress(EngineUnavailable),  # not every CPU has it
        load_engine(model, EngineSettings(precision="bf16")) as engine,
    ):
        assert engine.name == "openvino"
    assert straw.trt.built == []


def test_a_form_in_int8_is_for_the_cpu(
    straw: StrawGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engines.ov.processor_flags", lambda: "avx512_vnni")
    model = read_model_file(write_model(tmp_path / "m.onnx"))
    write_int8_form(model.path)
    with load_engine(model, EngineSettings(precision="int8", cache=None)) as engine:
        assert (engine.name, engine.model.path.name) == ("openvino", "m_int8.onnx")
    assert straw.trt.built == []
    with straw.engine(model) as engine:
        assert (engine.name, engine.model) == ("tensorrt", model)


def test_tensorrt_asked_for_without_a_driver_is_an_error(model: ModelFile) -> None:
    with pytest.raises(EngineUnavailable, match="NVIDIA driver"):
        load_engine(model, EngineSettings(name="tensorrt"))


def test_a_copied_cache_works_for_the_same_machine(
    straw: StrawGpu, model: ModelFile, tmp_path: Path
) -> None:
    started(straw, model)
    shutil.copytree(straw.folder, tmp_path / "copy")
    straw.folder = tmp_path / "copy"
    assert "in the cache" in started(straw, model, build=False)
