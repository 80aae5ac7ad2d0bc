"""The doctor, asked in earnest on this machine, and on machines where something is wrong."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import run_stream
from pipeline import doctor
from pipeline.checkup import questions, trial
from pipeline.checkup.parity import bounds_of
from pipeline.settings import EngineSettings
from tests.full_disk import full_stdout
from tests.pipeline.asked_here import asked_here, page, rows_of
from tests.pipeline.model_files import write_model

REPOSITORY = Path(__file__).parents[2]
PERSONAL = {
    "USER": "zq-anna",
    "LOGNAME": "zq-anna",
    "BOXSTREAM_TOKEN": "zq-not-for-you",
    "CAM_PASS": "zq-pass-phrase",
    "SOMETHING_PLAIN": "zq-anything",
}
BROKEN_OPENVINO = """
raise OSError("/home/zq-anna/lib/libopenvino.so: cannot open, zq-pass-phrase, /srv/zq-anna/y.so")
"""

Run = tuple[subprocess.CompletedProcess[str], dict[str, Any]]


def diagnose(*arguments: str, path: Path | None = None) -> Run:
    """The command and its JSON, with an environment full of secrets."""
    search = [str(REPOSITORY)] if path is None else [str(path), str(REPOSITORY)]
    environment = os.environ | PERSONAL | {"PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, "-m", "pipeline.doctor", "--json", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    return done, json.loads(done.stdout)


@pytest.fixture(scope="module")
def earnest() -> Run:
    """The whole of it, with the bundled model, as a user would run it."""
    return diagnose()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.onnx")


def test_all_is_well_on_a_machine_that_passes_its_tests(earnest: Run) -> None:
    done, report = earnest
    assert done.returncode == 0, report["verdict"]
    assert done.stderr == ""
    assert report["schema"] == "boxstream.doctor/1"
    assert report["verdict"]["good"] and report["verdict"]["repair"] == []
    assert list(report) == [
        *("schema", "boxstream", "system", "packages", "gpu", "tensorrt", "openvino"),
        *("onnxruntime", "torch", "video", "extras", "model", "engine", "selftest", "verdict"),
    ]
    assert report["system"]["cores_usable"] >= 1
    assert all(found["error"] is None for found in report["packages"].values())
    assert report["openvino"]["devices"]["CPU"]["capabilities"]
    assert "CPUExecutionProvider" in report["onnxruntime"]["providers"]


def test_the_line_runs_on_the_engine_that_the_doctor_names(earnest: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    source = "synthetic://street?seed=1&size=320x180&fps=25&seconds=1"
    arguments = [source, "--out", "null:", "--max-frames", "2", "--report", str(path), "--quiet"]
    assert run_stream.main(arguments) == 0
    used = json.loads(path.read_text())["engine"]
    named = earnest[1]["engine"]
    for key in ("name", "model", "precision", "reason"):
        assert named[key] == used[key]
    assert named["load_seconds"] > 0
    assert named["ms_per_call"] > 0


def test_every_engine_is_compared_or_says_why_it_is_not_here(earnest: Run) -> None:
    rows = rows_of(earnest[1])
    known = set(get_args(get_type_hints(EngineSettings)["name"])) - {"auto"}
    assert {engine for engine, _ in rows} == known
    assert rows["onnxruntime", "f32"]["state"] == "witness"
    passed = {pair: row for pair, row in rows.items() if row["state"] == "passed"}
    assert ("openvino", "f32") in passed
    for (_, precision), row in passed.items():
        parity, bounds = row["parity"], bounds_of(precision)
        assert parity["compared"] >= 100  # boxes in eight frames, counted on both sides
        assert parity["share"] >= bounds.boxes
        assert row["ms_per_call"] > 0
    assert passed["openvino", "f32"]["parity"]["largest"]["score"] <= 0.02
    assert all(row["remark"] for row in rows.values() if row["state"] == "unavailable")


def test_what_is_shown_names_no_user_and_no_machine_and_no_secret(earnest: Run) -> None:
    done, report = earnest
    shown = done.stdout + page(report)
    assert "zq-" not in shown
    assert str(Path.home()) + "/" not in shown
    assert str(REPOSITORY) not in shown
    for name in (platform.node(), getpass.getuser()):
        assert len(name) < 5 or name not in shown


def test_the_page_fits_on_a_screen_and_ends_with_the_verdict(earnest: Run) -> None:
    lines = page(earnest[1]).strip().splitlines()
    assert len(lines) <= 45
    beginnings = [line.split(" ")[0] for line in lines]
    for name in (
        "system",
        "packages",
        "gpu",
        "tensorrt",
        "openvino",
        "onnxruntime",
        "torch",
        "video",
    ):
        assert name in beginnings
    assert (
        "lacks srt" in page(earnest[1]).replace("\n", " ")
        or earnest[1]["video"]["protocols"]["srt"]
    )
    runs = earnest[1]["engine"]["model"]
    assert runs in ("street", "street_int8")
    assert lines[-1].startswith(f"verdict: boxstream runs {runs} on ")


# Something is wrong


def test_a_broken_package_is_a_line_of_the_report_and_not_its_end(
    small: Path, tmp_path: Path
) -> None:
    (tmp_path / "openvino.py").write_text(BROKEN_OPENVINO)
    done, report = diagnose("--model", str(small), path=tmp_path)
    assert done.returncode == 4
    assert report["openvino"]["error"].startswith("OSError: …/libopenvino.so: cannot open")
    assert rows_of(report)["openvino", "f32"]["state"] == "broken"
    assert rows_of(report)["onnxruntime", "f32"]["state"] == "witness"
    assert report["video"]["decoders"]["h264"]
    assert "openvino f32 is there but cannot be used" in page(report)
    assert report["engine"]["name"] == "onnxruntime"
    assert "pip install --force-reinstall openvino" in page(report)
    assert "zq-" not in done.stdout + page(report)


def test_without_the_test_no_engine_is_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("it was run")

    monkeypatch.setattr(trial, "run", refuse)
    report = doctor.examine(small, test=False, ask=asked_here)
    assert report["selftest"] is None
    assert report["engine"]["name"] == "openvino"
    assert report["verdict"]["good"]
    assert "verdict: boxstream runs small on openvino in f32" in page(report)


def test_a_model_file_that_is_none_is_told_with_all_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "isolated", asked_here)
    assert doctor.main(["--model", str(tmp_path / "nowhere.onnx")]) == 4
    said = " ".join(capsys.readouterr().out.split())
    assert "there is no model file" in said
    assert "FFmpeg" in said
    assert "verdict: boxstream cannot run nowhere here" in said


def test_where_tables_cannot_be_drawn_the_json_is_shown(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_rich(work: Callable[..., Any], **given: Any) -> Any:
        if given == {"module": "rich"}:
            return {"error": "ImportError: rich is half there", "error_kind": "ImportError"}
        return asked_here(work, **given)

    monkeypatch.setattr(doctor, "isolated", without_rich)
    assert doctor.main(["--no-test", "--model", str(small)]) == 4
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert verdict["repair"] == [
        "rich: pip install --force-reinstall rich (ImportError: rich is half there)"
    ]


def test_a_report_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"packages": {"rich": {"error": None}}, "verdict": {"good": True}}
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: found)
    with full_stdout():
        assert doctor.main(["--json"]) == 5
    assert "error cannot write to stdout: No space left" in capsys.readouterr().err


def test_nothing_that_may_be_broken_is_imported_to_ask() -> None:
    program = "import sys, pipeline.doctor\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", "av", "cv2", "yaml", "rich", "openvino", "onnxruntime"}


def test_a_word_that_it_does_not_know_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        doctor.main(["--jsno"])
    assert left.value.code == 2
    assert "--jsno" in capsys.readouterr().err


# GPUs that are not here

H200 = {"name": "NVIDIA H200", "memory_gib": 139.8, "compute_capability": "9.0"}


def with_gpu(asked: list[str], **answers: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Answers of a machine with a GPU, by the question's name; what else is asked is asked here."""

    def ask(work: Callable[..., dict[str, Any]], **given: Any) -> dict[str, Any]:
        asked.append(work.__name__)
        if work.__name__ in answers:
            return {"error": None} | answers[work.__name__]
        return asked_here(work, **given)

    return ask


