"""How many cameras a machine carries: the arithmetic, and what it is fed with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import frame_cost
from pipeline.capacity import USABLE, forecast, main
from pipeline.drawing.render import render
from pipeline.drawn_clip import draw_clip
from pipeline.engines import tuning
from pipeline.engines.tuning import Division, Measured
from pipeline.errors import NoVideo, SourceNotFound
from pipeline.frame import Result
from pipeline.frame_cost import FrameCost, measure
from pipeline.model_file.reading import read_model_file
from tests.clips import write_clip
from tests.full_disk import full_stdout
from tests.pipeline.model_files import load, write_model
from tests.pipeline.task_files import write_semantic

COST = FrameCost(decode=2, scale=1, infer=13, suppress=1, queues=0, draw=1, encode=5)


def carried(cost: FrameCost, cores: int, fps: float, seen: float, recorded: bool) -> int:
    """The slow twin: add camera after camera until a second's work does not fit into a second."""
    count = 0
    while True:
        one = fps * cost.decode + seen * (cost.scale + cost.infer + cost.suppress + cost.queues)
        one += seen * (cost.draw + cost.encode) if recorded else 0
        processor, gpu = (count + 1) * one, (count + 1) * seen * cost.gpu
        if processor > USABLE * 1000 * cores or gpu > USABLE * 1000:
            return count
        count += 1


@given(
    *(st.integers(1, 64), st.sampled_from([0.5, 12.5, 25, 60])),
    *(st.sampled_from([None, 0.5, 5, 40]), st.booleans(), st.floats(0, 40)),
)
def test_the_forecast_is_what_adding_cameras_one_by_one_gives(cores, fps, most, recorded, gpu):
    cost = replace(COST, gpu=gpu)
    found = forecast(cost, cores=cores, fps=fps, max_fps=most, recorded=recorded)
    nearest = min(found.by_processor, found.by_gpu)
    if abs(nearest - round(nearest)) > 1e-6:  # at a whole number rounding decides
        assert found.cameras == carried(cost, cores, fps, min(fps, most or fps), recorded)


def test_without_a_gpu_only_the_processor_is_a_limit():
    assert math.isinf(forecast(COST, cores=2, fps=25).by_gpu)
    assert forecast(replace(COST, gpu=40), cores=64, fps=25).cameras == 0


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"cores": 0}, {"max_fps": 0}])
def test_a_rate_or_number_of_cores_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        forecast(COST, **{"cores": 2, "fps": 25} | wrong)


def test_every_station_costs_something(tmp_path):
    model = read_model_file(write_model(tmp_path / "small.onnx"))
    clip = write_clip(tmp_path / "clip.mp4", size=(96, 64), frames=6)
    with load(model, "openvino") as engine:
        cost = measure(str(clip), model, engine, frames=5)
    costs = asdict(cost)
    assert costs.pop("gpu") == 0
    assert all(0 < value < math.inf for value in costs.values())
    assert cost.total(recorded=True) == pytest.approx(sum(costs.values()))
    assert cost.total(recorded=False) < cost.total(recorded=True)


@pytest.mark.parametrize("writes", [write_model, write_semantic])
def test_what_is_measured_is_what_the_line_does_with_its_pictures(tmp_path, monkeypatch, writes):
    model, drawn = read_model_file(writes(tmp_path / "small.onnx")), list[Result]()
    clip = write_clip(tmp_path / "clip.mp4", size=(96, 64), frames=3, pix_fmt="yuv420p10le")

    def rendered(results: Iterable[Result], *how: Any) -> Iterator[Result]:
        results = list(results)
        drawn.extend(results)
        return render(results, *how)

    monkeypatch.setattr(frame_cost, "render", rendered)
    with load(model, "openvino") as engine:
        measure(str(clip), model, engine, frames=3)
    assert drawn and len(drawn) % 3 == 0
    assert {result.frame.picture.format.name for result in drawn} == {"yuv420p10le"}
    assert {result.segmentation is not None for result in drawn} == {model.is_semantic}


