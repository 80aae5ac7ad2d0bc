"""When the form in int8 beside a model file is run in its place, and what is told of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest

import run_stream
from models.judging.runners import sums_overflow
from pipeline import capacity, doctor, tune
from pipeline.checkup import trial
from pipeline.checkup.divisions import Row
from pipeline.checkup.parity import INT8, ROUGH, bounds_of
from pipeline.checkup.verdict import judge
from pipeline.control import LineControl, RunningLine
from pipeline.crew import Crew
from pipeline.engines import int8_form, load_engine
from pipeline.engines.int8_form import choose_form
from pipeline.engines.tuning import Division
from pipeline.errors import (
    ConfigError,
    EngineUnavailable,
    ModelMismatch,
    ModelNotFound,
)
from pipeline.model_file.content import content_sha256
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.settings import EngineSettings, Settings
from tests.clips import write_clip
from tests.pipeline.asked_here import asked_here, page, rows_of
from tests.pipeline.doctors_report import report_of
from tests.pipeline.model_files import images, write_int8_form, write_model
from tests.pipeline.task_files import write_semantic

VNNI = "avx2 avx512_vnni fma sse2"
OLDER = "avx2 fma sse2"
SMALL_STREET = "synthetic://street?seed=7&size=320x180&fps=1&seconds=2"


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    return read_model_file(write_model(tmp_path / "m.onnx"))


@pytest.fixture
def with_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that is fast in int8, whatever this one is."""
    monkeypatch.setattr("pipeline.engines.ov.processor_flags", lambda: VNNI)


@pytest.fixture
def pair(model: ModelFile, with_vnni: None) -> ModelFile:
    """A model with a form beside it that is to be taken."""
    write_int8_form(model.path)
    return model


# Whether it is taken


@pytest.mark.parametrize("flags", [VNNI, "avx2 avx_vnni", "amx_int8 amx_tile"])
def test_auto_takes_it_where_it_belongs_is_accurate_and_pays(model: ModelFile, flags: str) -> None:
    path = write_int8_form(model.path)
    form = choose_form(model, "auto", flags, True)
    assert form.model.path == path
    assert form.told == (
        "m_int8 in place of m, because this CPU is fast in 8-bit integers and the file's own check "
        "allows it; "
    )


@pytest.mark.parametrize(
    ("flags", "entry", "why"),
    [
        (OLDER, {}, "this CPU has no instructions for 8-bit integers"),
        ("", {}, "this CPU is not known to have instructions for 8-bit integers"),
        ("asimddp i8mm", {}, "this CPU has no instructions"),  # ARM: not measured
        (VNNI, {"arithmetic": "f32"}, "none of its layers are in int8"),
        (VNNI, {"made_from": {"sha256": "0" * 64}}, "made from another file than this m.onnx"),
        (VNNI, {"made_from": {"file": "m.onnx"}}, "it cannot be used: "),
        (VNNI, {"class_names": ["a", "b", "c"]}, "says something else of class_names"),
        (VNNI, {"precision_check": None}, "does not say what it loses"),
        (VNNI, {"precision_check": {"f32": 0.4, "bf16": 0.4}}, "does not say what it loses"),
        (
            VNNI,
            {"precision_check": {"f32": 0.414, "bf16": 0.42, "original": 0.42}},
            "it loses too much by its own check (AP 0.414 against 0.420)",
        ),
    ],
)
def test_else_auto_leaves_it_and_says_why(
    model: ModelFile, flags: str, entry: dict[str, Any], why: str
) -> None:
    write_int8_form(model.path, entry)
    form = choose_form(model, "auto", flags, True)
    assert form.model is model
    assert form.told.startswith("m_int8.onnx beside it is left, because ")
    assert form.told.endswith("; ") and why in form.told


def test_half_a_point_is_not_too_much(model: ModelFile) -> None:
    write_int8_form(model.path, {"precision_check": {"f32": 0.415, "bf16": 0.4, "original": 0.42}})
    assert choose_form(model, "auto", VNNI, True).model.arithmetic == "int8"


