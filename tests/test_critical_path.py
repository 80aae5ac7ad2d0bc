"""Samples tell who holds the lock, and every moved picture is counted."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.frame import Detections
from pipeline.preprocess import preprocess
from pipeline.settings import RenderSettings
from tests.benchmarks import gil
from tests.benchmarks.copies import Copies, Moved
from tests.pipeline.drawing import draw
from tests.pipeline.frames import blank

REPOSITORY = Path(__file__).parent.parent
CPU_SECONDS = 0.3  # of each thread: some 75 samples at 250 ticks a second


def with_the_lock() -> None:
    sum(range(1000))


def without_it(much: bytes = bytes(1 << 22)) -> None:
    hashlib.sha256(much)


@pytest.fixture
def _sampled() -> None:
    if missing := gil.why_not():
        pytest.skip(missing)


@pytest.mark.usefixtures("_sampled")
def test_the_sampler_tells_python_from_what_runs_beside_it() -> None:
    def busy(work: Callable[[], None]) -> None:
        while time.thread_time() < CPU_SECONDS:
            work()

    threads = [
        threading.Thread(target=busy, args=(work,), name=work.__name__)
        for work in (with_the_lock, without_it)
    ]
    sampler = gil.GilSampler()
    with sampler:
        for thread in threads:
            thread.start()
        sampler.update(())
        for thread in threads:
            thread.join()
    shares = sampler.shares()
    holder, other = shares["with_the_lock"], shares["without_it"]
    assert min(holder.samples, other.samples) > 10
    assert holder.held > 0.9 * holder.samples
    assert other.held < 0.2 * other.samples


def test_the_copy_to_draw_on_is_one_whole_picture() -> None:
    frame, copies = blank(64, 48), Copies()
    with copies.counted():
        draw(frame.picture, Detections.none(), ("car",), RenderSettings())
    size = 64 * 48 * 3 // 2
    assert copies.by_thread == {"MainThread": Moved(size, size, 1)}
    draw(frame.picture, Detections.none(), ("car",), RenderSettings())
    assert copies.by_thread["MainThread"].whole == 1  # outside the block nothing is counted


def test_preprocessing_reads_the_picture_once_and_copies_no_whole_one() -> None:
    frame, copies = blank(64, 48), Copies()
    with copies.counted():
        (batch,) = preprocess([[frame]], (24, 40), "letterbox")
    picture, scaled = 64 * 48 * 3 // 2, 24 * 32 * 3  # bars at both sides
    assert copies.by_thread == {"MainThread": Moved(picture + scaled, 2 * scaled, 0)}
    (plain,) = preprocess([[frame]], (24, 40), "letterbox")
    assert np.array_equal(batch.images, plain.images)


@pytest.mark.slow
@pytest.mark.usefixtures("_sampled")
def test_the_benchmark_runs_and_no_station_is_forgotten(tmp_path: Path) -> None:
    if not (REPOSITORY / "models" / "zoo" / "street.onnx").exists():
        pytest.skip("the bundled model is not in this checkout")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks.critical_path", "--smoke", "--json"]
    done = subprocess.run(
        [*command, str(figures)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["name"]: row for row in json.loads(figures.read_text())["rows"]}
    drawn, plain = rows["drawn and written, all"], rows["nothing written, all"]
    assert 0 < drawn["lock_ms"] < drawn["cpu_ms"]
    assert (drawn["whole"], plain["whole"]) == (1, 0)
    assert rows["drawn and written, preprocess"]["written_mb"] > 0