def test_a_gpu_without_tensorrt_is_told_what_to_install(small: Path) -> None:
    asked: list[str] = []
    codecs = {"h264_cuvid": None, "h264_nvenc": "Operation not permitted"}
    ask = with_gpu(
        asked,
        look_at_gpus={"cuda": "13.0", "gpus": [H200]},
        look_at_tensorrt={
            "module": None,
            "version": None,
            "can_build": False,
            "cuda_bindings": None,
            "install": "pip install -e '.[tensorrt]'",
        },
        open_on_gpu={"codecs": codecs},
    )
    report = doctor.examine(small, test=False, ask=ask)
    said = " ".join(page(report).split())
    assert "NVIDIA H200 (139.8 GiB, compute capability 9.0)" in said
    assert "h264_cuvid works, h264_nvenc Operation not permitted" in said
    assert "faster: TensorRT on the NVIDIA H200: pip install -e '.[tensorrt]'" in said


def test_without_a_driver_the_gpus_codecs_are_not_touched(small: Path) -> None:
    asked: list[str] = []
    absent = {"error": "there is no NVIDIA driver here", "error_kind": "EngineUnavailable"}
    report = doctor.examine(small, test=False, ask=with_gpu(asked, look_at_gpus=absent))
    assert "open_on_gpu" not in asked
    assert report["video"]["opened_on_the_gpu"] is None


