"""The rule goes unless something is clearly better; a moment's noise decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline import tune
from pipeline.checkup import divisions as module
from pipeline.checkup.divisions import MARGIN, Heat, Row, calls_of, divisions, winner
from pipeline.engines import load_engine
from pipeline.engines.contract import Answered
from pipeline.engines.tuning import RULE, Division
from pipeline.errors import EngineUnavailable
from pipeline.frame import Batch
from pipeline.model_file.reading import ModelFile, read_model_file
from pipeline.placement import Placement
from pipeline.settings import EngineSettings
from tests.full_disk import full_stdout
from tests.pipeline.frames import blank
from tests.pipeline.gpu import install
from tests.pipeline.model_files import ENGINES, images, write_model


class Clock:
    """Time that passes only where work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Worker:
    """Takes a known time for each call.

    Attributes:
        seconds: Of a call, by its number.
    """

    clock: Clock
    seconds: Callable[[int], float]
    batch: int = 1
    in_flight: int = 1
    calls: int = field(default=0)

    def submit(self, images: np.ndarray, regions: np.ndarray | None = None) -> Answered:
        assert len(images) == self.batch
        self.clock.now += self.seconds(self.calls)
        self.calls += 1
        return Answered({})

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    ticking = SimpleNamespace(perf_counter=clock, process_time=clock)
    monkeypatch.setattr(module, "time", ticking)
    return clock


PLACE = Placement.letterbox((2, 2), (2, 2))
FRAMES = [
    Batch((blank(2, 2, index=i),), np.full((1, 2, 2, 3), i, np.uint8), (PLACE,)) for i in range(8)
]
ONE, OTHER = Division(2, 1, 1), Division(1, 1, 1)


def race(clock: Clock, others: dict[Division, Callable[[int], float]]) -> dict[Division, Row]:
    workers = {RULE: Worker(clock, lambda _: 0.010, in_flight=2)}
    workers |= {division: Worker(clock, seconds) for division, seconds in others.items()}
    heat = Heat(lambda division, _: workers[division], FRAMES, 2, rounds=5)
    return {row.division: row for row in heat.run("recording", list(others))}


def chosen(rows: dict[Division, Row]) -> Division:
    (best,) = [row.division for row in rows.values() if row.chosen]
    return best


def test_what_is_clearly_better_is_taken(clock: Clock) -> None:
    rows = race(clock, {ONE: lambda _: 0.0095, OTHER: lambda _: 0.009})
    assert chosen(rows) == OTHER
    assert rows[OTHER].gain == pytest.approx(1 / 9, abs=1e-3)
    assert rows[OTHER].images_per_second == pytest.approx(111.1, abs=0.1)


def test_what_is_better_by_less_than_the_margin_is_not(clock: Clock) -> None:
    rows = race(clock, {ONE: lambda _: 0.010 / (1 + MARGIN * 0.9)})
    assert 0 < rows[ONE].gain < MARGIN
    assert chosen(rows) == RULE


def test_a_noisy_moment_flips_nothing(clock: Clock) -> None:
    """Two of the rule's five rounds fall into a time in which a call takes five times as long."""
    slow = range(60, 66)

    def disturbed(call: int) -> float:
        return 0.050 if call in slow else 0.010

    workers = {RULE: Worker(clock, disturbed), ONE: Worker(clock, lambda _: 0.010, in_flight=2)}
    heat = Heat(lambda division, _: workers[division], FRAMES, 2, rounds=5)
    rows = {row.division: row for row in heat.run("recording", [ONE])}
    assert workers[RULE].calls > slow.stop
    assert rows[RULE].gain == rows[ONE].gain == 0
    assert chosen(rows) == RULE


def test_who_is_far_behind_runs_once(clock: Clock) -> None:
    calls = []
    race(clock, {ONE: lambda _: 0.010, OTHER: lambda call: calls.append(call) or 0.1})
    assert len(calls) < 15  # warming up and one round; five take a quarter of a second each


def test_one_that_is_the_rule_under_another_name_does_not_run(clock: Clock) -> None:
    workers = {
        RULE: Worker(clock, lambda _: 0.01, in_flight=2),
        Division(2, 2, 1): Worker(clock, lambda _: 0.001, in_flight=2),
    }
    heat = Heat(lambda division, _: workers[division], FRAMES, 2, rounds=2)
    (row,) = heat.run("cameras", [Division(2, 2, 1)])
    assert row.division == RULE and row.chosen


def test_half_of_the_threads_is_not_the_rule(clock: Clock) -> None:
    """ONNX Runtime has one call at a time however many threads: they alone make the difference."""
    workers = {RULE: Worker(clock, lambda _: 0.01), OTHER: Worker(clock, lambda _: 0.005)}
    heat = Heat(lambda division, _: workers[division], FRAMES, 2, rounds=2)
    assert chosen({row.division: row for row in heat.run("recording", [OTHER])}) == OTHER


@pytest.mark.parametrize(
    ("gains", "best"),
    [([0.0], 0), ([0.0, MARGIN], 0), ([0.0, 0.06], 1), ([0.0, 0.2, 0.3], 2), ([0.0, -0.5], 0)],
)
def test_the_rule_must_be_beaten_by_the_margin(gains: list[float], best: int) -> None:
    assert winner(gains) == best


