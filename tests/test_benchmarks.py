"""The benchmarks still run; their figures are nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.agreement import STRICT, Found, Tolerance, matched_share

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(600)  # models are exported first
@pytest.mark.parametrize("name", ["engines", "line", "limits", "memory", "streams"])
def test_each_benchmark_runs_and_writes_what_it_measured(name: str, tmp_path: Path) -> None:
    if name == "line":
        pytest.importorskip("supervision", reason="the rival of the line benchmark")
    if name != "engines" and not (REPOSITORY / "models" / "zoo" / "street.onnx").exists():
        pytest.skip("the bundled model is not in this checkout")
    figures = tmp_path / f"{name}.json"
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--smoke", "--json", str(figures)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    entry = json.loads(figures.read_text())
    assert entry["benchmark"].startswith(name) and entry["smoke"] is True
    assert entry["machine"]["versions"]["openvino"]
    assert entry["rows"] and all(row["fps"] > 0 for row in entry["rows"])


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
