"""When live frames are taken, and which are left out."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.bookkeeping.metrics import SourceStats
from pipeline.bookkeeping.tally import Tally
from pipeline.channel import Slots
from pipeline.frame import Batch, Frame
from pipeline.pace import Pace, RateLimit
from pipeline.placement import Placement
from pipeline.settings import EngineSettings, LatencySettings, Settings
from tests.pipeline.frames import blank

SETTINGS = Settings(
    engine=EngineSettings(batch_wait_seconds=7.0), latency=LatencySettings(max_age_seconds=0.4)
)


def camera(name: str = "a", fps: float | None = 25.0) -> SourceStats:
    return SourceStats(name, live=True, state="RUNNING", offered_fps=fps)


def frame(age: float = 0.0, source: str = "a") -> Frame:
    return replace(blank(2, 2, source=source), arrival=time.monotonic() - age)


def pace_of(*sources: SourceStats, slots: Slots | None = None) -> tuple[Pace, Tally]:
    tally = Tally(sources, ["car"], print)
    return Pace(tally, SETTINGS, slots or Slots(1)), tally


@pytest.mark.parametrize("fps", [3.0, 10.0, 24.0])
def test_a_limited_rate_is_met_evenly_whatever_the_camera_offers(fps):
    for offered in (25.0, 29.97, 120.0):
        limit = RateLimit()
        taken = [n / offered for n in range(round(20 * offered)) if limit.admits(n / offered, fps)]
        assert len(taken) == pytest.approx(20 * fps, abs=2)
        steps = [later - earlier for earlier, later in pairwise(taken)]
        assert max(steps) < 1 / fps + 1.5 / offered


def test_a_pause_of_the_camera_is_not_made_up_for():
    limit = RateLimit()
    assert limit.admits(0.0, 5)
    assert [limit.admits(60.0 + n / 25, 5) for n in range(5)].count(True) <= 2


def test_frames_that_are_too_old_are_left_out_and_counted():
    pace, tally = pace_of(camera())
    fresh, old = frame(), frame(age=0.5)
    assert pace.admit([old, fresh]) == [fresh]
    assert tally.sources["a"].frames_dropped == {"stale": 1}


def test_a_recorded_frame_is_never_too_old_nor_one_too_many():
    pace, tally = pace_of(SourceStats("a"))
    pace.limit_fps(0.001)
    group = [frame(age=3600), frame(age=3600)]
    assert pace.admit(group) == group
    assert not tally.sources["a"].frames_dropped


def test_each_camera_has_a_rate_of_its_own_and_what_is_refused_is_counted():
    pace, tally = pace_of(camera("a"), camera("b"))
    pace.limit_fps(1)
    assert len(pace.admit([frame(source=name) for name in "abab"])) == 2
    assert {name: s.frames_dropped for name, s in tally.sources.items()} == {
        "a": {"latency_budget": 1},
        "b": {"latency_budget": 1},
    }
    pace.limit_fps(None)
    assert len(pace.admit([frame(), frame()])) == 2


def test_a_batch_of_which_nothing_is_left_gives_its_slot_back():
    slots = Slots(1)
    pace, _ = pace_of(camera(), slots=slots)
    for _ in range(5):  # the second time it would wait for ever
        pace.wait_for_slot()
        assert pace.admit([frame(age=9)]) == []


@pytest.mark.parametrize("calls", [1, 2])
def test_with_several_cameras_one_more_batch_is_at_hand_for_as_long_as_they_are_there(calls):
    slots = Slots(calls)
    pace, _ = pace_of(camera("a"), camera("b"), slots=slots)
    counts = []
    for cameras in (1, 2, 6, 1, 0):
        pace.share_among(cameras)
        counts.append(slots.count)
    assert counts == [calls, calls + 1, calls + 1, calls, calls]


def test_recorded_frames_wait_as_long_as_is_set():
    tally = Tally([SourceStats("a")], ["car"], print)
    assert Pace(tally, SETTINGS).patience() == 7.0


@pytest.mark.parametrize(
    ("rates", "seconds"),
    [([25.0], 0.04), ([25.0, 50.0], 0.02), ([2.0, 1.0], 0.1), ([None], 0.0), ([], 0.0)],
)
def test_live_frames_wait_until_the_fastest_camera_has_its_next(rates, seconds):
    sources = [camera(str(n), fps) for n, fps in enumerate(rates)]
    pace, _ = pace_of(*sources)
    assert pace.patience() == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("budget_ms", "seconds"),
    [(None, 0.1), (4000.0, 0.1), (400.0, 0.1), (200.0, 0.05), (100.0, 0.025), (20.0, 0.005)],
)
def test_waiting_costs_at_most_a_quarter_of_the_latency_budget(budget_ms, seconds):
    latency = replace(SETTINGS.latency, budget_ms=budget_ms)
    tally = Tally([camera(fps=2.0)], ["car"], print)
    pace = Pace(tally, replace(SETTINGS, latency=latency), Slots(1))
    assert pace.patience() == pytest.approx(seconds)


def test_nobody_waits_for_a_camera_that_does_not_run():
    stalled = camera("b", fps=5.0)
    stalled.changed("STALLED", "stalled", "no picture for 2 s")
    pace, _ = pace_of(camera("a", fps=50.0), stalled)
    assert pace.patience() == pytest.approx(0.02)


def test_a_slot_is_free_once_the_answer_is_there_while_its_objects_are_still_picked():
    slots = Slots(1)
    pace, _ = pace_of(camera(), slots=slots)
    pace.wait_for_slot()
    with ThreadPoolExecutor(1) as pool:
        next_one = pool.submit(pace.wait_for_slot)

        class Computing:
            def result(self) -> dict[str, np.ndarray]:
                assert not wait([next_one], timeout=0.05).done
                return {"scores": np.zeros(1)}

        place = Placement.stretch((2, 2), (2, 2))
        batch = Batch((frame(),), np.empty((1, 2, 2, 3), np.uint8), (place,))
        with closing(pace.answered([(batch, Computing())])) as answers:
            _, answer = next(answers)
            assert wait([next_one], timeout=20).done
            assert list(answer.result()) == ["scores"]