@pytest.mark.parametrize(("has_bf16", "taken"), [(True, False), (False, True)])
def test_where_bf16_would_be_lost_with_it_bf16_is_kept(
    model: ModelFile, has_bf16: bool, taken: bool
) -> None:
    write_int8_form(model.path, {"precision_check": {"f32": 0.42, "bf16": 0.4, "original": 0.42}})
    checked = replace(model, precision_check={"f32": 0.42, "bf16": 0.42})
    form = choose_form(checked, "auto", VNNI, has_bf16)
    assert (form.model.arithmetic == "int8") is taken
    assert ("would be f32, where m.onnx is bf16 throughout" in form.told) is not taken
    assert choose_form(model, "auto", VNNI, has_bf16).model.arithmetic == "int8"  # f32 anyway
    assert choose_form(checked, "int8", VNNI, has_bf16).model.arithmetic == "int8"


def test_a_file_that_does_not_say_where_it_comes_from_is_left_and_the_remedy_named(
    model: ModelFile,
) -> None:
    write_model(model.path.with_name("m_int8.onnx"), {"arithmetic": "int8"})
    told = choose_form(model, "auto", VNNI, True).told
    assert "`python -m models.precision_check m_int8.onnx --original m.onnx` finds out" in told


def test_a_file_that_is_cut_short_ends_no_run(pair: ModelFile) -> None:
    path = pair.path.with_name("m_int8.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with load_engine(pair, EngineSettings()) as engine:
        assert engine.model is pair
        assert "m_int8.onnx beside it is left, because it cannot be used: " in engine.reason


def test_without_a_form_there_is_nothing_to_say(model: ModelFile) -> None:
    assert choose_form(model, "auto", VNNI, True) == int8_form.Form(model, "")


@pytest.mark.parametrize("asked", ["f32", "bf16", "f16"])
def test_who_asks_for_another_precision_never_gets_it(
    pair: ModelFile, monkeypatch: pytest.MonkeyPatch, asked: Any
) -> None:
    monkeypatch.setattr(int8_form, "read_model_file", lambda _: pytest.fail("it was opened"))
    assert choose_form(pair, asked, VNNI, True).model is pair


def test_a_file_that_is_int8_itself_is_taken_as_it_is(pair: ModelFile) -> None:
    named = read_model_file(pair.path.with_name("m_int8.onnx"))
    for asked in ("auto", "int8"):
        assert choose_form(named, asked, VNNI, True) == int8_form.Form(named, "")


def test_metadata_may_change_and_the_graph_may_not(model: ModelFile) -> None:
    write_int8_form(model.path)
    write_model(model.path, {"precision_check": {"f32": 0.42, "bf16": 0.41}})
    checked = read_model_file(model.path)
    assert choose_form(checked, "auto", VNNI, True).model.arithmetic == "int8"
    other = onnx.load(model.path)
    other.graph.node[-1].name = "another graph"
    onnx.save(other, model.path)
    assert "made from another file" in choose_form(checked, "auto", VNNI, True).told


def test_the_content_is_all_but_the_metadata(model: ModelFile) -> None:
    twin = onnx.load(model.path)
    del twin.metadata_props[:]
    assert content_sha256(model.path) == hashlib.sha256(twin.SerializeToString()).hexdigest()
    (model.path.parent / "cut.onnx").write_bytes(model.path.read_bytes()[:-9])
    with pytest.raises(ModelMismatch, match="not a complete ONNX file"):
        content_sha256(model.path.parent / "cut.onnx")
    with pytest.raises(ModelNotFound, match="there is no model file"):
        content_sha256(model.path.parent / "gone.onnx")


# Asked for


def test_int8_as_asked_needs_neither_a_check_nor_a_known_processor(model: ModelFile) -> None:
    path = write_int8_form(model.path, {"precision_check": None})
    for flags in (VNNI, ""):
        form = choose_form(model, "int8", flags, True)
        assert (form.model.path, form.told) == (path, "m_int8 in place of m as asked; ")


def test_int8_without_such_a_form_names_the_remedy(model: ModelFile) -> None:
    with pytest.raises(ConfigError, match=r"there is no m_int8.onnx .* `python -m models.quantize"):
        choose_form(model, "int8", VNNI, True)


def test_int8_of_another_original_is_refused(model: ModelFile) -> None:
    write_int8_form(model.path, {"made_from": {"sha256": "0" * 64}})
    with pytest.raises(ModelMismatch, match=r"made from another file .*models.quantize"):
        choose_form(model, "int8", VNNI, True)


def test_int8_on_a_processor_without_it_is_refused(model: ModelFile) -> None:
    write_int8_form(model.path)
    with pytest.raises(EngineUnavailable, match="only cost accuracy; use precision auto"):
        choose_form(model, "int8", OLDER, True)


def test_onnxruntime_is_slower_in_int8_and_never_takes_it(pair: ModelFile) -> None:
    with load_engine(pair, EngineSettings(name="onnxruntime")) as engine:
        assert engine.model is pair and engine.precision == "f32"
    with pytest.raises(ConfigError, match="slower in int8"):
        load_engine(pair, EngineSettings(name="onnxruntime", precision="int8"))


def test_int8_is_not_run_by_another_engine_where_openvino_refuses(model: ModelFile) -> None:
    with pytest.raises(ConfigError, match="there is no m_int8"):
        load_engine(model, EngineSettings(precision="int8"))


# What is run, and what is told of it


@pytest.mark.parametrize(
    ("flags", "overflow"),
    [
        ("sse2 avx2 fma", True),
        ("sse2 avx2 avx512f", True),
        ("sse2 avx2 avx_vnni", False),
        ("sse2 avx512_vnni", False),
        ("sse2 amx_int8", False),
        ("fp asimd", False),  # ARM sums in 32 bits
        ("", False),
    ],
)
def test_sums_overflow_on_x86_without_the_instructions(
    model: ModelFile, tmp_path: Path, flags: str, overflow: bool
) -> None:
    rounded = read_model_file(write_int8_form(model.path))
    assert choose_form(model, "f32", flags, True).model is model
    if overflow:
        with pytest.raises(EngineUnavailable, match=r"m_int8\.onnx .* overflow .* its original"):
            choose_form(rounded, "f32", flags, True)
    else:
        assert choose_form(rounded, "f32", flags, True).model is rounded
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert sums_overflow(tmp_path / "cpuinfo") == overflow
    assert not sums_overflow(tmp_path / "none")


def test_the_engine_runs_it_and_says_so(pair: ModelFile) -> None:
    rounded = read_model_file(pair.path.with_name("m_int8.onnx"))
    exact = EngineSettings(precision="f32", cache=None)
    with (
        load_engine(pair, EngineSettings(cache=None)) as auto,
        load_engine(pair, replace(exact, precision="int8")) as asked,
        load_engine(pair, exact) as plain,
        load_engine(rounded, exact) as named,
    ):
        for engine in (auto, asked):
            assert engine.model == rounded
            assert engine.precision in ("int8+bf16", "int8+f32")
            assert "m_int8 in place of m" in engine.reason
            assert "int8 layers as the model file has them (AP 0.420 against 0.420" in engine.reason
        assert (plain.model, plain.precision) == (pair, "f32")
        assert (named.model, named.precision) == (rounded, "int8+f32")
        found, wanted, other = (e.infer(images(1))["boxes"] for e in (auto, named, plain))
        bound = 0.02 * np.abs(wanted).max()  # bf16, where there is that
        np.testing.assert_allclose(found, wanted, atol=bound)
        assert np.abs(found - other).max() > 10 * bound


@pytest.mark.parametrize(("precision", "runs"), [("auto", "m_int8.onnx"), ("f32", "m.onnx")])
def test_the_report_names_the_file_that_was_run(
    pair: ModelFile, tmp_path: Path, precision: str, runs: str
) -> None:
    report = tmp_path / "report.json"
    words = [SMALL_STREET, "--model", str(pair.path), "--out", "null:", "--quiet"]
    words += ["--report", str(report), "--set", f"engine.precision={precision}"]
    assert run_stream.main(words) == 0
    engine = json.loads(report.read_text())["engine"]
    assert engine["model"] == str(pair.path.with_name(runs))
    assert engine["precision"].startswith("int8") is (precision == "auto")


def test_the_page_names_the_files_that_are_run(pair: ModelFile, tmp_path: Path) -> None:
    pixels = read_model_file(write_semantic(tmp_path / "pixels.onnx"))
    settings = EngineSettings(cache=None)
    with load_engine(pair, settings) as first, load_engine(pixels, settings) as second:
        control = LineControl(Settings(), (pair, pixels), ("street", "pixels.onnx"))
        line = SimpleNamespace(
            crew=Crew.of((pair, pixels), (first, second), None),
            watch=SimpleNamespace(silent_seconds=0.0),
            shown=SimpleNamespace(threshold=0.5, class_thresholds={}),
        )
        control.attach(cast(RunningLine, line))
        told = control.engine()
    assert told["model"] == "m_int8, pixels.onnx"
    assert told["precision"].startswith("int8+")


def test_what_is_tuned_is_kept_for_the_file_that_is_run(
    pair: ModelFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = Row("recording", Division(1, 1, 1), 1, 1, 1, 50.0, 20.0, 0.0, 0.2, True)
    monkeypatch.setattr(tune, "measure", lambda *_: iter([[row]]))
    cache = str(tmp_path / "cache")
    assert tune.main(["--model", str(pair.path), "--cache", cache]) == 0
    assert "m_int8 on openvino in int8+" in capsys.readouterr().out
    with load_engine(pair, EngineSettings(cache=cache)) as engine:
        assert "1 thread, 1 image per call: measured on this machine" in engine.reason
    for asked, kept in [("auto", 1), ("int8", 1), ("f32", 2)]:
        assert tune.main(["--model", str(pair.path), "--precision", asked, "--cache", cache]) == 0
        assert len(list(Path(cache).glob("tuning-*"))) == kept


def test_the_forecast_of_cameras_is_for_the_file_that_is_run(
    pair: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "yard.mp4", size=(96, 64), frames=3)
    words = [str(clip), "--model", str(pair.path), "--frames", "2"]
    assert capacity.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "m_int8" and "in place of m" in report["reason"]
    assert capacity.main(words) == 0
    assert "m_int8 in place of m" in capsys.readouterr().out


# The doctor


def test_the_doctor_runs_it_names_it_and_holds_it_against_the_original(
    model: ModelFile, with_vnni: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "STREET", SMALL_STREET)
    path = write_int8_form(model.path)
    report = doctor.examine(model.path, ask=asked_here)
    assert report["engine"]["model"] == "m_int8"
    assert "int8 layers" in report["engine"]["reason"]
    (row,) = [row for pair, row in rows_of(report).items() if pair[1].startswith("int8")]
    assert row["state"] == "failed"  # it does answer something else
    assert report["engine"]["ms_per_call"] == row["ms_per_call"]
    path.write_bytes(write_model(path, {"arithmetic": "int8"} | said_by(path)).read_bytes())
    report = doctor.examine(model.path, ask=asked_here)
    (row,) = [row for pair, row in rows_of(report).items() if pair[1].startswith("int8")]
    assert row["state"] == "passed" and report["verdict"]["good"]
    assert "verdict: boxstream runs m_int8 on openvino in int8+" in page(report)


def said_by(path: Path) -> dict[str, Any]:
    """What makes a file the form of another."""
    made = next(p.value for p in onnx.load(path).metadata_props if p.key == "boxstream")
    return {key: json.loads(made)[key] for key in ("made_from", "precision_check")}


def test_a_form_that_is_left_is_no_fault_of_an_engine(
    model: ModelFile, with_vnni: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "STREET", SMALL_STREET)
    write_int8_form(model.path, {"made_from": {"sha256": "0" * 64}})
    report = doctor.examine(model.path, ask=asked_here)
    assert report["verdict"]["good"]
    assert not [pair for pair in rows_of(report) if pair[1].startswith("int8")]
    assert "made from another file" in report["engine"]["reason"]


def test_int8_is_judged_by_other_bounds_with_whatever_the_rest_is_in() -> None:
    assert bounds_of("int8+f32") == bounds_of("int8+bf16") == INT8
    assert INT8.boxes < ROUGH.boxes and bounds_of("bf16") == ROUGH


@pytest.mark.parametrize(
    ("sets", "form", "precision", "hint"),
    [
        ({"vnni": True, "avx2": True}, False, "bf16", "python -m models.quantize street"),
        ({"vnni": True, "avx2": True}, True, "int8+bf16", None),
        ({"vnni": True, "avx2": True}, True, "f32", None),  # its reason tells
        ({"vnni": False, "avx2": True}, True, "f32", "a processor for 8-bit integers"),
        ({"vnni": False, "avx2": True}, False, "f32", None),
        ({"vnni": True, "avx2": False}, False, "f32", None),  # ARM: not measured
        (None, True, "f32", None),
    ],
)
def test_the_doctor_knows_what_int8_would_take(
    sets: dict[str, bool] | None, form: bool, precision: str, hint: str | None
) -> None:
    report = report_of(precision=precision, sets=sets, has_int8_form=form)
    hints = [line for line in judge(report)["faster"] if "8-bit" in line]
    assert len(hints) == (hint is not None)
    assert hint is None or hint in hints[0]