def test_a_tensorrt_that_cannot_be_imported_says_why(small: Path) -> None:
    tensorrt = {"module": "tensorrt", "version": "11.4", "can_build": True, "cuda_bindings": "13"}
    ask = with_gpu(
        [],
        look_at_gpus={"cuda": "13.0", "gpus": [H200]},
        look_at_tensorrt=tensorrt | {"install": "-"},
        import_package={"error": "ImportError: libnvinfer.so.11", "error_kind": "ImportError"},
    )
    report = doctor.examine(small, test=False, ask=ask)
    assert "TensorRT, which cannot be looked at: ImportError: libnvinfer.so.11" in " ".join(
        report["verdict"]["faster"]
    )


def test_what_may_take_minutes_is_said_and_given_them_and_not_done_without_the_test(
    small: Path,
) -> None:
    waits, builds, said = dict[str, float](), list[bool](), list[str]()

    def ask(
        work: Callable[..., dict[str, Any]], seconds: float = 0, **given: Any
    ) -> dict[str, Any]:
        waits.setdefault(work.__name__, seconds)
        builds.extend([given["build"]] if "build" in given else [])
        if work.__name__ in ("try_engine", "look_at_video_choice"):
            return {"error": "not asked here", "error_kind": "EngineUnavailable"}
        return asked_here(work, **given)

    doctor.examine(small, ask=ask, say=said.append)
    assert (waits["look_at_video_choice"], waits["try_engine"]) == (300, 1800)
    assert any("video decoder" in sentence for sentence in said)
    assert any("auto takes (on a GPU it is built the first time" in sentence for sentence in said)
    assert all(builds)
    builds.clear()
    said.clear()
    doctor.examine(small, test=False, ask=ask, say=said.append)
    assert builds == [False] and not any("built" in sentence for sentence in said)


def test_where_the_gpus_codecs_do_not_open_the_reason_is_given() -> None:
    if questions.look_at_ffmpeg()["on_the_gpu"]["h264_cuvid"]:
        found = questions.open_on_gpu(["h264_cuvid", "h264_nvenc"])["codecs"]
        assert set(found) == {"h264_cuvid", "h264_nvenc"}
        assert all(why is None or len(why) > 3 for why in found.values())
