"""The whole line through its command line, on the bundled model and the synthetic street."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

import run_stream
from pipeline.commands import MODELS
from pipeline.engines import load_engine
from pipeline.errors import EngineError
from pipeline.governor import Governor
from pipeline.sources import Source, open_sources
from pipeline.sources.street import STREET_CLASSES, Street, read_frame_counter
from tests.clips import write_clip
from tests.pipeline.model_files import write_model
from tests.waiting import until

REPOSITORY = Path(__file__).parent.parent


class Failing:
    """An engine that works for so many calls."""

    def __init__(self, *model: Any, calls: int, **settings: Any) -> None:
        self._engine, self._left = load_engine(*model, **settings), calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *ended: object) -> None:
        self._engine.__exit__(*ended)

    def submit(self, *images: Any) -> Any:
        if not self._left:
            raise EngineError("the GPU has fallen off its bus")
        self._left -= 1
        return self._engine.submit(*images)


StartLongRun = Callable[..., tuple[Path, Path, "subprocess.Popen[bytes]"]]
SHORT = "synthetic://street?seed={seed}&size=320x180&fps=25&seconds={seconds}"


def short(seed: int = 3, seconds: float = 0.8) -> str:
    return SHORT.format(seed=seed, seconds=seconds)


def stream(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command line in this process; return its exit code and its report."""
    report = tmp_path / "report.json"
    code = run_stream.main([*arguments, "--report", str(report), "--quiet"])
    return code, json.loads(report.read_text()) if report.exists() else {}


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words that ask for a model that takes no time; the bundled one is in the other tests."""
    return ["--model", str(write_model(tmp_path_factory.mktemp("model") / "small.onnx"))]


@pytest.fixture
def start_long_run(tmp_path: Path, small: list[str]) -> Iterator[StartLongRun]:
    """Start a run of ten minutes in a process of its own; return once it has written something.

    It is killed with the test.
    """
    video, lines = tmp_path / "a.mp4", tmp_path / "a.jsonl"
    command = [sys.executable, str(REPOSITORY / "run_stream.py"), short(seconds=600), "--quiet"]
    command += [*small, "--out", str(video), str(lines), "--report", str(tmp_path / "report.json")]
    with ExitStack() as stack:

        def start(*extra: str) -> tuple[Path, Path, subprocess.Popen[bytes]]:
            process = stack.enter_context(subprocess.Popen([*command, *extra], cwd=tmp_path))
            stack.callback(process.kill)
            until(lambda: lines.exists() and lines.stat().st_size > 0, within=90)
            return video, lines, process

        yield start


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["", "quiet"])
def test_while_a_run_lasts_its_log_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: list[str]
) -> None:
    def run(*_: object) -> int:
        logging.getLogger("pipeline.engines.watch").info("the engine answers again")
        return 0

    monkeypatch.setattr(run_stream, "run", run)
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's, which would print it
    assert run_stream.main(quiet) == 0
    logging.getLogger("pipeline.engines.watch").info("told nobody")
    told = capsys.readouterr()
    assert told.err.endswith(" the engine answers again\n") and told.err.count("\n") == 1
    assert not told.out


def test_a_run_leaves_video_records_and_a_report_that_agree(tmp_path: Path) -> None:
    video, lines = tmp_path / "a.mp4", tmp_path / "a.jsonl"
    code, report = stream(tmp_path, short(), "--out", str(video), str(lines))
    assert code == 0
    assert len(pictures(video)) == len(records(lines)) == 20
    source = report["sources"]["street"]
    assert source["state"] == "ENDED"
    assert source["frames_decoded"] == source["frames_inferred"] == 20
    assert source["frames_dropped"] == {} and source["frames_in_flight"] == 0
    assert source["fps"] > 0 and source["latency_ms"]["p99"] >= source["latency_ms"]["p50"] > 0
    assert report["schema"] == "boxstream.report/1"
    assert report["totals"]["frames"] == 20
    int8 = report["engine"]["precision"].startswith("int8")  # on processors that are fast in it
    assert report["engine"]["model"] == ("street_int8" if int8 else "street")
    assert report["engine"]["reason"]
    assert report["truth"]["ap50"] is not None
    assert {"preprocess", "infer", "detect", "draw"} <= set(report["stages"])
    assert report["stages"]["detect"]["items"] == 20


def test_frames_that_the_graph_does_not_vouch_for_are_counted(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tight.onnx")
    model = onnx.load(path)
    (limit,) = (tensor for tensor in model.graph.initializer if tensor.name == "two")
    limit.CopyFrom(numpy_helper.from_array(np.array(0.0, np.float32), "two"))  # no score is lower
    onnx.save(model, path)
    code, report = stream(tmp_path, short(), "--model", str(path), "--out", "null:")
    assert code == 0
    assert report["sources"]["street"]["anomalies"] == {"inexact": 20}


def test_every_frame_comes_out_once_and_in_order(tmp_path: Path, small: list[str]) -> None:
    video = tmp_path / "a.mkv"
    code, _ = stream(tmp_path, short(), *small, "--out", str(video), "--no-draw")
    assert code == 0
    assert [read_frame_counter(picture) for picture in pictures(video)] == list(range(20))


def test_records_hold_what_the_readme_says(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    stream(tmp_path, short(), "--out", str(lines), "--threshold", "0.3")
    found = records(lines)
    assert [line["frame"] for line in found] == list(range(20))
    assert found[5]["pts_seconds"] == pytest.approx(0.2)
    assert all((line["width"], line["height"]) == (320, 180) for line in found)
    detections = [detection for line in found for detection in line["detections"]]
    assert detections, "the bundled model sees nothing in its own street"
    for detection in detections:
        assert detection["label"] == STREET_CLASSES[detection["class_id"]]
        assert 0.3 <= detection["score"] <= 1
        x1, y1, x2, y2 = detection["box"]
        assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 180


def test_drawing_changes_the_picture_only_where_there_are_detections(
    tmp_path: Path, small: list[str]
) -> None:
    plain, drawn, lines = (tmp_path / name for name in ("plain.mkv", "drawn.mkv", "a.jsonl"))
    crf = ["--set", "video.crf=10"]
    stream(tmp_path, short(), *small, "--out", str(plain), "--no-draw", *crf)
    stream(tmp_path, short(), "--out", str(drawn), str(lines), *crf)
    assert any(line["detections"] for line in records(lines))
    for before, after, line in zip(pictures(plain), pictures(drawn), records(lines), strict=True):
        change = np.abs(before.astype(int) - after).max()
        assert (change > 60) == bool(line["detections"])


def test_sources_of_one_run_are_never_mixed(tmp_path: Path, small: list[str]) -> None:
    out = tmp_path / "{source}.mkv"
    words = [*small, "--out", str(out), "--no-draw", "--batch", "3"]
    code, report = stream(tmp_path, short(1, 0.8), short(2, 0.4), *words)
    assert code == 0
    for name, seed, count in (("street", 1, 20), ("street-2", 2, 10)):
        assert report["sources"][name]["frames_inferred"] == count
        written = pictures(tmp_path / f"{name}.mkv")
        street = Street(seed=seed, size_hw=(180, 320), fps=25, seconds=count / 25)
        for index, picture in enumerate(written):
            assert read_frame_counter(picture) == index
            difference = np.abs(picture.astype(int) - street.frame(index).image).mean()
            assert difference < 12, f"{name} frame {index} is somebody else's"
        assert len(written) == count


def test_one_out_for_several_sources_becomes_one_file_each(
    tmp_path: Path, small: list[str]
) -> None:
    code, report = stream(
        tmp_path, short(1), short(2), *small, "--out", str(tmp_path / "all.jsonl")
    )
    assert code == 0
    assert len(report["sinks"]) == 2
    for name in ("street", "street-2"):
        assert {line["source"] for line in records(tmp_path / f"all-{name}.jsonl")} == {name}


def test_a_failing_source_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: list[str]
) -> None:
    good, gone = tmp_path / "good.mp4", tmp_path / "gone.mp4"
    stream(tmp_path, short(), *small, "--out", str(good))
    shutil.copy(good, gone)

    def open_then_lose(*arguments: Any, **limits: Any) -> list[Source]:
        sources = open_sources(*arguments, **limits)
        gone.unlink()
        return sources

    monkeypatch.setattr(run_stream, "open_sources", open_then_lose)
    code, report = stream(
        tmp_path, str(good), str(gone), *small, "--out", str(tmp_path / "{source}.jsonl")
    )
    assert code == 3
    assert report["sources"]["gone"]["state"] == "FAILED"
    assert "gone.mp4" in report["sources"]["gone"]["error"]
    assert report["sources"]["good"]["state"] == "ENDED"
    assert len(records(tmp_path / "good.jsonl")) == 20


def test_a_failing_sink_ends_alone(tmp_path: Path, small: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    video = tmp_path / "a.mp4"
    code, report = stream(tmp_path, short(seconds=4), *small, "--out", str(video), str(full))
    assert code == 5
    assert len(pictures(video)) == 100
    assert report["sinks"][str(full)]["error"]
    assert report["sinks"][str(video)]["error"] is None


def test_a_file_may_be_called_what_means_something_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], small: list[str]
) -> None:
    street, odd = tmp_path / "street.mp4", tmp_path / "[red] :car:.mp4"
    assert stream(tmp_path, short(), *small, "--out", str(street))[0] == 0
    street.rename(odd)
    somewhere = tmp_path / "[" / "x] {source}.jsonl"
    assert run_stream.main([str(odd), *small, "--out", str(somewhere)]) == 0
    summary = capsys.readouterr().out
    assert "[red] :car:  ENDED" in summary
    assert f"wrote {tmp_path}/[/x] [red] _car_.jsonl (20 frames" in summary
    nowhere = odd / "[" / "x].jsonl"
    assert run_stream.main([str(odd), *small, "--out", str(nowhere)]) == 5
    assert str(nowhere) in capsys.readouterr().err


def test_a_run_whose_only_sink_fails_stops_early(tmp_path: Path, small: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    code, report = stream(tmp_path, short(seconds=600), *small, "--out", str(full))
    assert code == 5
    source = report["sources"]["street"]
    assert source["frames_inferred"] < 15000
    lost = source["frames_decoded"] - source["frames_inferred"]
    assert lost == sum(source["frames_dropped"].values())


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["no/such/file.mp4"], 3, "no/such/file.mp4"),
        (["--model", "no/such/model.onnx"], 4, "no/such/model.onnx"),
        (["--model", __file__], 4, "test_run_stream.py"),
        (["--engine", "warp"], 2, "openvino"),
        (["--set", "engine.presicion=f32"], 2, "engine.precision"),
        (["--threshold", "1.5"], 2, "threshold"),
        (["--config", "no/such.yaml"], 2, "no/such.yaml"),
        (["--out", "/proc/nowhere/a.mp4"], 5, "/proc/nowhere"),
        (["--out", "a.docx"], 2, ".mp4"),
        (["synthetic://street?sede=1"], 2, "seed"),
        (["teleport://camera"], 2, "teleport"),
    ],
)
def test_bad_input_ends_with_its_documented_code_and_a_remedy(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_stream.main(arguments) == code
    assert says in capsys.readouterr().err.replace("\n", "")
    assert not list(tmp_path.rglob("*.mp4")), "a failed start left an output behind"


def test_an_existing_file_behind_out_without_a_source_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(b"precious")
    assert run_stream.main(["--out", str(tmp_path / "out.mp4"), str(mine)]) == 2
    assert mine.read_bytes() == b"precious"
    assert "SOURCE" in capsys.readouterr().err


def test_the_report_is_written_over_nothing_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, config, model = tmp_path / "drive.mp4", tmp_path / "c.yaml", tmp_path / "m.onnx"
    write_clip(video)
    config.write_text("detection: {threshold: 0.4}")
    shutil.copy(MODELS["street"], model)
    words = [str(video), "--config", str(config), "--model", str(model), "--out", "null:"]
    for read in (video, config, model):
        before = read.read_bytes()
        assert run_stream.main([*words, "--report", str(read)]) == 2
        assert "choose another --report" in capsys.readouterr().err.replace("\n", " ")
        assert read.read_bytes() == before


def test_a_report_that_cannot_be_written_is_told_before_anything_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "out" / "a.jsonl"
    words = [short(), "--out", str(lines), "--report", str(tmp_path / "out")]
    assert run_stream.main(words) == 5
    assert "cannot write the report" in capsys.readouterr().err
    assert not lines.exists()


def test_a_report_that_fails_at_the_end_is_a_failed_output(
    capsys: pytest.CaptureFixture[str],
    small: list[str],
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    words = [short(seconds=0.2), *small, "--out", "null:", "--report", "/dev/full"]
    assert run_stream.main(words) == 5
    printed = capsys.readouterr()
    assert "output report: cannot write the report to /dev/full" in printed.err
    assert "street  ENDED" in printed.out


def test_who_does_not_read_the_summary_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        report = tmp_path / "report.json"
        words = [short(seconds=0.2), *small, "--out", "null:", "--report", str(report)]
        assert run_stream.main(words) == 0
    assert json.loads(report.read_text())["totals"]["frames"] == 5


def test_an_engine_that_fails_leaves_a_report_of_what_was_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    small: list[str],
) -> None:
    monkeypatch.setattr(run_stream, "load_engine", partial(Failing, calls=7))
    lines, report = tmp_path / "a.jsonl", tmp_path / "report.json"
    words = [short(), *small, "--out", str(lines), "--report", str(report), "--batch", "1"]
    assert run_stream.main(words) == 4
    printed = capsys.readouterr()
    assert "error the GPU has fallen off its bus" in printed.err
    assert "street  ENDED" in printed.out
    told = json.loads(report.read_text())
    assert told["error"] == "the GPU has fallen off its bus" and told["interrupted"] is None
    source = told["sources"]["street"]
    assert source["frames_inferred"] <= 7 and source["frames_in_flight"] == 0
    assert told["stages"]["infer"]["items"] == 7


@pytest.mark.parametrize(
    ("urls", "purpose"),
    [
        (["synthetic:", "synthetic:"], "recording"),
        (["rtsp://cam/x"], "camera"),
        (["rtsp://cam/x", "rtsp://cam/y"], "cameras"),
        (["rtsp://cam/x", "synthetic:"], "cameras"),
    ],
)
def test_what_the_engine_is_to_be_quick_at_follows_from_the_sources(
    urls: list[str], purpose: str
) -> None:
    urls = [url.replace("synthetic:", "synthetic://street?seconds=1") for url in urls]
    assert run_stream.purpose_of(open_sources(urls)) == purpose


def test_a_source_that_is_called_like_a_station_is_not_counted_with_it(
    tmp_path: Path, small: list[str]
) -> None:
    write_clip(tmp_path / "infer.mp4", frames=10)
    write_clip(tmp_path / "draw.mp4", frames=5)
    clips = (str(tmp_path / f"{name}.mp4") for name in ("infer", "draw"))
    _, report = stream(tmp_path, *clips, *small, "--out", "null:")
    items = {name: stage["items"] for name, stage in report["stages"].items()}
    assert items["read infer"] == 10 and items["read draw"] == 5
    assert items["draw"] == 15
    assert items["infer"] == report["stages"]["preprocess"]["items"]


def test_max_frames_and_duration_end_a_source_normally(tmp_path: Path, small: list[str]) -> None:
    _, report = stream(tmp_path, short(), *small, "--out", "null:", "--max-frames", "7")
    assert report["sources"]["street"]["frames_inferred"] == 7
    _, report = stream(tmp_path, short(), *small, "--out", "null:", "--duration", "0.4")
    assert report["sources"]["street"]["frames_inferred"] == 10
    assert report["sources"]["street"]["state"] == "ENDED"


def test_more_sources_than_may_run_at_once_follow_each_other(
    tmp_path: Path, small: list[str]
) -> None:
    sources = [short(seed, 0.2) for seed in range(5)]
    code, report = stream(tmp_path, *sources, *small, "--out", "null:", "--set", "concurrent=2")
    assert code == 0
    assert [s["frames_inferred"] for s in report["sources"].values()] == [5] * 5


def test_a_folder_of_pictures_gives_records_with_file_names(
    tmp_path: Path, small: list[str]
) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for index in range(3):
        image = Street(seed=index, size_hw=(180, 320 + 32 * index)).frame(0).image
        cv2.imwrite(str(folder / f"shot{index}.png"), image[..., ::-1])
    lines, out = tmp_path / "a.jsonl", tmp_path / "annotated"
    code, _ = stream(tmp_path, str(folder), *small, "--out", str(lines), f"{out}/")
    assert code == 0
    assert [line["file"] for line in records(lines)] == [f"shot{i}.png" for i in range(3)]
    assert [line["width"] for line in records(lines)] == [320, 352, 384]
    assert len(list(out.rglob("shot*"))) == 3


def test_a_configuration_is_printed_also_where_its_names_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert run_stream.main(["--print-config", "日本.mp4"]) == 0
    assert b"sources: [\\u65e5\\u672c.mp4]" in written.getvalue()


def test_the_printed_configuration_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_stream.main(["--print-config", "--threshold", "0.25", "clip.mp4"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["detection"]["threshold"] == 0.25
    path = tmp_path / "again.yaml"
    path.write_text(text)
    assert run_stream.main(["--print-config", "--config", str(path)]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_signal_ends_the_run_with_everything_finished(
    number: signal.Signals, code: int, tmp_path: Path, start_long_run: StartLongRun
) -> None:
    video, lines, process = start_long_run()
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    report = json.loads((tmp_path / "report.json").read_text())
    source = report["sources"]["street"]
    assert report["interrupted"] == number.name
    assert source["frames_decoded"] == source["frames_inferred"] + sum(
        source["frames_dropped"].values()
    )
    assert len(records(lines)) == source["frames_inferred"] == len(pictures(video))


def test_a_second_signal_cuts_the_run_off_and_what_was_done_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: list[str]
) -> None:
    def signalled_twice(_: Governor) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Governor, "update", signalled_twice)
    lines = tmp_path / "a.jsonl"
    code, report = stream(tmp_path, short(seconds=600), *small, "--out", str(lines))
    assert (code, report["interrupted"]) == (143, "SIGTERM")
    (sink,) = report["sinks"].values()
    assert sink["frames"] == len(records(lines)) <= report["sources"]["street"]["frames_inferred"]


def test_a_second_signal_ends_the_run_though_an_output_hangs_in_the_system(
    tmp_path: Path, start_long_run: StartLongRun
) -> None:
    hanging = tmp_path / "hanging.jsonl"
    os.mkfifo(hanging)  # opening it waits for somebody who reads it
    *_, process = start_long_run("--out", str(hanging))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # another one, as two of a kind may arrive as one
    assert process.wait(timeout=60) == 130


def test_after_a_kill_the_video_still_plays(start_long_run: StartLongRun) -> None:
    video, _, process = start_long_run("--set", "video.keyframe_seconds=0.4")
    until(lambda: video.stat().st_size > 60_000, within=90)
    process.kill()
    process.wait()
    assert len(pictures(video)) >= 10
