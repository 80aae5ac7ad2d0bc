"""The benchmarks still run; their figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.model_file.content import content_sha256
from tests.benchmarks import privacy
from tests.benchmarks.agreement import STRICT, Found, Tolerance, matched_share
from tests.benchmarks.files import STREET_FILE
from tests.benchmarks.outcome import RESULTS
from tests.live.kit.cameras import why_no_cameras
from tests.pipeline.model_files import write_model

REPOSITORY = Path(__file__).parent.parent
WITH_ANY_MODEL = ("line", "limits", "memory", "full")
"""They are given a small one, which costs next to nothing; the others run the bundled one."""


@pytest.mark.slow
@pytest.mark.timeout(600)  # models are exported first
@pytest.mark.parametrize(
    "name", ["engines", "line", "limits", "memory", "streams", "scale", "full"]
)
def test_each_benchmark_runs_and_writes_what_it_measured(name: str, tmp_path: Path) -> None:
    if name == "line":
        pytest.importorskip("supervision", reason="the rival of the line benchmark")
    if name != "engines" and not (REPOSITORY / "models" / "zoo" / "street.onnx").exists():
        pytest.skip("the bundled model is not in this checkout")
    figures = tmp_path / f"{name}.json"
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--smoke", "--json", str(figures)]
    command += ["--no-install"] if name == "full" else []  # who is not there is left out
    if name in WITH_ANY_MODEL:
        command += ["--model", str(write_model(tmp_path / "small.onnx"))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = json.loads(figures.read_text())
    assert entry["benchmark"].startswith(name) and entry["smoke"] is True
    assert entry["machine"]["versions"]["openvino"]
    assert entry["rows"] and all(row["fps"] > 0 for row in entry["rows"])


@pytest.mark.slow
def test_the_privacy_benchmark_looks_for_heads_under_the_blur(tmp_path: Path) -> None:
    if not privacy.CLIP.exists():
        pytest.skip("the labelled clip is not beside this checkout")
    figures = tmp_path / "privacy.json"
    command = [sys.executable, "-m", "tests.benchmarks.privacy", "--smoke", "--json", str(figures)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["name"]: row for row in json.loads(figures.read_text())["rows"]}
    heads = {row["heads"] for row in rows.values()}
    assert heads == {max(heads)} and max(heads) > 0
    assert 0 < rows["person"]["people_pixels"] <= rows["all"]["people_pixels"] <= 1
    assert rows["person"]["picture_pixels"] < rows["all"]["picture_pixels"] < 0.5


def test_what_the_readme_says_of_blurring_was_measured_with_the_model_that_ships() -> None:
    entry = json.loads((RESULTS / "privacy.json").read_text())
    assert entry["model_sha256"] == content_sha256(STREET_FILE), "run tests.benchmarks.privacy"
    row = next(row for row in entry["rows"] if row["name"] == "person")
    assert f"{row['hidden']} of {row['heads']} heads" in (REPOSITORY / "README.md").read_text()


@pytest.mark.slow
def test_the_cold_start_benchmark_times_each_step_and_sees_what_the_cache_saves(
    tmp_path: Path,
) -> None:
    if not (REPOSITORY / "models" / "zoo" / "street.onnx").exists():
        pytest.skip("the bundled model is not in this checkout")
    figures = tmp_path / "cold_start.json"
    command = [sys.executable, "-m", "tests.benchmarks.cold_start", "--smoke", "--json"]
    command += [str(figures), "--only", "camera, openvino"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = json.loads(figures.read_text())
    rows = {row["name"]: row for row in entry["rows"]}
    assert len(rows) == 3 and entry["imports"]["openvino"] > 0
    for row in rows.values():
        steps = ("interpreter", "imports", "reading the model", "compiling", "first call")
        parts = sum(row[step] for step in steps)
        assert 0 < parts < row["first detection"] <= row["first frame at the sink"]
    filled, none = (rows[f"camera, openvino, {cache} cache"] for cache in ("filled", "no"))
    assert filled["compiling"] < none["compiling"]  # processor time, and half of it


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_live_benchmark_dates_results_and_sees_a_camera_come_back(tmp_path: Path) -> None:
    rows = camera_script(tmp_path, "benchmarks.live", "--only", "boxstream", "--rounds", "1")
    by_name = {row["name"]: row for row in rows}
    assert by_name["2.5x boxstream"]["p50_ms"] > 0
    assert by_name["killed: boxstream"]["verdict"] == "comes back"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak_keeps_its_promises(tmp_path: Path) -> None:
    small = f"model={write_model(tmp_path / 'small.onnx')}"
    options = ("--minutes", "0.5", "--sources", "2", "--seed", "3", "--set", small)
    rows = camera_script(tmp_path, "soak", *options)
    assert len(rows) == 2 and all(row["frames_inferred"] > 0 for row in rows)


def camera_script(tmp_path: Path, name: str, *options: str) -> list[dict[str, Any]]:
    """Run a script that needs cameras; return its rows."""
    missing = why_no_cameras()
    if missing:
        pytest.skip(missing)
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"tests.{name}", "--smoke", *options, "--json", str(figures)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    rows: list[dict[str, Any]] = json.loads(figures.read_text())["rows"]
    return rows


def objects(*boxes: tuple[float, float, float, float], label: int = 0) -> Found:
    return Found(np.array(boxes).reshape(-1, 4), np.full(len(boxes), label), np.ones(len(boxes)))


def test_two_answers_agree_when_every_object_has_a_partner_of_its_own() -> None:
    one, other = (0, 0, 10, 10), (50, 50, 90, 90)
    assert matched_share([(objects(one, other), objects(other, one))], STRICT) == 1
    assert matched_share([(objects(one, one), objects(one))], STRICT) == pytest.approx(2 / 3)
    assert matched_share([(objects(one), objects(one, label=1))], STRICT) == 0
    assert matched_share([(objects(), objects())], STRICT) == 1
    shifted = (1, 0, 11, 10)  # overlaps 90 of 110
    assert matched_share([(objects(one), objects(shifted))], Tolerance(iou=0.8, score=1)) == 1
    assert matched_share([(objects(one), objects(shifted))], Tolerance(iou=0.82, score=1)) == 0
