"""What was measured on a machine is used there, by whom it concerns, and by nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline.engines.ort
import pipeline.engines.ov  # noqa: F401  # engines are imported before they ask
from pipeline.checkup.verdict import judge
from pipeline.configuration.reading import dump_settings, load_settings
from pipeline.cores import usable_cores
from pipeline.engines import load_engine, tuning
from pipeline.engines.cache_folder import CacheFolder
from pipeline.engines.tuning import RULE, Chosen, Division, Measured, choose, read, write
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings
from tests.pipeline.doctors_report import report_of
from tests.pipeline.model_files import ENGINES, images, write_model

MEASURED = Measured(
    "2026-11-29",
    {"recording": Division(1, 1, 3), "cameras": Division(2, 2, 1), "camera": Division(1, 1, 1)},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return read_model_file(write_model(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "cache")


def test_auto_is_a_word_for_zero_and_is_shown_as_such():
    settings = load_settings(None, ["engine.batch=auto", "engine.threads=auto", "engine.streams=3"])
    assert settings.engine == EngineSettings(streams=3)
    shown = dump_settings(settings)
    assert "  batch: auto  #" in shown and "  streams: 3  #" in shown
    assert "decoder_threads: 0  #" in shown  # there it has another meaning


def test_what_was_measured_is_found_again(model: ModelFile, folder: CacheFolder) -> None:
    assert read(folder, model, "openvino", "f32") is None
    write(folder, model, "openvino", "f32", MEASURED)
    assert folder.trouble is None
    assert read(folder, model, "openvino", "f32") == MEASURED


def test_it_holds_for_one_model_engine_precision_version_processor_and_number_of_cores(
    model: ModelFile, folder: CacheFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, model, "openvino", "f32", MEASURED)
    other = read_model_file(write_model(tmp_path / "other.onnx", {"score_threshold": 0.25}))
    assert read(folder, other, "openvino", "f32") is None
    assert read(folder, model, "openvino", "bf16") is None
    assert read(folder, model, "onnxruntime", "f32") is None
    for patched, value in [
        ("pipeline.engines.tuning.usable_cores", lambda: usable_cores() + 1),
        ("pipeline.engines.tuning.cpu_name", lambda: "another processor"),
        ("pipeline.engines.tuning.processor_flags", lambda: "mmx"),
        ("openvino.__version__", "2019.1"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(patched, value)
            assert read(folder, model, "openvino", "f32") is None, patched
    assert read(folder, model, "openvino", "f32") == MEASURED


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"schema": 2, "day": "2026-11-29", "best": {}}',
        b'{"schema": 1, "day": "2026-11-29"}',
        b'{"schema": 1, "day": "2026-11-29", "best": {"recording": {"threads": -1}}}',
        b'{"schema": 1, "day": "2026-11-29", "best": {"recording": {"horses": 4}}}',
    ],
)
def test_what_makes_no_sense_is_as_good_as_nothing(
    model: ModelFile, folder: CacheFolder, kept: bytes
) -> None:
    write(folder, model, "openvino", "f32", MEASURED)
    (entry,) = folder.path.iterdir()
    folder.write(entry.stem, kept)
    assert read(folder, model, "openvino", "f32") is None


def test_nobody_pays_for_a_measurement_that_was_never_made(
    model: ModelFile, folder: CacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_key", lambda *_: pytest.fail("the model was read"))
    folder.write("openvino-x", b"a compiled model")
    assert read(folder, model, "openvino", "f32") is None
    assert not CacheFolder(folder.path / "missing").has_any("tuning")


@pytest.mark.parametrize("asked", [{"threads": 1}, {"batch": 2}, {"streams": 1}, {"cache": None}])
def test_who_asks_for_something_else_gets_that_and_no_mixture(
    model: ModelFile, folder: CacheFolder, asked: dict[str, int | None]
) -> None:
    write(folder, model, "openvino", "f32", MEASURED)
    settings = replace(EngineSettings(cache=str(folder.path)), **asked)
    chosen = choose(model, settings, "openvino", "f32", "recording")
    assert chosen.settings == settings
    assert chosen.remark(1, 1) == ""


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_uses_what_was_measured_for_its_purpose_and_says_so(
    model: ModelFile, folder: CacheFolder, name: str
) -> None:
    write(folder, model, name, "f32", MEASURED)
    settings = EngineSettings(name=name, precision="f32", cache=str(folder.path))
    with load_engine(model, settings) as recording:
        assert (recording.batch, recording.in_flight) == (3, 1)
        assert "; 1 thread, 3 images per call: measured on this machine 2026" in recording.reason
    with load_engine(model, settings, purpose="camera") as camera:
        assert (camera.batch, camera.in_flight) == (1, 1)
        assert "; 1 thread, 1 image per call: measured" in camera.reason
    with load_engine(model, settings, purpose="cameras") as cameras:
        assert cameras.batch == 1
        calls = " divided among 2 calls" if name == "openvino" else ""
        assert f"; 2 threads{calls}, 1 image per call: measured" in cameras.reason
    with load_engine(model, replace(settings, cache=None)) as plain:
        assert plain.batch == 1
        assert "measured" not in plain.reason


@pytest.mark.parametrize(("day", "hints"), [(None, 1), ("2026-11-29", 0)])
def test_the_doctor_knows_whether_it_was_measured(day: str | None, hints: int) -> None:
    reason = "OpenVINO as asked; bf16 as asked" + Chosen(EngineSettings(), day).remark(1, 2)
    report = report_of(reason=reason)
    assert sum("pipeline.tune" in hint for hint in judge(report)["faster"]) == hints


@pytest.mark.parametrize("name", ENGINES)
def test_where_the_rule_was_found_best_it_is_the_rule_that_runs(
    model: ModelFile, folder: CacheFolder, name: str
) -> None:
    write(folder, model, name, "f32", Measured("2026-11-29", {"recording": RULE}))
    settings = EngineSettings(name=name, precision="f32", cache=str(folder.path))
    with (
        load_engine(model, settings) as measured,
        load_engine(model, replace(settings, cache=None)) as plain,
    ):
        assert (measured.batch, measured.in_flight) == (plain.batch, plain.in_flight)
        assert measured.reason.startswith(plain.reason + "; ")
        assert measured.reason.endswith("measured on this machine 2026-11-29")


def test_answers_do_not_depend_on_how_the_cores_are_divided(
    model: ModelFile, folder: CacheFolder
) -> None:
    with load_engine(model, EngineSettings(precision="f32", cache=None)) as plain:
        wanted = [plain.infer(images(1, seed)) for seed in range(6)]
    for streams, batch in [(1, 1), (2, 1), (1, 3), (2, 3)]:
        asked = EngineSettings(precision="f32", cache=None, threads=2, streams=streams, batch=batch)
        with load_engine(model, asked) as engine:
            assert (engine.in_flight, engine.batch) == (streams, batch)
            under_way = [engine.submit(images(1, seed)) for seed in range(6)]
            for pending, expected in zip(under_way, wanted, strict=True):
                np.testing.assert_allclose(pending.result()["boxes"], expected["boxes"], atol=1e-4)


def test_a_folder_that_cannot_be_used_changes_nothing(model: ModelFile, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    folder = CacheFolder(file)
    write(folder, model, "openvino", "f32", MEASURED)
    assert folder.trouble
    with load_engine(model, EngineSettings(precision="f32", cache=str(file))) as engine:
        assert engine.batch == 1
        assert "measured" not in engine.reason
