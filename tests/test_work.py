"""The line does no more work for a frame than it did: counted, so it holds on a busy machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import work
from tests.benchmarks.files import STREET_FILE
from tests.benchmarks.material import synthetic_clip
from tests.benchmarks.work_instructions import instructions, why_not
from tests.benchmarks.work_lines import MANY_FRAMES, lines_by_file


@pytest.fixture(scope="module")
def clip() -> Path:
    if not STREET_FILE.exists():
        pytest.skip("the bundled model is not in this checkout")
    return synthetic_clip(work.SIZE_HW, MANY_FRAMES)


def test_no_file_runs_many_more_lines_for_a_frame_than_it_did(clip):
    before = work.baseline()
    grown = work.lines_grown(lines_by_file(clip), before["lines"])
    assert not grown, work.advice(grown, before["versions"])


def test_a_line_that_does_more_is_told_apart_from_one_that_does_the_same(clip):
    before, more = lines_by_file(clip), lines_by_file(clip, "detection.nms=soft")
    assert work.lines_grown(lines_by_file(clip), before) == []
    (complaint,) = work.lines_grown(more, before)
    assert complaint.startswith("pipeline/nms.py: ")
    assert "work.json" in work.advice([complaint], dict.fromkeys(work.PACKAGES, "0"))


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute of processor time
def test_a_frame_takes_no_more_machine_instructions_than_it_did(clip):
    if missing := why_not():
        pytest.skip(missing)
    before = work.baseline()
    now, was = instructions(clip, STREET_FILE), before["million_instructions"]
    grown = [f"{now:.1f} million instructions, {was:.1f} before"]
    assert now <= work.MAY_GROW * was, work.advice(grown, before["versions"])