def test_what_is_tried_fits_the_machine() -> None:
    assert divisions(1, True) == [Division(1, 1, 1)]
    assert divisions(2, True) == [Division(2, 1, 1), Division(2, 2, 1), Division(1, 1, 1)]
    assert divisions(2, False) == [Division(2, 0, 1), Division(1, 0, 1)]
    many = divisions(64, True)
    assert len(many) <= 8
    assert all(1 <= d.streams <= d.threads <= 64 and d.batch == 1 for d in many)


def test_calls_hold_whole_batches_of_all_frames() -> None:
    for size, wanted in [(1, 8), (2, 4), (3, 2), (8, 1), (16, 1)]:
        calls = calls_of(FRAMES, size)
        assert [images.shape for images, _ in calls] == [(size, 2, 2, 3)] * wanted
        assert all(regions is None for _, regions in calls)
    regions = np.ones((1, 5, 4), np.float32)
    told = [replace(FRAMES[0], regions=regions)] * 4
    assert [given.shape for _, given in calls_of(told, 2) if given is not None] == [(2, 5, 4)] * 2


def noise(model: ModelFile) -> Iterator[Batch]:
    hw = model.input_size_hw
    place = Placement.letterbox(hw, hw)
    for seed in range(2):
        yield Batch((blank(*reversed(hw), index=seed),), images(1, seed), (place,))


@pytest.mark.parametrize("name", ENGINES)
def test_the_command_measures_a_real_engine_and_the_next_run_uses_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "TRIAL_SECONDS", 0.01)
    if name == "onnxruntime":  # drawing takes longer than all the rest; once is enough
        monkeypatch.setattr(module, "drawn_frames", noise)
    path, cache = write_model(tmp_path / "m.onnx"), str(tmp_path / "cache")
    words = ["--model", str(path), "--engine", name, "--precision", "f32", "--busy"]
    assert tune.main([*words, "--cache", cache]) == 0
    said = capsys.readouterr().out
    assert all(purpose in said for purpose in tune.PURPOSES.values())
    assert said.count("*") == 3  # one for each purpose
    assert f"kept in {cache}" in said
    settings = EngineSettings(name=name, precision="f32", cache=cache)
    with load_engine(read_model_file(path), settings) as engine:
        assert "measured on this machine 20" in engine.reason


def test_a_program_of_torch_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_engine", None)
    model = replace(read_model_file(write_model(tmp_path / "m.onnx")), is_program=True)
    for name in ("auto", "program"):
        with pytest.raises(EngineUnavailable, match=r"program of torch.*ONNX file"):
            tune.tune(model, EngineSettings(name=name))


def test_where_auto_takes_a_gpu_an_engine_of_the_cpu_is_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "measure", lambda *_: iter([]))
    straw = install(monkeypatch, tmp_path / "plans")
    words = ["--model", str(write_model(tmp_path / "m.onnx")), "--cache", str(tmp_path / "cache")]
    assert tune.main(words) == 4
    assert "name --engine openvino or onnxruntime" in capsys.readouterr().err
    assert straw.trt.built == [] and not (tmp_path / "cache").exists()
    assert tune.main([*words, "--engine", "onnxruntime"]) == 0


def test_an_engine_that_divides_no_cores_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model_file(write_model(tmp_path / "m.onnx"))
    engine = SimpleNamespace(model=model, name="another", precision="f32", reason="")
    monkeypatch.setattr(module, "load_engine", lambda *_, **__: nullcontext(engine))
    with pytest.raises(EngineUnavailable, match="another has no cores to divide"):
        tune.tune(model, EngineSettings())


def test_a_cache_that_cannot_be_used_is_told_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "measure", lambda *_: iter([]))
    (tmp_path / "file").touch()
    path = write_model(tmp_path / "m.onnx")
    words = ["--model", str(path), "--engine", "onnxruntime", "--cache", str(tmp_path / "file")]
    assert tune.main(words) == 0
    assert "nothing is kept, because" in capsys.readouterr().out


@pytest.mark.parametrize(("waited", "kept"), [(0.05, True), (0.5, False)])
def test_what_was_measured_beside_others_is_not_kept(
    waited: float,
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = Row("recording", RULE, 0, 2, 1, 50.0, 20.0, waited, 0.0, True)
    monkeypatch.setattr(tune, "measure", lambda *_: iter([[row]]))
    path, cache = write_model(tmp_path / "m.onnx"), tmp_path / "cache"
    words = ["--model", str(path), "--engine", "onnxruntime", "--cache", str(cache)]
    assert tune.main(words) == 0
    assert ("50% of the time others had the cores" in capsys.readouterr().out) is not kept
    assert cache.exists() is kept
    assert tune.main([*words, "--busy"]) == 0
    assert len(list(cache.iterdir())) == 1


def test_waiting_for_a_core_is_read_from_every_thread(tmp_path: Path) -> None:
    for number, told in enumerate(["5 1500000000 7", "5 500000000 7", "", "nonsense x"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "schedstat").write_text(told)
    assert module.seconds_waited(tmp_path) == 2.0
    assert module.seconds_waited(tmp_path / "missing") == 0.0


def test_an_answer_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "measure", lambda *_: iter([]))
    words = ["--model", str(write_model(tmp_path / "m.onnx")), "--engine", "onnxruntime"]
    with full_stdout():
        assert tune.main([*words, "--cache", str(tmp_path / "cache")]) == 5
    assert "error cannot write to stdout: No space left" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_an_error_of_the_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tune.main(["--model", "nowhere.onnx"]) == 4
    assert "there is no model file" in capsys.readouterr().err