@pytest.mark.parametrize(
    "camera", ["rtsp://me:ge.heim@h/stream", "camera:0", "replay:yard.mp4", "yards/"]
)
def test_a_camera_or_several_recordings_are_refused_with_what_to_do(
    tmp_path, monkeypatch, capsys, camera
):
    monkeypatch.chdir(tmp_path)
    for path in ("yard.mp4", "yards/a.mp4", "yards/b.mp4"):
        Path(path).parent.mkdir(exist_ok=True)
        write_clip(Path(path), frames=2)
    assert main([camera, "--model", str(write_model(tmp_path / "small.onnx"))]) == 2
    said = capsys.readouterr().err
    assert "name one recording, such as `run_stream.py CAMERA --duration 60" in said
    assert "heim" not in said


def test_a_clip_that_is_not_there_or_holds_nothing_is_an_error(tmp_path):
    model = read_model_file(write_model(tmp_path / "small.onnx"))
    with load(model, "openvino") as engine:
        with pytest.raises(SourceNotFound):
            measure(str(tmp_path / "missing.mp4"), model, engine)
        sound = write_clip(tmp_path / "sound.mp4", with_video=False, audio_delay=0.0)
        with pytest.raises(NoVideo):
            measure(str(sound), model, engine)


def test_the_drawn_clip_has_the_size_and_the_frames_asked_for(tmp_path):
    model = read_model_file(write_model(tmp_path / "small.onnx"))
    clip = draw_clip("128x96", 3, tmp_path / "drawn.mp4")
    with load(model, "openvino") as engine:
        assert measure(str(clip), model, engine, frames=3).decode > 0


def test_the_command_tells_what_a_recording_makes(tmp_path, capsys):
    model = write_model(tmp_path / "small.onnx")
    clip = write_clip(tmp_path / "yard.mp4", size=(96, 64), frames=4)
    asked = [str(clip), "--model", str(model), "--fps", "5", "--frames", "3"]
    assert main([*asked, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (row,) = report["clips"]
    assert (report["schema"], row["clip"]) == ("boxstream.capacity/1", "yard.mp4")
    assert row["watched"]["cameras"] >= row["drawn and recorded"]["cameras"] >= 0
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "cameras of 5 frames/s\n" in shown and "gpu" not in shown
    assert main([*asked, "--max-fps", "0.5"]) == 0
    assert "cameras of 5 frames/s, 0.5 of them looked at" in capsys.readouterr().out


def test_what_was_tuned_for_recordings_is_no_measure_of_cameras(tmp_path, monkeypatch, capsys):
    model = write_model(tmp_path / "small.onnx")
    clip = write_clip(tmp_path / "yard.mp4", size=(96, 64), frames=3)
    tuned = Measured("2026-11-29", {"recording": Division(1, 1, 4), "cameras": Division(1, 1, 1)})
    monkeypatch.setattr(tuning, "read", lambda *_: tuned)
    asked = [str(clip), "--model", str(model), "--engine", "openvino", "--frames", "2", "--json"]
    assert main(asked) == 0
    assert "1 image per call: measured" in json.loads(capsys.readouterr().out)["reason"]


def test_an_answer_that_cannot_be_written_is_an_error(tmp_path, capsys):
    model = write_model(tmp_path / "small.onnx")
    clip = write_clip(tmp_path / "yard.mp4", size=(96, 64), frames=3)
    with full_stdout():
        assert main([str(clip), "--model", str(model), "--frames", "2"]) == 5
    assert "error cannot write to stdout: No space left" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys):
    model = write_model(tmp_path / "small.onnx")
    assert main([str(tmp_path / "no.mp4"), "--model", str(model)]) == 3
    assert "no.mp4" in capsys.readouterr().err
    assert main(["--model", str(tmp_path / "no.onnx")]) == 4
    for wrong in ("0", "-1", "nan", "inf", "1e400", "1e9", "1e-9"):
        for flag in ("--fps", "--max-fps"):
            with pytest.raises(SystemExit) as stop:
                main([f"{flag}={wrong}"])
            assert stop.value.code == 2
            assert "must be from 0.001 to 1000" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["640", "0x10", "1x1", "99999x2", "640x360&seed=1"])
def test_a_size_that_no_street_has_is_a_wrong_argument(size, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--size", "640x360", size])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"no street can be drawn at {size!r}; give --size as WxH" in said
    assert "synthetic:" not in said
